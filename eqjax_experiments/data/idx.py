"""MNIST and Fashion-MNIST from IDX files, raw or compressed."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import math
import zlib
from pathlib import Path
from typing import ClassVar

import numpy as np

from eqjax_experiments.data.cache import Contents, fixed_size
from eqjax_experiments.data.splits import random_parts

HOLDS = {
    "mnist": "the four IDX files of MNIST, raw or .gz; `make mnist` fetches them",
    "fashion": "the four IDX files of Fashion-MNIST, raw or .gz",
}

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
MNIST = (  # MD5 of the uncompressed files
    "6bbc9ace898e44ae57da46a324031adb",
    "a25bea736e30d166cdddb491f175f624",
    "2646ac647ad5339dbf082846283269ea",
    "27ae3e4e09519cfbb04c329615203637",
)
FASHION = (
    "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "9018921c3c673c538a1fc5bad174d6f9",
    "8181f5470baa50b63fa0f6fddb340f0a",
    "15d484375f8d13e6eb1aabb0c3f46965",
)
UNSIGNED_BYTE = 8  # IDX code of the type


def find(folder: Path, name: str) -> Path:
    """Return the file of this name, raw, compressed, or with a dot before "idx"."""
    names = [name, f"{name}.gz", name.replace("-idx", ".idx")]
    for candidate in names:
        if (folder / candidate).is_file():
            return folder / candidate
    raise FileNotFoundError(f"{folder} holds none of {', '.join(names)}")


def read_bytes(file: Path) -> bytes:
    """Return the content of a file, uncompressed if its name ends in .gz.

    Raises:
      ValueError: it ends too soon, or is not a gzip file.
    """
    if file.suffix != ".gz":
        return file.read_bytes()
    try:
        return gzip.decompress(file.read_bytes())
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{file} is not a whole gzip file: {error}") from None


def parse(content: bytes, file: Path) -> np.ndarray:
    """Return the array in the content of an IDX file.

    Args:
      content: of the file, uncompressed.
      file: to name in errors.

    Raises:
      ValueError: it is not an IDX file of bytes, or its length does not fit its shape.
    """
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != UNSIGNED_BYTE:
        raise ValueError(
            f"{file} is not an IDX file of bytes: expected it to begin with 00 00 08, "
            f"found {content[:3].hex(' ') or 'nothing'}"
        )
    begin = 4 + 4 * content[3]
    if len(content) < begin:
        raise ValueError(
            f"{file} should begin with a header of {begin} bytes, found {len(content)}"
        )
    shape = tuple(int(n) for n in np.frombuffer(content[4:begin], ">u4"))
    expected, found = math.prod(shape), len(content) - begin
    if expected != found:
        raise ValueError(
            f"{file} should hold {' x '.join(map(str, shape))} = {expected} bytes "
            f"after its header, found {found}"
        )
    return np.frombuffer(content, np.uint8, offset=begin).reshape(shape)


def read_all(folder: Path, checksums: tuple[str, ...] | None):
    """Return the 70,000 images and labels of both parts, and where the test begins.

    Args:
      folder: of the four files.
      checksums: MD5 of the uncompressed files; None takes any files.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file is damaged, or another one than expected.
    """
    arrays = []
    for i, name in enumerate(FILES):
        file = find(folder, name)
        content = read_bytes(file)
        array = parse(content, file)
        found = hashlib.md5(content).hexdigest()
        if checksums is not None and found != checksums[i]:
            raise ValueError(
                f"{file} is not the published {name}: expected MD5 {checksums[i]} of "
                f"the uncompressed file, found {found}"
            )
        arrays.append(array)
    train, train_labels, test, test_labels = arrays
    images = np.concatenate([train, test])
    labels = np.concatenate([train_labels, test_labels])
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{folder} holds images {images.shape} and labels {labels.shape}; expected "
            "(n, height, width) and (n,)"
        )
    return images, labels, len(train)


@dataclasses.dataclass(frozen=True)
class MnistLike:
    """MNIST (LeCun and Cortes) or Fashion-MNIST (Xiao et al. 2017).

    Attributes:
      folder: of the four files.
      kind: which of both; its checksums are verified.
      seed: of the split; a tenth of the 60,000 training images is for validation.
    """

    folder: Path
    kind: str = "mnist"
    seed: int = 0
    CHECKSUMS: ClassVar = {"mnist": MNIST, "fashion": FASHION}
    NORMALIZATION: ClassVar = {"mnist": ([0.1307], [0.3081]), "fashion": None}

    def checksum(self) -> str:
        """Return the checksums that the files are known to have."""
        for name in FILES:
            find(self.folder, name)
        return " ".join(self.CHECKSUMS[self.kind])

    def read(self) -> Contents:
        """Return all images, the official test images for the test."""
        images, labels, train = read_all(self.folder, self.CHECKSUMS[self.kind])
        rng = np.random.default_rng(self.seed)
        own, validation, _ = random_parts(train, (0.0, 0.1), rng)
        return Contents(
            images=iter(images[..., None]),
            labels=labels,
            parts=(own, validation, np.arange(train, len(labels))),
            shape=(*images.shape[1:], 1),
            dtype=np.uint8,
            classes=10,
            normalization=self.NORMALIZATION[self.kind],
        )


def source(name: str, folder: Path, size: int | None = None) -> MnistLike:
    """Return MNIST or Fashion-MNIST in a folder."""
    fixed_size(name, size)
    return MnistLike(folder, name)
