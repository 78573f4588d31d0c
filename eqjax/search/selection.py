"""Which members survive: selections by validation error and parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from eqjax.models.architecture import Architecture


class Score(NamedTuple):
    """What selection looks at: validation error (lower is better), parameter count."""

    error: float
    parameters: int


# A selection takes the proposals' architectures and scores (all finite), how many to
# keep and a key, and returns the positions kept, best first.
Selection = Callable[
    [Sequence[Architecture], Sequence[Score], int, jax.Array], list[int]
]


def pareto_front(scores: Sequence[Score]) -> list[int]:
    """Return the positions that no other dominates in error and parameters.

    Of equal scores the first stands for all. Sorted by error.
    """
    front, fewest = [], math.inf
    for i in _by_error(scores):
        if scores[i].parameters < fewest:
            front.append(i)
            fewest = scores[i].parameters
    return front


def select_pareto(architectures, scores, size, key) -> list[int]:
    """Keep the Pareto front, filled with the best of the rest by error."""
    del architectures, key
    front = pareto_front(scores)
    rest = [i for i in _by_error(scores) if i not in front]
    return (front + rest)[:size]


def select_two_fronts(architectures, scores, size, key) -> list[int]:
    """Keep the front, then the front of the rest, filled by error."""
    del architectures, key
    first = pareto_front(scores)
    rest = [i for i in range(len(scores)) if i not in first]
    second = [rest[i] for i in pareto_front([scores[i] for i in rest])]
    others = [i for i in _by_error(scores) if i not in first and i not in second]
    return (first + second + others)[:size]


def select_unique(architectures, scores, size, key) -> list[int]:
    """Keep the Pareto front among the best member of every architecture."""
    best: dict[Architecture, int] = {}
    for i in _by_error(scores):
        best.setdefault(architectures[i], i)
    alive = list(best.values())
    kept = select_pareto(
        [architectures[i] for i in alive], [scores[i] for i in alive], size, key
    )
    return [alive[i] for i in kept]


def select_top(architectures, scores, size, key) -> list[int]:
    """Keep those with the smallest error."""
    del architectures, key
    return _by_error(scores)[:size]


def select_random(architectures, scores, size, key) -> list[int]:
    """Keep any: the control."""
    del architectures
    return host_generator(key).permutation(len(scores)).tolist()[:size]


SELECTIONS: dict[str, Selection] = {
    "pareto": select_pareto,
    "two_fronts": select_two_fronts,
    "unique": select_unique,
    "top": select_top,
    "random": select_random,
}


def host_generator(key: jax.Array) -> np.random.Generator:
    """Draw on the host: nothing compiles, however many there are to draw from."""
    return np.random.default_rng(np.ravel(jax.random.key_data(key)).tolist())


def _by_error(scores: Sequence[Score]) -> list[int]:
    return sorted(range(len(scores)), key=lambda i: (*scores[i], i))
