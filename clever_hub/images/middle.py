"""A photo at two scales, of one decoding: the whole, and its middle from nearer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from clever_hub.config import PreprocessingConfig
from clever_hub.images.opening import ImageSource, open_image
from clever_hub.images.options import LoadOptions
from clever_hub.images.preparing import Preprocessor

SHARE = 0.63  # of the side that the whole shows: 40 % of its area


class WholeAndMiddle(Preprocessor):
    """Prepares what the model sees of a photo, and the middle of that, enlarged.

    A frame, blank corners and what a crop took away lie outside of the middle, so that a copy with
    such changes is more like its original there.

    Example:
        >>> prepare = WholeAndMiddle(PreprocessingConfig(resize_size=64, crop_size=64))
        >>> prepare(np.zeros((100, 200, 3), dtype=np.uint8)).shape
        (2, 3, 64, 64)
    """

    def __init__(self, config: PreprocessingConfig, options: LoadOptions | None = None) -> None:
        super().__init__(config, options)
        nearer = replace(config, resize_size=round(config.resize_size / SHARE))
        self._middle = Preprocessor(nearer)

    def __call__(self, image: ImageSource) -> NDArray[np.float32]:
        """Prepare one image.

        Args:
            image: Anything that ``load_image`` takes.

        Returns:
            float32 (2, 3, crop_size, crop_size): the whole, then the middle.

        Raises:
            ImageError: As for ``Preprocessor``.
        """
        opened = open_image(image, self.options, self._middle.config.resize_size)
        return np.stack([super().__call__(opened), self._middle(opened)])

    def with_options(self, options: LoadOptions) -> WholeAndMiddle:
        """The same preparation of images that are opened in another way."""
        return WholeAndMiddle(self.config, options)
