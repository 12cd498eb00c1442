"""Convert images of any mode to 8-bit RGB."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from clever_hub.images.options import LoadOptions, rgb_of


def to_rgb(image: Image.Image, options: LoadOptions) -> Image.Image:
    """An image of any mode as RGB.

    Args:
        image: The image, upright.
        options: How to treat colour profiles and transparency.

    Raises:
        ValueError: When it has no pixels, or numbers that have no agreed range.
    """
    if 0 in image.size:
        raise ValueError("the image has no pixels")
    if image.mode == "F":
        raise ValueError("floating point pixels have no agreed range; save it as 8 or 16 bit")
    profile = image.info.get("icc_profile") if options.color_management else None
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _to_8_bit(image)
    gray = image.mode in ("1", "L", "LA")
    background = options.background if image.has_transparency_data else None
    if background is not None or ("transparency" in image.info and image.mode == "P"):
        image = image.convert("RGBA")  # a palette straight to RGB, Pillow warns
    rgb = _to_srgb(image, profile, gray) if profile else image.convert("RGB")
    if background is None:
        return rgb
    rgb.putalpha(image.getchannel("A"))
    below = Image.new("RGBA", image.size, (*rgb_of(background), 255))  # sRGB, as rgb is now
    return Image.alpha_composite(below, rgb).convert("RGB")


def _to_srgb(image: Image.Image, profile: bytes, gray: bool) -> Image.Image:
    """Convert the colours of an ICC profile, by relative colorimetry."""
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = "CMYK" if image.mode == "CMYK" else "RGB"
        if gray and source.profile.xcolor_space == "GRAY":
            mode = "L"
        converted = ImageCms.profileToProfile(
            image if image.mode == mode else image.convert(mode),
            source,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
        )
    except (ImageCms.PyCMSError, OSError) as error:
        raise ValueError(
            f"its colour profile cannot be used ({error}); leave color_management out"
        ) from error
    assert converted is not None
    return converted


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grayscale down; a value that the file calls transparent becomes alpha."""
    values = np.asarray(image).astype(np.int64)
    low, high = values.min(), values.max()
    if low < 0 or high > 65_535:
        raise ValueError(f"expected 16-bit values, 0 to 65535, got {low} to {high}")
    scaled = Image.fromarray(((values + 128) // 257).astype(np.uint8))  # rounded, 65535 → 255
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):  # compared here: 257 values become one of 8 bits
        opaque = values != transparent
        scaled.putalpha(Image.fromarray(opaque.astype(np.uint8) * 255))
    return scaled
