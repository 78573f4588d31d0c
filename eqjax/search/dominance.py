"""Points of several objectives, all minimized: how they dominate and crowd each other.

Both are those of NSGA-II (Deb et al. 2002).
"""

from __future__ import annotations

import numpy as np


def ranks(points: np.ndarray) -> np.ndarray:
    """Return the number of the front that each point lies on, 0 for the best.

    A point dominates another where it is nowhere larger and somewhere smaller; equal
    points share a front. Front 0 is dominated by none, front 1 by those of front 0, and
    so on.

    Args:
      points: (points, objectives).

    Returns:
      (points,) integers.

    >>> ranks(np.array([[0, 2], [1, 1], [1, 3], [1, 1]])).tolist()
    [0, 0, 1, 0]
    """
    nowhere_larger = (points[:, None] <= points[None]).all(-1)
    dominates = nowhere_larger & ~nowhere_larger.T
    found = np.full(len(points), -1)
    front = 0
    while (left := found < 0).any():
        beaten = (dominates & left[:, None]).any(0)
        found[left & ~beaten] = front
        front += 1
    return found


def crowding(points: np.ndarray) -> np.ndarray:
    """Return how far the neighbors of each point of a front lie apart.

    That is the distance from the next smaller to the next larger one in an objective,
    by what the objective spans, and the mean over all objectives. The ends have
    infinite distances; an objective that is the same everywhere counts nothing.

    Args:
      points: (points, objectives), of one front.

    Returns:
      (points,) distances; infinite for one point and for two.

    >>> crowding(np.array([[0, 8], [1, 4], [4, 0]])).tolist()
    [inf, 1.0, inf]
    """
    if len(points) <= 2:
        return np.full(len(points), np.inf)
    total = np.zeros(len(points))
    for values in points.T:
        order = np.argsort(values, kind="stable")
        span = np.ptp(values)
        if span > 0:
            ends = np.concatenate([[-np.inf], values[order], [np.inf]])
            total[order] += (ends[2:] - ends[:-2]) / span
    return total / points.shape[1]
