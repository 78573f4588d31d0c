"""What a data set is to an experiment: three splits, in memory or read as needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eqjax.training.batches import Split


class StoredImages:
    """Images (n, height, width, channels) in a .npy file, read when they are indexed.

    Indexing with a slice or an array of numbers returns float32, normalized. The file
    is mapped again for every read, so that the pages read do not stay in memory.
    """

    def __init__(self, file: Path, mean: np.ndarray, deviation: np.ndarray) -> None:
        self.file, self.mean, self.deviation = file, mean, deviation
        self.shape = np.load(file, mmap_mode="r").shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        pixels = np.load(self.file, mmap_mode="r")[index]
        return normalized(pixels, self.mean, self.deviation)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The splits of a data set.

    Attributes:
      train: to train on.
      validation: to select by.
      test: for the figures that are reported.
      classes: how many there are.
      source: where the images are from, for the record.
    """

    train: Split
    validation: Split
    test: Split
    classes: int = 10
    source: str = ""

    @property
    def splits(self) -> tuple[Split, Split, Split]:
        """Training, validation and test."""
        return self.train, self.validation, self.test

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Height, width and channels."""
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


def given_parts(
    counts: Sequence[int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the numbers of the images of parts that lie one after another.

    Args:
      counts: of training, validation and test images; of two parts, training and test,
        a tenth of the first is for validation.
      rng: to draw that tenth.
    """
    train, *others = np.split(np.arange(sum(counts)), np.cumsum(counts)[:-1])
    if len(others) == 2:
        return train, others[0], others[1]
    own, validation, _ = random_parts(len(train), (0.0, 0.1), rng)
    return own, validation, others[0]
