"""EquiNAS_E as init / ask / tell: proposes architectures and selects, never trains.

Whoever drives the search keeps the weights. `ask` names, for every proposal, the
member of the population that it inherits from; `tell` takes the scores of the trained
proposals and says which of them are the next population.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from eqjax.architecture import Architecture
from eqjax.groups import Group


class Score(NamedTuple):
    """What selection looks at: validation error (lower is better), parameter count."""

    error: float
    parameters: int


class Proposal(NamedTuple):
    """A child to train.

    Attributes:
      architecture: its groups.
      parent: position in the population of the member whose weights it inherits.
    """

    architecture: Architecture
    parent: int


@dataclasses.dataclass(frozen=True)
class State:
    """The search between two generations.

    Attributes:
      generation: number of completed generations.
      population: architectures of the members.
      scores: their scores; empty before the first generation.
      diverged: number of proposals dropped so far for a loss that is not finite.
    """

    generation: int
    population: tuple[Architecture, ...]
    scores: tuple[Score, ...]
    diverged: int


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
    return _generator(key).permutation(len(scores)).tolist()[:size]


SELECTIONS: dict[str, Selection] = {
    "pareto": select_pareto,
    "two_fronts": select_two_fronts,
    "unique": select_unique,
    "top": select_top,
    "random": select_random,
}


def _generator(key: jax.Array) -> np.random.Generator:
    """Draw on the host: nothing compiles, however many there are to draw from."""
    return np.random.default_rng(np.ravel(jax.random.key_data(key)).tolist())


def _by_error(scores: Sequence[Score]) -> list[int]:
    return sorted(range(len(scores)), key=lambda i: (*scores[i], i))


@dataclasses.dataclass(frozen=True)
class Evolution:
    """EquiNAS_E (Maile, Wilson and Forre 2023, section 4.1).

    Attributes:
      population_size: members kept after every generation, at most.
      select: the selection, one of `SELECTIONS` or your own.
      candidates: groups that a layer may take; all subgroups if None.
      children: children tried per member and generation, the copy among them; all if
        None. Where there are more, they are drawn at random.
    """

    population_size: int = 5
    select: Selection = select_pareto
    candidates: tuple[Group, ...] | None = None
    children: int | None = None

    def __post_init__(self):
        """Reject sizes that leave nothing to search."""
        for name in ("population_size", "children"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")

    def init(self, architecture: Architecture) -> State:
        """Start from one architecture, whose first training is generation 0."""
        return State(0, (architecture,), (), 0)

    def ask(self, state: State, key: jax.Array) -> tuple[Proposal, ...]:
        """Return the children to train, the copies of the members among them."""
        if not state.scores:
            return tuple(Proposal(a, i) for i, a in enumerate(state.population))
        proposals = []
        rng = _generator(key)
        for parent, member in enumerate(state.population):
            copy, *others = member.children(self.candidates)
            if self.children is not None and len(others) >= self.children:
                drawn = rng.permutation(len(others))[: self.children - 1]
                others = [others[i] for i in sorted(drawn.tolist())]
            proposals += [Proposal(child, parent) for child in (copy, *others)]
        return tuple(proposals)

    def tell(
        self,
        state: State,
        proposals: Sequence[Proposal],
        scores: Sequence[Score],
        key: jax.Array,
    ) -> tuple[State, tuple[int, ...]]:
        """Select the next population from the trained proposals.

        Args:
          state: as passed to `ask`.
          proposals: as returned by `ask`.
          scores: one per proposal; those with an error that is not finite diverged.
          key: for selections that draw.

        Returns:
          The next state, and the positions of its members among the proposals. Where
          every proposal diverged, the population stays and no position is returned.
        """
        if len(scores) != len(proposals):
            raise ValueError(
                f"expected {len(proposals)} scores, one per proposal, got {len(scores)}"
            )
        finite = [i for i, score in enumerate(scores) if math.isfinite(score.error)]
        kept: tuple[int, ...] = ()
        population, kept_scores = state.population, state.scores
        if finite:
            chosen = self.select(
                [proposals[i].architecture for i in finite],
                [scores[i] for i in finite],
                self.population_size,
                key,
            )
            kept = tuple(finite[i] for i in chosen)
            population = tuple(proposals[i].architecture for i in kept)
            kept_scores = tuple(scores[i] for i in kept)
        diverged = state.diverged + len(scores) - len(finite)
        state = State(state.generation + 1, population, kept_scores, diverged)
        return state, kept
