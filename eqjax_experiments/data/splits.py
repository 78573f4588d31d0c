"""What a data set is to an experiment: three splits, in memory or read as needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eqjax.saving import Preprocessing
from eqjax.training.batches import Split


class StoredImages:
    """Images (n, *space, channels) in a .npy file, read when they are indexed.

    Indexing with a slice or an array of numbers returns float32, normalized. The file
    is mapped again for every read, so that the pages read do not stay in memory.
    """

    def __init__(self, file: Path, mean: np.ndarray, deviation: np.ndarray) -> None:
        self.file, self.mean, self.deviation = file, mean, deviation
        self.shape = np.load(file, mmap_mode="r", allow_pickle=False).shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        stored = np.load(self.file, mmap_mode="r", allow_pickle=False)
        return normalized(stored[index], self.mean, self.deviation)


@dataclasses.dataclass(frozen=True)
class FirstImages:
    """The first of stored images, read when they are indexed, as all of them are."""

    images: StoredImages
    count: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all of them together."""
        return (self.count, *self.images.shape[1:])

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: Any) -> np.ndarray:
        if isinstance(index, slice):
            return self.images[slice(*index.indices(self.count))]
        return self.images[index]


def first_of(images: Any, count: int) -> Any:
    """Return the first images of a split; those that are stored stay where they are."""
    stored = isinstance(images, StoredImages)
    return FirstImages(images, count) if stored else images[:count]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The splits of a data set.

    Attributes:
      train: to train on.
      validation: to select by.
      test: for the figures that are reported.
      classes: how many there are.
      source: where the images are from, for the record.
      names: of the classes; their numbers if not known.
      remark: what was made of the images, for people.
      listing: the checksum of every file, by its path, where there are many.
      mean: of every channel, in [0, 1], that was taken off the pixels.
      deviation: of every channel, that the rest was divided by.
    """

    train: Split
    validation: Split
    test: Split
    classes: int = 10
    source: str = ""
    names: tuple[str, ...] = ()
    remark: str = ""
    listing: Mapping[str, str] = dataclasses.field(default_factory=dict)
    mean: tuple[float, ...] = (0.0,)
    deviation: tuple[float, ...] = (1.0,)

    @property
    def class_names(self) -> tuple[str, ...]:
        """A name for every class."""
        return self.names or tuple(map(str, range(self.classes)))

    @property
    def counts(self) -> dict[str, list[int]]:
        """How many training, validation and test images there are, by class."""
        per_split = [
            np.bincount(split.labels, minlength=self.classes) for split in self.splits
        ]
        per_class = np.stack(per_split, 1).tolist()
        return dict(zip(self.class_names, per_class, strict=True))

    @property
    def splits(self) -> tuple[Split, Split, Split]:
        """Training, validation and test."""
        return self.train, self.validation, self.test

    @property
    def preprocessing(self) -> Preprocessing:
        """What was done to the pixels of an image, to be done to others."""
        return Preprocessing(self.mean, self.deviation, self.image_shape)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Points per axis, such as height and width, and channels."""
        return self.train.images.shape[1:]


def unit(pixels: np.ndarray) -> np.ndarray:
    """Return pixels as float32, bytes scaled to [0, 1]."""
    if pixels.dtype == np.uint8:
        return pixels.astype(np.float32) / np.float32(255)
    return pixels.astype(np.float32)


def normalized(
    pixels: np.ndarray, mean: np.ndarray, deviation: np.ndarray
) -> np.ndarray:
    """Return pixels as float32, less the mean of each channel, over its deviation."""
    return (unit(pixels) - np.float32(mean)) / np.float32(deviation)


def random_parts(
    count: int, fractions: tuple[float, float], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return shuffled numbers below `count` as training, validation and test part.

    Args:
      count: of all.
      fractions: of all for the test, and of the rest for the validation.
      rng: of the shuffle.
    """
    order = rng.permutation(count)
    test = round(fractions[0] * count)
    validation = test + round(fractions[1] * (count - test))
    return order[validation:], order[test:validation], order[:test]


def stratified_parts(
    labels: np.ndarray,
    fractions: tuple[float, float],
    rng: np.random.Generator,
    names: Sequence[str] = (),
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return shuffled numbers of images in three parts, every class in proportion.

    Of every class at least one image is in every part that is not empty.

    Args:
      labels: (n,) class numbers.
      fractions: as in `random_parts`.
      rng: of the shuffle.
      names: of the classes, for errors.

    Raises:
      ValueError: a class has too few images.
    """
    parts: list[list[np.ndarray]] = [[], [], []]
    needed = 1 + sum(fraction > 0 for fraction in fractions)
    for each in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == each))
        if len(own) < needed:
            name = names[each] if names else each
            raise ValueError(
                f"class {name} has {counted(len(own), 'image', 'images')}; it needs at "
                f"least {needed}, one for every part"
            )
        test = max(round(fractions[0] * len(own)), int(fractions[0] > 0))
        rest = len(own) - test
        validation = max(round(fractions[1] * rest), int(fractions[1] > 0))
        cut = np.split(own, [test, test + validation])
        for part, chosen in zip(parts, reversed(cut), strict=True):
            part.append(chosen)
    train, validate, held_out = (rng.permutation(np.concatenate(p)) for p in parts)
    return train, validate, held_out


def counted(number: int, one: str, several: str) -> str:
    """Return a number of things in words.

    >>> counted(1, "image", "images"), counted(2000, "child", "children")
    ('1 image', '2,000 children')
    """
    return f"1 {one}" if number == 1 else f"{number:,} {several}"


def given_parts(
    counts: Sequence[int],
    rng: np.random.Generator,
    labels: np.ndarray,
    names: Sequence[str] = (),
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the numbers of the images of parts that lie one after another.

    Args:
      counts: of training, validation and test images; of two parts, training and test,
        a tenth of every class of the first is for validation.
      rng: to draw that tenth.
      labels: of all images.
      names: of the classes, for errors.
    """
    train, *others = np.split(np.arange(sum(counts)), np.cumsum(counts)[:-1])
    if len(others) == 2:
        return train, others[0], others[1]
    own, validation, _ = stratified_parts(labels[train], (0.0, 0.1), rng, names)
    return own, validation, others[0]
