"""RotMNIST (Larochelle et al. 2007): the published files, copies, or one of our own."""

from __future__ import annotations

import dataclasses
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, ClassVar

import numpy as np
from scipy import ndimage

from eqjax_experiments.data import archives, idx
from eqjax_experiments.data.cache import Contents, Source, file_checksum, fixed_size
from eqjax_experiments.data.progress import tracked
from eqjax_experiments.data.splits import random_parts, unit

HOLDS = {
    "rotmnist": "the .amat files of RotMNIST, their .zip, or copies as .npz; without "
    "them it is made from mnist, which `make mnist` fetches",
}

NORMALIZATION = ([0.12996], [0.29698])
TRAIN, TEST = 12_000, 50_000
PIXELS = 28 * 28
PARTS = {  # the published files and their rows
    "mnist_all_rotation_normalized_float_train_valid.amat": TRAIN,
    "mnist_all_rotation_normalized_float_test.amat": TEST,
}
ARCHIVE = "mnist_rotation_new.zip"
ARCHIVE_SHA1 = "e67f72fa42029f62fd8eb92b0638c1b9761c9a63"
FAULTY = "mnist_rotation.zip"  # the first release
ROWS_AT_ONCE = 1_000


def _contents(images: np.ndarray | Iterator[np.ndarray], labels, seed: int) -> Contents:
    """Return 12,000 digits, a tenth of them for validation, and 50,000 for the test."""
    rng = np.random.default_rng(seed)
    train, validation, _ = random_parts(TRAIN, (0.0, 0.1), rng)
    return Contents(
        images=iter(images),
        labels=labels,
        parts=(train, validation, np.arange(TRAIN, TRAIN + TEST)),
        shape=(28, 28, 1),
        dtype=np.float32,
        classes=10,
        normalization=NORMALIZATION,
    )


@dataclasses.dataclass(frozen=True)
class RotMnistText:
    """The published .amat files, or the archive `mnist_rotation_new.zip` of them.

    Attributes:
      folder: of the files.
      seed: of the split.
    """

    folder: Path
    seed: int = 0

    def files(self) -> list[Path]:
        """Return both text files, or the archive.

        Raises:
          FileNotFoundError: neither is there.
        """
        texts = [self.folder / name for name in PARTS]
        if all(file.is_file() for file in texts):
            return texts
        if (self.folder / ARCHIVE).is_file():
            return [self.folder / ARCHIVE]
        faulty = (self.folder / FAULTY).is_file()
        raise FileNotFoundError(
            f"{self.folder} holds neither {' and '.join(PARTS)} nor {ARCHIVE}"
            + faulty * f"; {FAULTY} is the first release, which is faulty"
        )

    def checksum(self) -> str:
        """Return the checksums of the files."""
        return " ".join(file_checksum(file) for file in self.files())

    def read(self) -> Contents:
        """Return all digits; the text takes a while to parse."""
        files = self.files()
        if files[0].name == ARCHIVE:
            return self._contents(self._unzipped(files[0]))
        texts = zip(files, PARTS.values(), strict=True)
        return self._contents(
            _parse(file.open("rb"), file.name, rows) for file, rows in texts
        )

    def _contents(self, parts: Iterator[tuple[np.ndarray, np.ndarray]]) -> Contents:
        images, labels = (np.concatenate(a) for a in zip(*parts, strict=True))
        return _contents(images, labels, self.seed)

    @staticmethod
    def _unzipped(archive: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        found = file_checksum(archive, "sha1")
        if found != ARCHIVE_SHA1:
            raise ValueError(
                f"{archive} is not the published archive: expected SHA-1 "
                f"{ARCHIVE_SHA1}, found {found}"
            )
        with zipfile.ZipFile(archive) as opened:
            for name, rows in PARTS.items():
                yield _parse(opened.open(name), name, rows)


def _parse(text: IO[bytes], name: str, rows: int):
    """Return images and labels of rows of 784 floats in [0, 1], the label behind them.

    Raises:
      ValueError: a row is something else, or there are not as many as expected.
    """
    images = np.empty((rows, 28, 28, 1), np.float32)
    labels = np.empty(rows, np.int32)
    with text:
        for begin in tracked(range(0, rows, ROWS_AT_ONCE), f"parsing {name}"):
            part = slice(begin, begin + ROWS_AT_ONCE)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # no rows: see below
                    block = np.loadtxt(text, np.float32, max_rows=ROWS_AT_ONCE, ndmin=2)
            except ValueError as error:
                raise ValueError(f"{name}, after row {begin}: {error}") from None
            expected = (len(labels[part]), PIXELS + 1)
            if block.shape != expected:
                raise ValueError(
                    f"{name} should have {rows} rows of {PIXELS + 1} numbers; after "
                    f"row {begin} expected {expected[0]} x {expected[1]}, found "
                    f"{block.shape[0]} x {block.shape[1]}"
                )
            pixels, classes = block[:, :PIXELS], block[:, PIXELS]
            if not (pixels.min() >= 0 and pixels.max() <= 1):
                raise ValueError(
                    f"{name}, after row {begin}: pixels should be in [0, 1], found "
                    f"{pixels.min()} to {pixels.max()}"
                )
            if not np.isin(classes, range(10)).all():
                raise ValueError(
                    f"{name}, after row {begin}: the last column should be a digit, "
                    f"found {classes[~np.isin(classes, range(10))][0]}"
                )
            images[part] = pixels.reshape(-1, 28, 28, 1)
            labels[part] = classes
        if text.readline().strip():
            raise ValueError(f"{name} should have {rows} rows, found more")
    return images, labels


@dataclasses.dataclass(frozen=True)
class RotMnistArchives:
    """Copies as .npz, one whose name holds "train", and one "test".

    A third with "valid" is taken as more training digits.

    Attributes:
      folder: of the files.
      seed: of the split.
    """

    folder: Path
    seed: int = 0

    def files(self) -> list[Path]:
        """Return the training file, the test file last.

        Raises:
          FileNotFoundError: they are not there.
        """
        found = sorted(self.folder.glob("*.npz"))
        tests = [file for file in found if "test" in file.name]
        others = [f for f in found if "train" in f.name or "valid" in f.name]
        if len(tests) != 1 or not others:
            names = ", ".join(file.name for file in found) or "none"
            raise FileNotFoundError(
                f"{self.folder} needs a .npz file with 'train' in its name, and one "
                f"with 'test'; found {names}"
            )
        return [*(f for f in others if f not in tests), *tests]

    def checksum(self) -> str:
        """Return the checksums of the files."""
        return " ".join(file_checksum(file) for file in self.files())

    def read(self) -> Contents:
        """Return all digits."""
        images, labels = [], []
        for file in self.files():
            own_images, own_labels = archives.read_pair(file, (28, 28, 1))
            images.append(own_images)
            labels.append(own_labels)
        counts = sum(map(len, labels[:-1])), len(labels[-1])
        if counts != (TRAIN, TEST):
            raise ValueError(
                f"{self.folder} should hold {TRAIN} digits to train on and {TEST} for "
                f"the test, found {counts[0]} and {counts[1]}"
            )
        if len({array.dtype for array in images}) > 1:
            raise ValueError(f"{self.folder}: files with pixels of different types")
        pixels = unit(archives.scaled(self.folder, np.concatenate(images)))
        return _contents(pixels, np.concatenate(labels), self.seed)


@dataclasses.dataclass(frozen=True)
class RotMnistMade:
    """Made from MNIST by the protocol of Larochelle et al., not the same digits.

    All 70,000 digits are shuffled, each is rotated about its centre by an angle uniform
    in [0, 2 pi) with bilinear interpolation, and the first 62,000 are kept.

    Attributes:
      folder: of the IDX files of MNIST.
      seed: of the shuffle, the angles and the split.
    """

    folder: Path
    seed: int = 0
    INTERPOLATION: ClassVar = 1  # order of the spline

    def checksum(self) -> str:
        """Return the checksums that MNIST's files are known to have."""
        return idx.MnistLike(self.folder).checksum()

    def read(self) -> Contents:
        """Return all digits."""
        images, labels, _ = idx.read_all(self.folder, idx.MNIST)
        rng = np.random.default_rng(self.seed)
        order = rng.permutation(len(labels))[: TRAIN + TEST]
        angles = rng.uniform(0, 360, len(order))
        rotated = (
            ndimage.rotate(
                images[i].astype(np.float32) / 255,
                angle,
                reshape=False,
                order=self.INTERPOLATION,
            )[..., None]
            for i, angle in zip(order, angles, strict=True)
        )
        return _contents(rotated, labels[order], self.seed)


def source(name: str, folder: Path, size: int | None = None) -> Source:
    """Return copies as .npz, else the published files, else one made from MNIST."""
    fixed_size(name, size)
    if any(folder.glob("*.npz")):
        return RotMnistArchives(folder)
    if any(folder.glob("*.amat")) or any(folder.glob("*.zip")):
        return RotMnistText(folder)
    return RotMnistMade(folder.with_name("mnist"))
