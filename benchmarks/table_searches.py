"""Searches that take every training from a table of schedules.

Each returns outcomes: schedules, how likely it is to return them, and the gradient
steps of all that it trains. They choose by validation error, and of equal ones by loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from eqjax_experiments.data.schedules import Schedule, Schedules

DRAWS = 200  # of random schedules to halve


class Outcome(NamedTuple):
    """What a search returns.

    Attributes:
      schedule: that it found.
      steps: gradient steps of all trainings.
      share: how likely it is.
    """

    schedule: Schedule
    steps: float
    share: float = 1.0


TableSearch = Callable[[Schedules, str, int], list[Outcome]]


def ranks(table: Schedules, task: str, seed: int, passes: int) -> np.ndarray:
    """Return the rank of every schedule, 0 for the best, by what a search may see."""
    error, loss = (
        table.column(name, task, seed, passes)
        for name in ("validation_error", "validation_loss")
    )
    return np.argsort(np.lexsort((loss, error)))  # what diverged comes last


def fixed(group: str, table: Schedules, task: str, seed: int) -> list[Outcome]:
    """Train one schedule, the same group in every layer."""
    del seed
    record = table.query(task, (group,) * len(table.schedules[0]))
    return [Outcome(record.schedule, record.steps)]


def random_search(trials: int, table: Schedules, task: str, seed: int) -> list[Outcome]:
    """Train different schedules drawn at random to the end, and return the best.

    The shares are exact: the best of the draw is the r-th of n if it is drawn and the
    others are from those behind it.
    """
    count = len(table.schedules)
    order = np.argsort(ranks(table, task, seed, table.passes))
    steps = trials * table.query(task, table.schedules[0]).steps
    draws = math.comb(count, trials)
    return [
        Outcome(
            table.schedules[number], steps, math.comb(count - 1 - r, trials - 1) / draws
        )
        for r, number in enumerate(order[: count - trials + 1])
    ]


def after_one_pass(kept: int, table: Schedules, task: str, seed: int) -> list[Outcome]:
    """Train all schedules for a pass, the best of them to the end; return the best."""
    count = len(table.schedules)
    best = np.argsort(ranks(table, task, seed, 1))[:kept]
    chosen = best[ranks(table, task, seed, table.passes)[best].argmin()]
    first, last = (
        table.query(task, table.schedules[0], seed, passes).steps
        for passes in (1, table.passes)
    )
    return [Outcome(table.schedules[chosen], count * first + kept * (last - first))]


def halving(first: int, table: Schedules, task: str, seed: int) -> list[Outcome]:
    """Train so many schedules, and after every pass go on with the better half."""
    count = len(table.schedules)
    draws = 1 if first == count else DRAWS
    rng = np.random.default_rng([seed, first])
    per_pass = table.query(task, table.schedules[0], seed, 1).steps
    after = [ranks(table, task, seed, n + 1) for n in range(table.passes)]
    found = []
    for _ in range(draws):
        alive, steps = rng.permutation(count)[:first], 0
        for own in after:
            steps += len(alive) * per_pass
            alive = alive[own[alive].argsort()]
            if own is not after[-1]:
                alive = alive[: -(-len(alive) // 2)]
        found.append(Outcome(table.schedules[alive[0]], steps, 1 / draws))
    return found


def table_searches(count: int) -> dict[str, dict[int, TableSearch]]:
    """Return the searches by name, and by how many schedules they train.

    Args:
      count: of the schedules in the table.
    """
    kinds = {
        "random search": (random_search, (1, 2, 4, 8, 16, 32, 64, count)),
        "successive halving": (halving, (8, 16, 32, 64, count)),
        "all for a pass, then the best": (after_one_pass, (1, 4, 16)),
    }
    return {
        name: {n: partial(search, n) for n in sizes if n <= count}
        for name, (search, sizes) in kinds.items()
    }
