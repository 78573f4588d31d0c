"""Image files: decoding, cutting square, scaling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from rich.progress import track

GRAY, COLOR = ("1", "L", "LA"), ("P", "RGB", "RGBA", "CMYK", "YCbCr")
UNREADABLE = (OSError, SyntaxError, Image.DecompressionBombError)
SHOWN = 5  # broken files that an error names


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


def decode(file: Path, mode: str, size: int) -> np.ndarray:
    """Return an image file as uint8 (size, size, channels), as it is meant to be seen.

    Args:
      file: of any 8-bit format that Pillow reads.
      mode: "L" for gray, "RGB" for three channels.
      size: pixels per side.

    Raises:
      ValueError: it is not a whole image.
    """
    try:
        with Image.open(file) as opened:
            check_mode(file, opened.mode)
            seen = ImageOps.exif_transpose(opened).convert(mode)
    except UNREADABLE as error:
        raise ValueError(f"{file}: {error}") from None
    return np.asarray(square(seen, size)).reshape(size, size, -1)


def check_mode(file: Path, mode: str) -> None:
    """Raise ValueError unless an image of this mode has 8 bits or fewer per channel."""
    if mode not in GRAY + COLOR:
        raise ValueError(
            f"{file}: expected 8 bits per channel, found an image of mode {mode}"
        )


def all_gray(files: Sequence[Path]) -> bool:
    """Return whether no image has colours; reads the headers alone."""
    gray = True
    broken = []
    for file in track(files, "looking at images", transient=True):
        try:
            with Image.open(file) as opened:
                check_mode(file, opened.mode)
                gray &= opened.mode in GRAY
        except (ValueError, *UNREADABLE) as error:
            broken.append(str(error))
    complain(broken)
    return gray


def decode_all(files: Sequence[Path], mode: str, size: int) -> Iterator[np.ndarray]:
    """Yield every image, and raise at the end if some were broken, with their names.

    Raises:
      ValueError: as said.
    """
    broken = []
    for file in files:
        try:
            yield decode(file, mode, size)
        except ValueError as error:
            broken.append(str(error))
            yield np.zeros((size, size, len(mode)), np.uint8)
    complain(broken)


def complain(broken: Sequence[str]) -> None:
    """Raise ValueError for images that could not be read."""
    if broken:
        more = f"; and {len(broken) - SHOWN} more" if broken[SHOWN:] else ""
        raise ValueError(
            f"{len(broken)} images cannot be read; replace them or take them out: "
            + "; ".join(broken[:SHOWN])
            + more
        )
