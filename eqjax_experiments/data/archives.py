"""Images and labels in .npz files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from eqjax_experiments.data.cache import Contents, file_checksum, fixed_size
from eqjax_experiments.data.npz import read_arrays
from eqjax_experiments.data.splits import given_parts, stratified_parts, unit

PAIRS = (("images", "labels"), ("data", "labels"), ("x", "y"), ("X", "y"))
PARTS = (  # names of the arrays of the training, validation and test part
    (
        ("train_images", "train_labels"),
        ("val_images", "val_labels"),
        ("test_images", "test_labels"),
    ),
    (("x_train", "y_train"), ("x_val", "y_val"), ("x_test", "y_test")),
)


def _checked(
    file: Path,
    arrays: dict[str, np.ndarray],
    names: tuple[str, str],
    shape: tuple[int, int, int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return images (n, *space, channels) and labels (n,).

    The last axis holds channels if it has at most four; else there is one channel, so
    that (n, 28, 28, 28) are volumes, as in MedMNIST.

    Args:
      file: to name in errors.
      arrays: of the file.
      names: of the images, without a channel axis if gray, or flat where the shape is
        known; and of the labels, (n,) or (n, 1), whole numbers.
      shape: of an image, where it is known.
    """
    images, labels = (arrays[name] for name in names)
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    whole = labels.astype(np.int64) if labels.dtype.kind in "iuf" else None
    if (
        labels.ndim != 1
        or not labels.size
        or whole is None
        or (whole != labels).any()
        or whole.min() < 0
    ):
        least = (
            f", the least {labels.min()}" if whole is not None and labels.size else ""
        )
        raise ValueError(
            f"{file}: labels should be (n,) class numbers from 0, found "
            f"{labels.dtype} {labels.shape}{least}"
        )
    if shape is not None and images.ndim > 1 and images[0].size == np.prod(shape):
        images = images.reshape(len(images), *shape)
    found = images.shape
    channels_first = images.ndim > 3 and images.shape[1] <= 4 < min(images.shape[2:])
    if images.ndim > 1 and images.shape[-1] > 4:
        images = images[..., None]
    if channels_first or images.ndim not in (3, 4, 5) or len(images) != len(whole):
        raise ValueError(
            f"{file}: images should be (n, height, width) or (n, height, width, "
            f"channels) for n = {len(whole)} labels, with at most 4 channels in the "
            f"last axis, volumes with one axis more or sequences with one less, found "
            f"{found}"
        )
    return images, whole


def scaled(place: Path, images: np.ndarray) -> np.ndarray:
    """Return all images of a data set as uint8, or as float32 in [0, 1].

    Args:
      place: to name in errors.
      images: uint8, or numbers in [0, 1] or [0, 255].

    Raises:
      ValueError: it is not clear which.
    """
    if images.dtype == np.uint8:
        return images
    images = unit(images)
    least, largest = images.min(), images.max()
    if not (least >= 0 and (largest <= 1 or 2 <= largest <= 255)):
        raise ValueError(
            f"{place}: pixels should be in [0, 1] or [0, 255], found {least} to "
            f"{largest}"
        )
    return images / 255 if largest > 1 else images


def read_pair(
    file: Path, shape: tuple[int, int, int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the images, as they are, and labels of a file of one array of each.

    Args:
      file: with arrays `images` or `data` or `x`, and `labels` or `y`.
      shape: of an image, where it is known; images may then be flat.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is damaged, or holds something else.
    """
    arrays = read_arrays(file)
    for names in PAIRS:
        if all(name in arrays for name in names):
            return _checked(file, arrays, names, shape)
    raise ValueError(
        f"{file} should hold arrays {' or '.join(map(str, PAIRS))}, found "
        f"{', '.join(arrays) or 'none'}"
    )


@dataclasses.dataclass(frozen=True)
class Archive:
    """Any .npz file of images, volumes or sequences, and labels.

    Either one array of each (`images`, `labels`), split at random, a tenth for the test
    and a tenth of the rest for validation; or with parts of their own (`train_images`,
    ..., `test_labels` or `x_train`, ..., `y_test`), where those for validation may be
    missing and are then a tenth of the training images.

    Attributes:
      file: the archive.
      seed: of the split.
    """

    file: Path
    seed: int = 0

    def checksum(self) -> str:
        """Return the checksum of the file."""
        if not self.file.is_file():
            raise FileNotFoundError(f"there is no file {self.file}")
        return file_checksum(self.file)

    def read(self) -> Contents:
        """Return all images."""
        arrays = read_arrays(self.file)
        rng = np.random.default_rng(self.seed)
        for train, validation, test in PARTS:
            if all(name in arrays for name in (*train, *test)):
                names = [p for p in (train, validation, test) if set(p) <= set(arrays)]
                pairs = [_checked(self.file, arrays, p) for p in names]
                kinds = {(images.shape[1:], images.dtype) for images, _ in pairs}
                if len(kinds) > 1:
                    raise ValueError(f"{self.file}: parts of different kinds: {kinds}")
                images, labels = (np.concatenate(a) for a in zip(*pairs, strict=True))
                counts = [len(own) for _, own in pairs]
                parts = given_parts(counts, rng, labels)
                break
        else:
            images, labels = read_pair(self.file)
            parts = stratified_parts(labels, (0.1, 0.1), rng)
        images = scaled(self.file, images)
        return Contents(
            images=iter(images),
            labels=labels,
            parts=parts,
            shape=images.shape[1:],
            dtype=images.dtype.type,
            classes=int(labels.max()) + 1,
        )


def source(name: str, file: Path, size: int | None = None) -> Archive:
    """Return the images of an .npz file."""
    fixed_size(name, size)
    return Archive(file)
