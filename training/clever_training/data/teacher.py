"""A frozen teacher: what it says of clean, whole, upright photos."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from clever_hub.errors import ConfigError
from clever_training.model.backbones import check_size, tensors_sha256
from clever_training.model.pretrained import load_pretrained
from clever_training.views.decode import EncodedPhoto, Image, shrink_for

# Part of every cache's key: to be raised when the same photo is prepared in another way.
_PREPARATION = 1
_KERNELS = ("bicubic", "bilinear", "nearest")


@dataclass(frozen=True)
class CleanPhoto:
    """Prepares photos for a teacher; small, so that each loader has its own.

    A photo is resized to a square, whatever its shape: nothing of it is cut off, since a view may
    show any part.

    Attributes:
        size: Side of the result in pixels.
        interpolation: ``bicubic``, ``bilinear`` or ``nearest``; anything else is taken as bicubic.
    """

    size: int
    interpolation: str = "bicubic"

    def __call__(self, photo: EncodedPhoto) -> Image:
        """The whole photo in the teacher's size.

        Args:
            photo: Not decoded yet.

        Returns:
            uint8 (size, size, 3), RGB.

        Raises:
            ImageError: When it cannot be decoded.
        """
        # Two pixels of the photo to one of the result leave the resampling something to average.
        image = photo.decode(shrink_for(min(photo.size) / self.size / 2))
        if image.shape[:2] == (self.size, self.size):
            return image
        pixels = torch.from_numpy(np.array(image))[None].permute(0, 3, 1, 2)
        kernel = self.interpolation if self.interpolation in _KERNELS else "bicubic"
        square, smooth = (self.size, self.size), kernel != "nearest"
        result = interpolate(pixels, size=square, mode=kernel, antialias=smooth)
        return np.ascontiguousarray(result.permute(0, 2, 3, 1)[0].numpy())


class Teacher:
    """A pretrained network that embeds clean photos.

    Args:
        specification: As ``load_pretrained`` takes it: ``timm:NAME``, or a clever model by name or
            folder.
        size: Side of the photos in pixels; None is the teacher's own.
        device: Where it computes.
        precision: ``fp32`` or ``bf16``, in which it computes; its embeddings are float32.

    Attributes:
        name: As in ``specification``, of a folder the model's own.
        architecture: Its name in timm.
        size: Side of the photos in pixels.
        dim: Length of its embedding.
        prepare: Gives it clean photos.
        digest: SHA-256 of all that an embedding depends on beside the photo.

    Raises:
        ModelNotFoundError: When there is no such model, or its weights cannot be had.
        ConfigError: When it does not take photos of that size, or gives no embedding of them.
    """

    def __init__(
        self,
        specification: str,
        size: int | None = None,
        device: torch.device | None = None,
        precision: str = "fp32",
    ) -> None:
        model = load_pretrained(specification)
        config, own = model.config, model.config.preprocessing
        self.size = size or own.crop_size
        preprocessing = replace(own, resize_size=self.size, crop_size=self.size)
        self.prepare = CleanPhoto(self.size, own.interpolation)
        self.architecture, self.dim = config.architecture, config.num_features
        self.name = specification if specification.startswith("timm:") else config.name
        check_size(model.backbone, f"method.teacher: {self.name}", self.size)
        self.device = device or torch.device("cpu")
        backbone = model.backbone.eval().requires_grad_(False)
        self.backbone = backbone.to(self.device).to(memory_format=torch.channels_last)
        text = f"{_PREPARATION} {tensors_sha256(backbone.state_dict())} {config.architecture} "
        text += f"{sorted(config.model_args.items())} {preprocessing}"
        self._bf16 = precision == "bf16"
        if self._bf16:
            text += " bf16"
        self.digest = hashlib.sha256(text.encode()).hexdigest()
        self._mean, self._std = (
            torch.tensor(values, device=self.device).view(1, 3, 1, 1) * 255
            for values in (own.mean, own.std)
        )

    @torch.inference_mode()
    def embed(self, photos: NDArray[np.uint8] | Tensor) -> Float[Tensor, "batch dim"]:
        """Embeddings of prepared photos.

        Args:
            photos: uint8 (batch, size, size, 3).

        Returns:
            float32, on the teacher's device.

        Raises:
            ConfigError: When they are not finite.
        """
        pixels = torch.as_tensor(photos).to(self.device).permute(0, 3, 1, 2).float()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
            embeddings: Tensor = self.backbone((pixels - self._mean) / self._std).float()
        if not bool(embeddings.isfinite().all()):
            raise ConfigError(
                f"method.teacher: {self.name} gives embeddings that are not finite. "
                "Take another teacher, or another method.teacher.size"
            )
        return embeddings.clone()  # an inference tensor could not be saved for backward
