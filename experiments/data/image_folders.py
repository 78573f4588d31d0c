"""Any folder of images with a subfolder per class."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

from experiments.data.cache import Contents, listing_checksum
from experiments.data.decoding import all_gray, decode_all
from experiments.data.splits import given_parts, random_parts

PARTS = (("train",), ("validation", "val", "valid"), ("test",))


@dataclasses.dataclass(frozen=True)
class Folder:
    """Any folder of images with a subfolder per class.

    A tenth is for the test, a tenth of the rest for validation. Subfolders `train`,
    `validation` (or `val`, `valid`) and `test`, with a subfolder per class each, are
    taken as they are; a tenth of `train` is for validation where there is none.

    Attributes:
      folder: of the subfolders.
      size: pixels per side that the centre square of every image is scaled to.
      seed: of the split.
    """

    folder: Path
    size: int = 64
    seed: int = 0

    def checksum(self) -> str:
        """Return a checksum of the names, sizes and times of all images."""
        files = [file for part in self._parts() for file, _ in self._images(part)]
        return listing_checksum(files, self.folder)

    def read(self) -> Contents:
        """Return all images, gray if all of them are.

        Raises:
          ValueError: an image is damaged, or a part lacks a class or has one more.
        """
        parts = self._parts()
        found = [self._images(part) for part in parts]
        classes = sorted({name for part in found for _, name in part})
        for folder, part in zip(parts, found, strict=True):
            absent = set(classes) - {name for _, name in part}
            if absent:
                raise ValueError(
                    f"{folder} holds no images of {', '.join(sorted(absent))}"
                )
        if len(classes) < 2:
            raise ValueError(
                f"{self.folder} needs at least two subfolders, one per class; found "
                f"{', '.join(classes) or 'none'} with images"
            )
        files = [file for part in found for file, _ in part]
        mode = "L" if all_gray(files) else "RGB"
        return Contents(
            images=decode_all(files, mode, self.size),
            labels=np.array(
                [classes.index(name) for part in found for _, name in part]
            ),
            parts=self._split([len(part) for part in found]),
            shape=(self.size, self.size, len(mode)),
            dtype=np.uint8,
            classes=len(classes),
        )

    def _parts(self) -> list[Path]:
        """Return the folders of the parts, or this folder alone if it has none."""
        if not self.folder.is_dir():
            raise FileNotFoundError(f"there is no folder {self.folder}")
        named = [
            [self.folder / name for name in names if (self.folder / name).is_dir()]
            for names in PARTS
        ]
        train, validation, test = named
        if train and validation and not test:
            raise FileNotFoundError(f"there is no folder {self.folder / 'test'}")
        if not (train and test):
            return [self.folder]
        return [folders[0] for folders in named if folders]

    def _images(self, part: Path) -> list[tuple[Path, str]]:
        """Return all images of a part with the name of their class, in order."""
        known = Image.registered_extensions()
        return [
            (file, folder.name)
            for folder in sorted(part.iterdir())
            if folder.is_dir() and not folder.name.startswith(".")
            for file in sorted(folder.iterdir())
            if file.suffix.lower() in known and not file.name.startswith(".")
        ]

    def _split(self, counts: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = np.random.default_rng(self.seed)
        if len(counts) == 1:
            return random_parts(counts[0], (0.1, 0.1), rng)
        return given_parts(counts, rng)


def source(name: str, folder: Path, size: int | None = None) -> Folder:
    """Return the images of a folder."""
    del name
    return Folder(folder) if size is None else Folder(folder, size)
