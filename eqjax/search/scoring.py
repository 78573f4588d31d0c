"""Which validation samples select the children of a generation, and which score them.

The least of many noisy errors is too small: the winner is partly the luckiest. A search
that scores every generation on the same samples carries that luck on, and reports it.
"""

from __future__ import annotations

import jax
import numpy as np

from eqjax.training.losses import Metrics


def halves(samples: int, seed: int, generation: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the samples that select, and of those that score.

    They are two halves drawn at random, anew for every generation; of an odd number of
    samples the first half has one more.

    Args:
      samples: how many there are, at least 2.
      seed: of the search.
      generation: its number.

    >>> selecting, scoring = halves(5, seed=0, generation=1)
    >>> len(selecting), sorted([*selecting.tolist(), *scoring.tolist()])
    (3, [0, 1, 2, 3, 4])
    """
    order = np.random.default_rng([seed, generation, 1]).permutation(samples)
    middle = selecting_samples(samples)
    return np.sort(order[:middle]), np.sort(order[middle:])


def selecting_samples(samples: int) -> int:
    """Return how many of the validation samples select where the others score."""
    return samples - samples // 2


def mean_over(measured: Metrics, part: np.ndarray | None = None) -> Metrics:
    """Return the means over some samples, (members,) each.

    Args:
      measured: (members, samples) each, as of `Population.evaluate_samples`.
      part: numbers of the samples; all if None.
    """

    def mean(values: np.ndarray) -> np.ndarray:
        chosen = values if part is None else values[:, part]
        return chosen.mean(axis=1, dtype=np.float64)

    return jax.tree.map(mean, measured)
