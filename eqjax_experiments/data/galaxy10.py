"""Galaxy10 DECaLS (Leung and Bovy): 17,736 colour images of galaxies in ten classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from eqjax_experiments.data.cache import Contents, file_checksum
from eqjax_experiments.data.decoding import square
from eqjax_experiments.data.splits import random_parts

FILE = "Galaxy10_DECals.h5"
HOLDS = {"galaxy10": FILE}
COUNTS: tuple[int, ...] = (1081, 1853, 2645, 2027, 334, 2043, 1829, 2628, 1423, 1873)
SIDE, OLDER_SIDE = 256, 69
NORMALIZATION = ([0.1673, 0.1626, 0.1588], [0.1202, 0.1123, 0.1052])
READ_AT_ONCE = 64  # images


@dataclasses.dataclass(frozen=True)
class Galaxy10:
    """Galaxy10 DECaLS: a tenth for the test, a tenth of the rest for validation.

    Attributes:
      file: `Galaxy10_DECals.h5`.
      size: pixels per side that the 256 are reduced to.
      seed: of the split.
    """

    file: Path
    size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the size."""
        if not 1 <= self.size <= SIDE:
            raise ValueError(f"--image-size must be 1 to {SIDE}, got {self.size}")

    def checksum(self) -> str:
        """Return the checksum of the file."""
        return file_checksum(self.file)

    def read(self) -> Contents:
        """Return all galaxies.

        Raises:
          ValueError: the file is damaged, or another data set.
        """
        try:
            with h5py.File(self.file) as opened:
                self._check(opened)
                labels = opened["ans"][:].astype(np.int64)
        except OSError as error:
            raise ValueError(
                f"{self.file} is not a readable HDF5 file: {error}"
            ) from None
        counts = tuple(np.bincount(labels, minlength=len(COUNTS)).tolist())
        if counts != COUNTS:
            raise ValueError(
                f"{self.file} should hold {COUNTS} galaxies of the classes, found "
                f"{counts}"
            )
        rng = np.random.default_rng(self.seed)
        return Contents(
            images=self._images(),
            labels=labels,
            parts=random_parts(len(labels), (0.1, 0.1), rng),
            shape=(self.size, self.size, 3),
            dtype=np.uint8,
            classes=len(COUNTS),
            normalization=NORMALIZATION,
        )

    def _check(self, opened: h5py.File) -> None:
        missing = {"images", "ans"} - set(opened)
        if missing:
            raise ValueError(
                f"{self.file} should hold `images` and `ans`, found "
                f"{', '.join(opened) or 'nothing'}"
            )
        images = opened["images"]
        if images.shape[1:] == (OLDER_SIDE, OLDER_SIDE, 3):
            raise ValueError(
                f"{self.file} is the older Galaxy10 of SDSS, with images of "
                f"{OLDER_SIDE} x {OLDER_SIDE}; expected Galaxy10 DECaLS, {FILE}, of "
                f"{SIDE} x {SIDE}"
            )
        expected = (sum(COUNTS), SIDE, SIDE, 3)
        if images.shape != expected or images.dtype != np.uint8:
            raise ValueError(
                f"{self.file}: images should be uint8 {expected}, found "
                f"{images.dtype} {images.shape}"
            )
        if opened["ans"].shape != expected[:1]:
            raise ValueError(
                f"{self.file}: ans should be {expected[:1]}, found "
                f"{opened['ans'].shape}"
            )

    def _images(self) -> Iterator[np.ndarray]:
        with h5py.File(self.file) as opened:
            images = opened["images"]
            for begin in range(0, len(images), READ_AT_ONCE):
                try:
                    block = images[begin : begin + READ_AT_ONCE]
                except OSError as error:
                    raise ValueError(
                        f"{self.file}: images from {begin} on cannot be read: {error}"
                    ) from None
                for image in block:
                    yield np.asarray(square(Image.fromarray(image), self.size))


def source(name: str, folder: Path, size: int | None = None) -> Galaxy10:
    """Return Galaxy10 in a folder."""
    del name
    file = folder / FILE
    return Galaxy10(file) if size is None else Galaxy10(file, size)
