"""Which group a search has found, or that its scores cannot tell.

The rows of the last generation were trained alike and measured on the same validation
images. The group of a network is the one that all of its layers share. Named is the
largest group whose best network no other beats, if all larger ones are beaten in the
last generation that trained both: noise decides nothing, and a tie goes to the
symmetry.

Two networks differ where Newcombe's interval for the difference of their errors (1998,
method 10, from Wilson's intervals) leaves out zero. It takes errors for independent;
those of networks on the same images are alike, which makes it wider than need be. Its
level is divided by the number of networks that the images have scored.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import Any

from eqjax.groups.group import Group
from eqjax.groups.html import Shaded
from eqjax.groups.text import Echoed, Rows
from eqjax.models.architecture import Architecture

LEVEL = 0.05  # how often a group is named although a larger one does as well
MOVED = 0.01  # of the loss: a child that differs less from its sibling has not moved
LONGER = "train children longer (--epochs of the command, steps= of eq.evolve)"
WORTHWHILE = 1 / 3  # of the errors: what no relaxation may save where the first stays


@dataclasses.dataclass(frozen=True, repr=False)
class Verdict(Echoed):
    """What a search says of the symmetry of the data.

    Attributes:
      group: the one that it names; None where it cannot tell.
      reason: why, and what to do, in a sentence or two.
    """

    group: Group | None
    reason: str

    def parts(self) -> Sequence[str | Rows]:
        """Return a line, cool where a group is named and warm where it is not."""
        if self.group is None:
            return (Shaded(f"undecided: {self.reason}", 0.5),)
        return (Shaded(f"{self.group.name}: {self.reason}", -0.5),)


def difference(
    first: float, second: float, samples: int, level: float
) -> tuple[float, float]:
    """Return bounds of the difference of two error rates, first minus second.

    Args:
      first: share of wrong answers, in [0, 1].
      second: of the other network.
      samples: how many answers each gave.
      level: probability that a bound does not hold, for each of the two.

    >>> low, high = difference(0.35, 0.0, samples=54, level=0.025)
    >>> round(low, 2), round(high, 2)
    (0.22, 0.48)
    """
    (low_a, high_a), (low_b, high_b) = (
        _wilson(p, samples, level) for p in (first, second)
    )
    gap = first - second
    return (
        gap - math.hypot(first - low_a, high_b - second),
        gap + math.hypot(high_a - first, second - low_b),
    )


def _wilson(share: float, samples: int, level: float) -> tuple[float, float]:
    """Return Wilson's bounds of a probability (1927)."""
    z = NormalDist().inv_cdf(1 - level)
    grown = 1 + z * z / samples
    centre = (share + z * z / (2 * samples)) / grown
    half = z / grown * math.sqrt(share * (1 - share) / samples + (z / samples / 2) ** 2)
    return centre - half, centre + half


def verdict(
    records: Sequence[Mapping[str, Any]],
    ambient: Group,
    candidates: Iterable[Group],
    samples: int,
) -> Verdict:
    """Return which group a search names.

    Args:
      records: of all generations, as `SearchLoop.generation` returns them.
      ambient: the group that the names in the records are subgroups of.
      candidates: the groups that layers could take, the one of the start among them.
      samples: how many validation images the errors are means over.
    """
    generations = [_healthy(record, ambient) for record in records]
    trained = sum(len(record["children"]) for record in records)
    if not (generations and generations[-1]):
        return Verdict(None, "every network of the last generation diverged")
    best = _best(generations[-1])
    winner = min(best.values(), key=lambda row: row.error)
    level = LEVEL / trained

    def gain(group: Group, over: _Row) -> tuple[float, float]:
        return difference(best[group].error, over.error, samples, level)

    tied = [group for group in best if gain(group, winner)[0] <= 0]
    largest = [group for group in tied if not any(group < other for other in tied)]
    if len(largest) > 1:
        order = ambient.subgroups
        names = " and ".join(H.name for H in sorted(largest, key=order.index))
        return Verdict(
            None, f"{names} do equally well within the noise; {_more(samples)}"
        )
    (named,) = largest
    # A larger group that was given up on the way is compared where it was trained last.
    compared = {
        H: best
        for best in map(_best, generations)
        for H in best
        if named < H and named in best
    }
    unbeaten = [H.name for H in candidates if named < H and H not in compared] + [
        H.name
        for H, then in compared.items()
        if difference(then[H].error, then[named].error, samples, level)[0] <= 0
    ]
    if unbeaten:
        return Verdict(
            None,
            f"{named.name} does best, but {', '.join(unbeaten)} was not trained beside "
            f"it, or not long enough to tell; keep a larger population, or {LONGER}",
        )
    if compared:
        nearest = min((then[H] for H, then in compared.items()), key=lambda r: r.error)
        return Verdict(
            named,
            f"its best network errs on {_percent(best[named].error)} of {samples} "
            f"validation images, the best with more symmetry, {nearest.group.name}, on "
            f"{_percent(nearest.error)}",
        )
    return _unbeaten(named, best, generations[-1], samples, level)


@dataclasses.dataclass(frozen=True)
class _Row:
    """A child of the last generation."""

    architecture: Architecture
    parent: int
    loss: float
    error: float

    @classmethod
    def read(cls, row: Mapping[str, Any], ambient: Group) -> _Row:
        architecture = Architecture.parse(ambient, row["groups"])
        loss, error = row["validation_loss"], row["validation_error"]
        return cls(architecture, row["parent"], loss, error)

    @property
    def group(self) -> Group:
        first, *others = self.architecture.groups
        return first.meet(*others)


def _healthy(record: Mapping[str, Any], ambient: Group) -> list[_Row]:
    """Return the children of a generation that did not diverge."""
    rows = [_Row.read(row, ambient) for row in record["children"]]
    return [row for row in rows if row.error is not None]


def _best(rows: Sequence[_Row]) -> dict[Group, _Row]:
    """Return the row of the least error of every group."""
    found: dict[Group, _Row] = {}
    for row in sorted(rows, key=lambda row: row.error):
        found.setdefault(row.group, row)
    return found


def _unbeaten(
    named: Group,
    best: Mapping[Group, _Row],
    rows: Sequence[_Row],
    samples: int,
    level: float,
) -> Verdict:
    """Return whether the first group stands: nothing beats it, but was it tried?"""
    smaller = [row for row in rows if row.group < named]
    if not smaller:
        return Verdict(None, "no relaxation was tried; allow more generations")
    copies = {row.parent: row for row in rows if row.group == named}
    still = [
        row
        for row in smaller
        if row.parent in copies
        and abs(row.loss - copies[row.parent].loss) < MOVED * copies[row.parent].loss
    ]
    error = best[named].error
    if still and error > 0:
        return Verdict(
            None,
            f"{len(still)} of the {len(smaller)} relaxed networks have not moved away "
            f"from their parents with {named.name}; {LONGER}",
        )
    possible = max(
        difference(error, row.error, samples, level)[1] for row in best.values()
    )
    if error > 0 and possible > WORTHWHILE * error:
        return Verdict(
            None,
            f"no relaxation beats {named.name}, which errs on {_percent(error)} of "
            f"{samples} validation images, but one may save up to "
            f"{_percent(min(possible, error))}; {_more(samples)}",
        )
    return Verdict(
        named,
        f"no relaxation saves a third of its errors, {_percent(error)} of {samples} "
        "validation images",
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _more(samples: int) -> str:
    return f"{LONGER}, or validate on more than {samples} images"
