"""Samples, and shuffled batches of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from eqjax.training.checks import check_samples


class Split(NamedTuple):
    """The samples of a part of a data set.

    Attributes:
      images: (n, *space, channels), or anything of that length whose slices are arrays.
      labels: (n,) targets, such as class numbers.
    """

    images: Any
    labels: np.ndarray

    def __repr__(self) -> str:
        shapes = (np.shape(a) or len(a) for a in self)
        return "Split(images {}, labels {})".format(*shapes)


def batches(
    split: Split,
    size: int,
    steps: int,
    rng: np.random.Generator,
    part: np.ndarray | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield so many shuffled batches, a new shuffle whenever the data runs out.

    Args:
      split: to draw from.
      size: samples per batch.
      steps: how many batches.
      rng: of the shuffles.
      part: numbers of the samples to draw; all if None.

    Raises:
      ValueError: there are fewer samples than a batch needs, not as many images as
        labels, or a number is out of range.
    """
    check_samples(split.images, split.labels)
    if size < 1 or steps < 0:
        raise ValueError(
            f"batches need size >= 1 and steps >= 0, got {size} and {steps}"
        )
    part = np.arange(len(split.labels)) if part is None else part
    per_epoch = len(part) // size
    if per_epoch == 0:
        raise ValueError(
            f"batch_size must be at most the {len(part)} samples, got {size}"
        )
    for step in range(steps):
        if step % per_epoch == 0:
            order = rng.permutation(part)
        begin = (step % per_epoch) * size
        chosen = order[begin : begin + size]
        yield split.images[chosen], split.labels[chosen]
