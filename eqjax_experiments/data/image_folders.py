"""Any folder of images with a subfolder per class."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from eqjax_experiments.data.cache import Contents, contents_checksum, list_contents
from eqjax_experiments.data.decoding import Header, decode_all, headers_of
from eqjax_experiments.data.splits import counted, given_parts, stratified_parts

PARTS = (("train",), ("validation", "val", "valid"), ("test",))
SHOWN = 5  # files and folders that an error names


@dataclasses.dataclass(frozen=True)
class Folder:
    """Any folder of images with a subfolder per class.

    Images may lie deeper in the folder of their class. A tenth of every class is for
    the test, a tenth of the rest for validation. Subfolders `train`, `validation` (or
    `val`, `valid`) and `test`, with a subfolder per class each, are taken as they are;
    a tenth of `train` is for validation where there is none.

    Attributes:
      folder: of the subfolders.
      size: pixels per side that the centre square of every image is scaled to.
      seed: of the split.
    """

    folder: Path
    size: int = 64
    seed: int = 0

    def listing(self) -> dict[str, str]:
        """Return the checksum of every image, by its path in the folder."""
        files = [file for part in self._parts() for file, _ in self._images(part)]
        return list_contents(files, self.folder)

    def checksum(self) -> str:
        """Return a checksum of the names and contents of all images."""
        return contents_checksum(self.listing())

    def read(self) -> Contents:
        """Return all images, gray if all of them are.

        Raises:
          ValueError: an image is damaged or lies beside the folders of classes, or a
            part lacks a class or has one more.
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
        self._check_strays(parts)
        files = [file for part in found for file, _ in part]
        labels = np.array([classes.index(name) for part in found for _, name in part])
        headers = headers_of(files)
        kind = functools.reduce(operator.or_, (header.kind for header in headers))
        return Contents(
            images=decode_all(files, kind, self.size),
            labels=labels,
            parts=self._split(labels, [len(part) for part in found], classes),
            shape=(self.size, self.size, kind.channels),
            dtype=kind.dtype,
            classes=len(classes),
            names=tuple(classes),
            remark="; ".join([str(kind), *self._made_of(headers)]),
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
        return [
            (file, folder.name)
            for folder in _folders(part)
            for file in images_below(folder)
        ]

    def _check_strays(self, parts: list[Path]) -> None:
        """Raise ValueError for what would be passed over."""
        around = [self.folder] if self.folder not in parts else []
        beside = [f for p in (*parts, *around) for f in sorted(p.iterdir())]
        strays = [file for file in beside if file.is_file() and _is_image(file)]
        if strays:
            raise ValueError(
                f"{counted(len(strays), 'image lies', 'images lie')} beside the "
                f"folders of classes, {_few(strays)}; move them into one, or out of "
                f"{self.folder}"
            )
        empty = [f for p in parts for f in _folders(p) if not any(images_below(f))]
        others = [f for p in around for f in _folders(p) if f not in parts]
        for folders, what in (
            (empty, "without images"),
            ([f for f in others if any(images_below(f))], "beside train and test"),
        ):
            if folders:
                raise ValueError(
                    f"{counted(len(folders), 'folder', 'folders')} {what}, "
                    f"{_few(folders)}; take them out of {self.folder}"
                )

    def _made_of(self, headers: Sequence[Header]) -> Iterator[str]:
        """Yield what becomes of images of their sizes, and of other files."""
        sizes = sorted({(min(h.width, h.height), h.width, h.height) for h in headers})
        shown = [f"{width} x {height}" for _, width, height in sizes]
        extremes = " to ".join(dict.fromkeys((shown[0], shown[-1])))
        cut = any(width != height for _, width, height in sizes)
        scaled = any(side != self.size for side, *_ in sizes)
        steps = ["cut square"] * cut + [f"scaled to {self.size} x {self.size}"] * scaled
        yield ", ".join([f"{extremes} pixels", *filter(None, [" and ".join(steps)])])
        below = [f for part in self._parts() for f in part.rglob("*") if f.is_file()]
        others = sorted(f for f in below if not (_is_image(f) or _hidden(f)))
        if others:
            passed = counted(len(others), "other file", "other files")
            yield f"{passed} passed over, {_few(others)}"

    def _split(
        self, labels: np.ndarray, counts: list[int], names: list[str]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = np.random.default_rng(self.seed)
        if len(counts) == 1:
            return stratified_parts(labels, (0.1, 0.1), rng, names)
        return given_parts(counts, rng, labels, names)


def _folders(folder: Path) -> list[Path]:
    """Return the folders in a folder, without hidden ones and those of archivers."""
    return [f for f in sorted(folder.iterdir()) if f.is_dir() and not _hidden(f)]


def images_below(folder: Path) -> Iterator[Path]:
    """Yield the images in a folder, and in those inside of it, in order."""
    for file in sorted(folder.rglob("*")):
        inner = file.relative_to(folder)
        hidden = any(_hidden(Path(name)) for name in inner.parts)
        if file.is_file() and _is_image(file) and not hidden:
            yield file


def _is_image(file: Path) -> bool:
    known = Image.registered_extensions()
    return file.suffix.lower() in known and not _hidden(file)


def _hidden(path: Path) -> bool:
    return path.name.startswith((".", "__MACOSX"))


def _few(paths: list[Path]) -> str:
    more = f" and {len(paths) - SHOWN} more" if paths[SHOWN:] else ""
    return ", ".join(str(path) for path in paths[:SHOWN]) + more


def source(name: str, folder: Path, size: int | None = None) -> Folder:
    """Return the images of a folder."""
    del name
    return Folder(folder) if size is None else Folder(folder, size)
