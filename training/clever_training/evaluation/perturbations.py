"""Perturbations of photos whose parameters are pure functions of (seed, photo, view).

The transformations are torchvision's reference implementations. Blur and elastic transform use
OpenCV, which is faster on one small image and gives the same result. Parameters are drawn here;
they do not depend on workers, batch size or subset.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

# ImageNet's mean colour: close to zero once it is normalised.
GREY = (124, 116, 104)
Parameters = tuple[float, ...]


@runtime_checkable
class Step(Protocol):
    """One transformation: draws its parameters and applies them to a square RGB image."""

    def draw(self, random: np.random.Generator) -> Parameters:
        """Draw the parameters for one photo."""
        ...

    def apply(self, image: Image.Image, parameters: Parameters) -> Image.Image:
        """Transform one photo; the size stays."""
        ...


@dataclass(frozen=True)
class Rotate:
    """Rotation by an angle uniform in [low, high] degrees, counter-clockwise, bicubic."""

    low: float
    high: float

    def draw(self, random: np.random.Generator) -> Parameters:
        """The angle in degrees."""
        return (float(random.uniform(self.low, self.high)),)

    def apply(self, image: Image.Image, parameters: Parameters) -> Image.Image:
        """Rotate; quarter turns are exact, so that resampling does not reveal the others."""
        angle = parameters[0] % 360
        if angle % 90 == 0:
            turned: Any = np.rot90(np.asarray(image), int(angle // 90))
            return Image.fromarray(np.ascontiguousarray(turned))
        return _image(F.rotate(image, angle, InterpolationMode.BICUBIC, fill=list(GREY)))


@dataclass(frozen=True)
class QuarterTurn:
    """Rotation by 0, 90, 180 or 270 degrees, counter-clockwise, each equally likely."""

    def draw(self, random: np.random.Generator) -> Parameters:
        """The number of quarter turns, 0 to 3."""
        return (float(random.integers(4)),)

    def apply(self, image: Image.Image, parameters: Parameters) -> Image.Image:
        """Turn without resampling."""
        return Rotate(0.0, 0.0).apply(image, (90 * parameters[0],))


@dataclass(frozen=True)
class Flip:
    """Horizontal flip, half of the time."""

    def draw(self, random: np.random.Generator) -> Parameters:
        """1 to flip, else 0."""
        return (float(random.integers(2)),)

    def apply(self, image: Image.Image, parameters: Parameters) -> Image.Image:
        """Flip, or return the photo unchanged."""
        return _image(F.hflip(image)) if parameters[0] else image


@dataclass(frozen=True)
class ColorJitter:
    """torchvision's ColorJitter: brightness, contrast, saturation, hue, in random order."""

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1

    def draw(self, random: np.random.Generator) -> Parameters:
        """Three factors around 1, a hue shift around 0, and the order as a number below 24."""
        widths = (self.brightness, self.contrast, self.saturation)
        factors = [float(random.uniform(max(0.0, 1 - width), 1 + width)) for width in widths]
        hue = float(random.uniform(-self.hue, self.hue))
        return (*factors, hue, float(random.integers(24)))

    def apply(self, image: Image.Image, parameters: Parameters) -> Image.Image:
        """Apply the four adjustments in the drawn order."""
        order, left = [], [0, 1, 2, 3]
        number = int(parameters[4])
        for size in (4, 3, 2, 1):  # the digits of the order in the factorial number system
            number, digit = divmod(number, size)
            order.append(left.pop(digit))
        adjust = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
        for which in order:
            image = _image(adjust[which](image, parameters[which]))
        return image


@dataclass(frozen=True)
class Brightness:
    """Brightness times a factor uniform in [low, high]; 1 leaves the photo as it is."""

    low: float
    high: float

    def draw(self, random: np.random.Generator) -> Parameters:
        """The factor."""
        return (float(random.uniform(self.low, self.high)),)

    def apply(self, image: Image.Image, parameters: Parameters) -> Image.Image:
        """Scale all pixels, clipped at white."""
        return _image(F.adjust_brightness(image, parameters[0]))


@dataclass(frozen=True)
class Blur:
    """Gaussian blur with σ uniform in [low, high], in pixels of a 64 px photo.

    σ is scaled with the image, so that a strength means the same at any input size.
    """

    low: float
    high: float

    def draw(self, random: np.random.Generator) -> Parameters:
        """σ for a 64 px image."""
        return (float(random.uniform(self.low, self.high)),)

    def apply(self, image: Image.Image, parameters: Parameters) -> Image.Image:
        """Blur with a kernel that reaches 3 σ; below 0.1 pixels the photo is unchanged."""
        sigma = parameters[0] * image.width / 64
        if sigma < 0.1:
            return image
        return Image.fromarray(blurred(np.asarray(image), sigma))


@dataclass(frozen=True)
class Crop:
    """A crop of a share of the area uniform in [low, high], resized back, bicubic.

    As torchvision's RandomResizedCrop, but with a fixed aspect ratio when ``ratio`` is 1.
    """

    low: float
    high: float
    ratio: float = 1.0

    def draw(self, random: np.random.Generator) -> Parameters:
        """Left, top, width, height as shares of the side."""
        area = random.uniform(self.low, self.high)
        stretch = np.exp(random.uniform(-np.log(self.ratio), np.log(self.ratio)))
        width, height = min(1.0, np.sqrt(area * stretch)), min(1.0, np.sqrt(area / stretch))
        left, top = random.uniform(0, 1 - width), random.uniform(0, 1 - height)
        return float(left), float(top), float(width), float(height)

    def apply(self, image: Image.Image, parameters: Parameters) -> Image.Image:
        """Cut and resize with sub-pixel borders."""
        left, top, width, height = (share * image.width for share in parameters)
        box = (left, top, min(left + width, image.width), min(top + height, image.height))
        return image.resize(image.size, Image.Resampling.BICUBIC, box=box)


@dataclass(frozen=True)
class Elastic:
    """torchvision's ElasticTransform: a smooth random displacement.

    torchvision's α = 100 and σ = 5 are in pixels. They displace by about 1.6 pixels at any image
    size, which at 64 px is three times the distortion of the paper's 224 px. Here the displacement
    scales with the photo, so that the distortion is the same at any size.

    Attributes:
        alpha: Magnitude at the reference size.
        sigma: Smoothness at the reference size.
        reference: Side in pixels at which the result equals torchvision's.
    """

    alpha: float = 100.0
    sigma: float = 5.0
    reference: int = 224

    def draw(self, random: np.random.Generator) -> Parameters:
        """The seed of the displacement field."""
        return (float(random.integers(2**31)),)

    def apply(self, image: Image.Image, parameters: Parameters) -> Image.Image:
        """Displace with bilinear interpolation."""
        random = np.random.default_rng(int(parameters[0]))
        height, width = image.height, image.width
        noise = random.uniform(-1, 1, (height, width, 2)).astype(np.float32)
        scale = width / self.reference
        smooth = blurred(noise, self.sigma * scale, reach=4.0)
        # torchvision's unit is half of the side. A narrower blur leaves the noise 1/σ stronger;
        # the square makes displacements scale with the side.
        shift = smooth * np.float32(self.alpha * scale**2 / 2)
        rows, columns = np.indices((height, width), dtype=np.float32)
        moved = cv2.remap(
            np.asarray(image),
            columns + shift[..., 0],
            rows + shift[..., 1],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=GREY,
        )
        return Image.fromarray(moved)


@dataclass(frozen=True)
class Perturbation:
    """A chain of steps, with or without the disc.

    Attributes:
        steps: The steps, in the order in which they are applied.
        disc: Whether everything but the inner disc is covered with grey at the end, so that
            rotated corners do not reveal the angle.

    Example:
        >>> turned = Perturbation((Rotate(-90.0, 90.0),), disc=True)
        >>> image = Image.new("RGB", (64, 64), "white")
        >>> turned(image, turned.parameters(seed=0, index=7)).getpixel((0, 0)) == GREY
        True
    """

    steps: tuple[Step, ...] = ()
    disc: bool = False

    def parameters(self, seed: int, index: int, view: int = 0) -> tuple[Parameters, ...]:
        """Draw every step's parameters: a pure function of the arguments.

        Each kind of step draws from its own stream. A photo's colours are jittered in the same way
        with and without a rotation after it, so that conditions can be compared pairwise.

        Args:
            seed: Seed of the evaluation.
            index: The photo's row in the whole data set.
            view: Number of the view, when the photo has several.

        Returns:
            Parameters for each step.
        """
        drawn = []
        for step in self.steps:
            stream = zlib.crc32(type(step).__name__.encode())
            drawn.append(step.draw(np.random.default_rng([seed, index, view, stream])))
        return tuple(drawn)

    def __call__(self, image: Image.Image, parameters: tuple[Parameters, ...]) -> Image.Image:
        """Transform a square RGB image.

        Args:
            image: RGB, square.
            parameters: From ``parameters``.

        Returns:
            A new RGB image of the same size.
        """
        for step, values in zip(self.steps, parameters, strict=True):
            image = step.apply(image, values)
        if not self.disc:
            return image
        return Image.composite(image, Image.new("RGB", image.size, GREY), disc_mask(image.width))


def disc_mask(size: int) -> Image.Image:
    """The disc inside a square, one pixel away from its border.

    A disc that touched the border would include pixels for which bicubic resampling reads beyond
    the border.

    Args:
        size: Side of the square in pixels.

    Returns:
        An image of mode L: 255 inside, 0 outside.
    """
    mask = Image.new("L", (size, size), 0)
    ImageDraw.Draw(mask).ellipse((1, 1, size - 2, size - 2), fill=255)
    return mask


def blurred(pixels: NDArray[Any], sigma: float, reach: float = 3.0) -> NDArray[Any]:
    """Gaussian blur as in torchvision, but by OpenCV: a hundred times faster on a small image.

    Args:
        pixels: (height, width, channels).
        sigma: Standard deviation in pixels.
        reach: The kernel's half width in σ.

    Returns:
        The blurred pixels, with the same shape and dtype; the border is mirrored.
    """
    # As in torchvision, no kernel reaches beyond the mirrored image.
    half = min(int(np.ceil(reach * sigma)), min(pixels.shape[:2]) - 1)
    size = (2 * half + 1, 2 * half + 1)
    return cv2.GaussianBlur(pixels, size, sigma, borderType=cv2.BORDER_REFLECT_101)


def draw_all(
    perturbation: Perturbation, seed: int, indices: NDArray[np.int64], view: int = 0
) -> list[tuple[Parameters, ...]]:
    """The parameters of many photos.

    Args:
        perturbation: The perturbation.
        seed: Seed of the evaluation.
        indices: Row of each photo in the whole data set.
        view: Number of the view, when each photo has several.

    Returns:
        The parameters of each photo.
    """
    return [perturbation.parameters(seed, int(index), view) for index in indices]


def _image(image: Any) -> Image.Image:
    assert isinstance(image, Image.Image)
    return image


PLAIN = Perturbation()
UPRIGHT = Perturbation(disc=True)
ROTATED = Perturbation((Rotate(-90.0, 90.0),), disc=True)
