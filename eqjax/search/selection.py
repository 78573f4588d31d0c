"""Which members survive: selections by error, parameters, symmetry and age."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from eqjax.fields.keys import host_generator
from eqjax.models.architecture import Architecture
from eqjax.search.dominance import crowding, ranks

ENTRANTS = 2  # of a tournament of `select_aging`


class Score(NamedTuple):
    """What selection looks at.

    Attributes:
      error: of validation; lower is better.
      parameters: how many.
      age: generations since the architecture was last changed; `Evolution.tell` fills
        it in.
    """

    error: float
    parameters: int
    age: int = 0


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


def select_nsga2(architectures, scores, size, key) -> list[int]:
    """Keep the best fronts of error and parameters, the last thinned (NSGA-II).

    Members come by the number of their front, then by the distance of their neighbors
    on it, then by error (Deb et al. 2002), so that where a front has too many for the
    places left, its ends stay, and those that are unlike the others.
    """
    del architectures, key
    points = np.array([(s.error, s.parameters) for s in scores], float)
    return _by_crowding(points, scores)[:size]


def select_nsga2_symmetry(architectures, scores, size, key) -> list[int]:
    """Keep as `select_nsga2`, with symmetry as the third objective.

    It is the sum of log |G| over the layers, the larger the better. A network is not
    dominated by another that errs less if it has more symmetry.
    """
    del key
    points = np.array(
        [
            (s.error, s.parameters, -a.log_order)
            for a, s in zip(architectures, scores, strict=True)
        ],
        float,
    )
    return _by_crowding(points, scores)[:size]


def select_aging(architectures, scores, size, key) -> list[int]:
    """Keep the youngest: the oldest are removed, never the worst.

    Regularized evolution (Real et al. 2019) adds a child to a queue and removes the
    oldest member; the parent is the best of a random sample. Here a generation is added
    at once: `ask` proposes the children of all members, and their copies, trained on;
    `tell` counts the ages, 0 for a child, one more than before for a copy; and this
    keeps the youngest. Where more than the places left have one age, each place goes to
    the best of two drawn at random: the tournament of the original, held when a
    member is born, as every member becomes a parent. A copy is older than all children,
    so with as many children as places no member outlives its generation, and an
    architecture lasts only if it is found again: one good draw is not enough.

    It needs moves both ways, such as `relax_and_constrain`: relaxations alone would end
    at no symmetry. The last population is not the answer of the search; that is the
    best child of its history, `best_of_history` of the records, to be trained again.
    """
    del architectures
    rng = host_generator(key)
    place = {i: n for n, i in enumerate(_by_error(scores))}
    kept: list[int] = []
    for age in sorted({score.age for score in scores}):
        alike = [i for i, score in enumerate(scores) if score.age == age]
        while alike and len(kept) < size:
            if len(alike) <= size - len(kept):
                winner = alike[0]
            else:
                drawn = rng.choice(len(alike), ENTRANTS, replace=False)
                winner = min((alike[i] for i in drawn), key=place.__getitem__)
            alike.remove(winner)
            kept.append(winner)
    return sorted(kept, key=place.__getitem__)


SELECTIONS: dict[str, Selection] = {
    "pareto": select_pareto,
    "two_fronts": select_two_fronts,
    "unique": select_unique,
    "top": select_top,
    "random": select_random,
    "nsga2": select_nsga2,
    "nsga2_symmetry": select_nsga2_symmetry,
    "aging": select_aging,
}


def best_of_history(records: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the best child that a search has trained: the answer of one that ages.

    Args:
      records: of all generations, as `SearchLoop.generation` returns them.

    Returns:
      Its row, with the number of its generation: of the smallest validation error, then
      of the fewest parameters, then the first. None where all children diverged.

    >>> row = {"validation_error": 0.1, "parameters": 9}
    >>> records = [{"generation": 0, "children": [{**row, "validation_error": 0.2}]}]
    >>> best_of_history([*records, {"generation": 1, "children": [row]}])
    {'validation_error': 0.1, 'parameters': 9, 'generation': 1}
    """
    rows = [
        {**row, "generation": record["generation"]}
        for record in records
        for row in record["children"]
        if row["validation_error"] is not None
    ]
    key = operator.itemgetter("validation_error", "parameters")
    return min(rows, key=key, default=None)


def _by_error(scores: Sequence[Score]) -> list[int]:
    return sorted(range(len(scores)), key=lambda i: (*scores[i][:2], i))


def _by_crowding(points: np.ndarray, scores: Sequence[Score]) -> list[int]:
    """Return all positions by front, then by crowding, then by error."""
    front, distance = ranks(points), np.zeros(len(points))
    for number in range(front.max(initial=-1) + 1):
        there = front == number
        distance[there] = crowding(points[there])
    return sorted(_by_error(scores), key=lambda i: (front[i], -distance[i]))
