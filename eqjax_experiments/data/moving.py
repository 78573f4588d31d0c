"""A sample after an element of a group, in numpy."""

from __future__ import annotations

import numpy as np


def moved(sample: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return a sample after a signed permutation, as `eqjax.transform` has it.

    Args:
      sample: (*space, *rest).
      matrix: (axes, axes) of the element.
    """
    axes = len(matrix)
    source = np.abs(matrix).argmax(1)  # output axis i reads input axis source[i]
    turned = sample.transpose(*source, *range(axes, sample.ndim))
    return np.flip(turned, tuple(int(i) for i in np.flatnonzero(matrix.sum(1) < 0)))
