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
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _to_8_bit(image)
    profile = image.info.get("icc_profile") if options.color_management else None
    if options.background is not None and image.has_transparency_data:
        rgba = image.convert("RGBA")
        below = Image.new("RGBA", image.size, (*rgb_of(options.background), 255))
        image = Image.alpha_composite(below, rgba).convert("RGB")
    elif "transparency" in image.info and image.mode == "P":
        image = image.convert("RGBA")  # straight to RGB, Pillow warns
    if profile:
        return _to_srgb(image, profile)
    return image.convert("RGB")


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert the colours of an ICC profile, by relative colorimetry."""
    from PIL import ImageCms

    if image.mode not in ("RGB", "L", "CMYK"):
        image = image.convert("RGB")
    try:
        converted = ImageCms.profileToProfile(
            image,
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
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
    values = np.asarray(image).astype(np.int64)
    low, high = values.min(), values.max()
    if low < 0 or high > 65_535:
        raise ValueError(f"expected 16-bit values, 0 to 65535, got {low} to {high}")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))  # rounded, 65535 → 255
