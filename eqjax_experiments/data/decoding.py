"""Image files: decoding, cutting square, scaling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from eqjax_experiments.data.progress import tracked
from eqjax_experiments.data.splits import counted

GRAY, COLOR = (
    ("1", "L", "LA", "La"),
    ("P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr"),
)
DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")  # more than 8 bits, all gray
WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
DEEPEST = 65_535  # of 16 bits
UNREADABLE = (OSError, SyntaxError, Image.DecompressionBombError)
SHOWN = 20  # broken files that an error names


class Kind(NamedTuple):
    """What the images of a data set have in common, so that one array holds them.

    Attributes:
      color: three channels; one if no image has colours.
      alpha: a channel more for the transparency, if an image has any. Colours are
        multiplied by it, and it is 1 where an image has none.
      deep: float32 in [0, 1] in place of bytes, if an image has more than 8 bits.
    """

    color: bool = False
    alpha: bool = False
    deep: bool = False

    @property
    def channels(self) -> int:
        """Of an image."""
        return (3 if self.color else 1) + self.alpha

    @property
    def dtype(self) -> type[np.generic]:
        """Of the pixels."""
        return np.float32 if self.deep else np.uint8

    def __or__(self, other: Kind) -> Kind:
        return Kind(*(a or b for a, b in zip(self, other, strict=True)))

    def __str__(self) -> str:
        words = ["in colour" if self.color else "gray"]
        if self.alpha:
            words.append("their transparency as a channel of its own")
        if self.deep:
            words.append("16 bits scaled to [0, 1]")
        return ", ".join(words)


def square(image: Image.Image, size: int) -> Image.Image:
    """Return the centre square of an image, scaled to size x size pixels.

    Each pixel is a mean over its surroundings, weighted alike on all sides, so that
    rotating and reflecting before or after comes to the same (up to rounding, and half
    a pixel where the longer side leaves an odd number of pixels over).
    """
    side = min(image.size)
    left, top = ((n - side) // 2 for n in image.size)
    cut = image.crop((left, top, left + side, top + side))
    if side == size:
        return cut
    return cut.resize((size, size), Image.Resampling.BILINEAR)


class Header(NamedTuple):
    """What the header of an image says.

    Attributes:
      kind: of its pixels.
      width: in pixels.
      height: in pixels.
    """

    kind: Kind
    width: int
    height: int


def header_of(file: Path) -> Header:
    """Return what the header of an image says.

    Raises:
      ValueError: it is not an image that can be read.
    """
    try:
        with Image.open(file) as opened:
            mode, frames = opened.mode, getattr(opened, "n_frames", 1)
            alpha = mode in WITH_ALPHA or "transparency" in opened.info
            width, height = opened.size
    except UnidentifiedImageError:
        raise ValueError(f"{file}: it is no image of a known format") from None
    except UNREADABLE as error:
        raise ValueError(f"{file}: {error}") from None
    if frames > 1:
        raise ValueError(f"{file}: expected one image, found {frames}; save one a file")
    if mode not in GRAY + COLOR + DEEP:
        raise ValueError(f"{file}: images of mode {mode} are not known")
    return Header(Kind(mode in COLOR, alpha, mode in DEEP), width, height)


def decode(file: Path, kind: Kind, size: int) -> np.ndarray:
    """Return an image file as (size, size, channels), as it is meant to be seen.

    Args:
      file: of any format that Pillow reads.
      kind: of the array.
      size: pixels per side.

    Raises:
      ValueError: it is not a whole image.
    """
    header_of(file)  # raises where it cannot be read
    try:
        with Image.open(file) as opened:
            seen = ImageOps.exif_transpose(opened)
            if seen.mode in DEEP:
                return _deep(file, seen, kind, size)
            whole = seen.convert("RGB" if kind.color else "L")
            if (
                kind.alpha
            ):  # colours times alpha: what is not seen does not shine through
                whole = seen.convert("RGBA" if kind.color else "LA")
                whole = whole.convert("RGBa" if kind.color else "La")
    except UNREADABLE as error:
        raise ValueError(f"{file}: {error}") from None
    scaled = square(whole, size)
    pixels = np.frombuffer(scaled.tobytes(), np.uint8).reshape(size, size, -1)
    return pixels / np.float32(255) if kind.deep else pixels


def _deep(file: Path, image: Image.Image, kind: Kind, size: int) -> np.ndarray:
    """Return a gray image of more than 8 bits as float32."""
    values = np.asarray(image).astype(np.float32)
    scale = 1 if image.mode == "F" else DEEPEST
    if not (values.min() >= 0 and values.max() <= scale):
        raise ValueError(
            f"{file}: expected values from 0 to {scale:,}, found {values.min():g} to "
            f"{values.max():g}; scale them"
        )
    gray = np.asarray(square(Image.fromarray(values / np.float32(scale)), size))
    channels = [gray] * (3 if kind.color else 1) + [np.ones_like(gray)] * kind.alpha
    return np.stack(channels, -1)


def headers_of(files: Sequence[Path]) -> list[Header]:
    """Return what the headers of images say.

    Raises:
      ValueError: some images cannot be read; the message names all of them, also those
        whose header is whole.
    """
    found = []
    for file in tracked(files, "looking at images"):
        try:
            found.append(header_of(file))
        except ValueError:
            for _ in decode_all(files, Kind(color=True), 1):
                pass  # raises at the end
    return found


def decode_all(files: Sequence[Path], kind: Kind, size: int) -> Iterator[np.ndarray]:
    """Yield every image, and raise at the end if some were broken, with their names.

    Raises:
      ValueError: as said.
    """
    broken = []
    for file in files:
        try:
            yield decode(file, kind, size)
        except ValueError as error:
            broken.append(str(error))
            yield np.zeros((size, size, kind.channels), kind.dtype)
    complain(broken)


def complain(broken: Sequence[str]) -> None:
    """Raise ValueError for images that could not be read."""
    if broken:
        more = f"; and {len(broken) - SHOWN} more" if broken[SHOWN:] else ""
        number = counted(len(broken), "image", "images")
        raise ValueError(
            f"{number} cannot be read; replace them or take them out: "
            f"{'; '.join(broken[:SHOWN])}{more}"
        )
