"""Which symmetry the data have, seen from the losses of samples that were held out.

A network that is tied to no group learns how its training samples are oriented, as far
as that tells their targets. Where the data are invariant under a group K, every
position of a sample in its orbit is as likely as the others; of a sample that the
network has not seen, so are its losses at all of them. Then moving every held-out
sample by an element of K of its own changes the distribution of no statistic, and the
share of draws with at least as large a one is an exact p value, at any number of
samples and for any network.

With l(x) the loss of a sample, the statistic is

    T_S = mean over samples of (mean over s in S of l(s . x)) - l(x),

by how much moving a sample costs. The test of K looks at all subgroups S of K, and
groups are rejected together as in `randomization`. What a symmetric network does not
see at first order, as classes that a reflection exchanges, this test does.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from eqjax.analysis.evidence import maximal
from eqjax.analysis.randomization import closed, lattice_within, result
from eqjax.analysis.symmetry_test import MoveTargets, check_level, checked_motion
from eqjax.fields.action import transform
from eqjax.fields.keys import check_key, host_generator
from eqjax.groups.axes import preserving_subgroup
from eqjax.groups.checks import (
    check_array,
    check_callable,
    check_group,
    check_number,
    check_whole,
)
from eqjax.groups.group import Group
from eqjax.groups.html import Shaded
from eqjax.groups.text import Echoed, Rows
from eqjax.training.checks import check_model, check_samples, check_variables
from eqjax.training.evaluation import sample_losses
from eqjax.training.losses import LossFn, cross_entropy

BATCH = 500  # samples that are moved at a time


@dataclasses.dataclass(frozen=True)
class HeldOutRow:
    """What held-out samples say against one group.

    Attributes:
      group: which one.
      moved: mean loss of the samples, moved by all of its elements.
      evidence: the same over their loss where they are; about 1 if the data have it.
      p: of the exact randomization test of this group.
      adjusted: the largest p of this group and all that contain it.
      rejected: adjusted is at most the level.
    """

    group: Group
    moved: float
    evidence: float
    p: float
    adjusted: float
    rejected: bool


@dataclasses.dataclass(frozen=True, repr=False)
class HeldOutTest(Echoed):
    """What `eq.held_out_test` found; prints as a table.

    Attributes:
      group: the largest group that was tested.
      network: a row for every group by its name.
      level: probability that a true group is rejected, with all its subgroups.
      samples: how many were held out.
      loss: their mean loss where they are.
      chance: loss of who knows how frequent the classes are, and nothing else; infinite
        where targets are no classes.
    """

    group: Group
    network: Mapping[str, HeldOutRow]
    level: float
    samples: int
    loss: float
    chance: float = math.inf

    @property
    def maximal(self) -> tuple[Group, ...]:
        """The maximal groups that are not rejected, largest first.

        A single one is what the test names; several mean that each is tenable and not
        both together.
        """
        return maximal(self.network, self.group.smallest)

    @property
    def is_blind(self) -> bool:
        """Whether nothing is rejected, by a network that may know nothing at all.

        Its loss is no better than that of knowing how frequent the classes are. Where a
        group is rejected all the same, the network knows something: the test is exact.
        """
        rejected = any(row.rejected for row in self.network.values())
        return self.loss >= self.chance and not rejected

    def numbers(self) -> dict[str, Any]:
        """Return the report as plain numbers, for JSON."""
        rows = {
            name: {
                "moved": round(row.moved, 6),
                "evidence": round(row.evidence, 4),
                "p": row.p,
                "rejected": row.rejected,
            }
            for name, row in self.network.items()
        }
        told = {"level": self.level, "samples": self.samples, "loss": self.loss}
        return {**told, "network": rows, "layers": {}}

    def parts(self) -> Sequence[str | Rows]:
        """Return a row per group, and what follows."""
        tenable = self.maximal
        rows = [["group", "loss when moved", "over loss in place", "p"]]
        for name, row in self.network.items():
            mark = " x" if row.rejected else ""
            named = Shaded(name, -float(row.group in tenable))
            p = Shaded(f"{row.p:.4f}{mark}", float(row.rejected))
            rows.append([named, f"{row.moved:.4f}", f"{row.evidence:.2f}", p])
        blind = (
            f"note: who knows nothing but how frequent the classes are has a loss of "
            f"{self.chance:.4f}; this network may be too ignorant to contradict a group"
        )
        notes = [blind] * self.is_blind
        return [
            Rows(rows),
            f"{self.samples} samples, loss in place {self.loss:.4f}; x: rejected at "
            f"the level {self.level:g}",
            f"not rejected: {' or '.join(H.name for H in tenable)}",
            *notes,
        ]


def held_out_test(
    variables: Mapping[str, Any],
    *,
    model: nn.Module,
    x: Any,
    y: Any,
    group: Group,
    key: chex.PRNGKey,
    loss_fn: LossFn = cross_entropy,
    groups: Sequence[Group] | None = None,
    level: float = 0.05,
    draws: int = 999,
    move_targets: MoveTargets | None = None,
) -> HeldOutTest:
    """Test which groups the data are invariant under, from a network tied to none.

    It needs a forward pass over the samples for every element of the group.

    Args:
      variables: of the model, trained on other samples than these.
      model: any linen model, called as model(x); best one without symmetry: what its
        own symmetry does not tell apart, the test cannot.
      x: (samples, *space, channels), images that neither the weights nor the choice of
        the network have seen.
      y: (samples,), labels; or what the loss takes.
      group: the largest to test; it has to map pixels onto pixels, and the grid onto
        itself.
      key: of the draws.
      loss_fn: (outputs, y) -> a loss per sample, or `Metrics`.
      groups: those to test, with all their joins; all subgroups if None.
      level: probability that a true group is rejected, with all its subgroups.
      draws: how often the samples are moved at random; p is at least 1 / (1 + draws).
      move_targets: as in `symmetry_test`.

    Returns:
      A row per group, and the groups that are not rejected.

    Raises:
      ValueError: the group does not act on the grid exactly; samples or settings do not
        fit; a loss is not finite.

    >>> import eqjax as eq
    >>> import flax.linen as nn
    >>> class FirstColumn(nn.Module):
    ...     def __call__(self, x):
    ...         score = 9 * x[:, :, 0].mean((1, 2))
    ...         return jnp.stack([-score, score], -1)
    >>> x = np.random.default_rng(0).normal(size=(40, 6, 6, 1)).astype(np.float32)
    >>> y = (x[:, :, 0].mean((1, 2)) > 0).astype(int)
    >>> D4 = eq.dihedral(4)
    >>> report = held_out_test(
    ...     {}, model=FirstColumn(), x=x, y=y, group=D4, key=jax.random.key(0))
    >>> report.maximal  # flipping the rows keeps the first column
    (Group(D1:i < D4),)
    """
    check_model("model", model)
    check_variables("variables", variables)
    check_key("key", key)
    check_group("group", group)
    check_array("x", x)
    check_callable("loss_fn", loss_fn, "eq.training.cross_entropy")
    check_number("level", level)
    check_whole("draws", draws)
    check_level(level, draws)
    check_samples(x, y)
    space = tuple(np.shape(x)[1:-1])
    kept = preserving_subgroup(group.exact_subgroup, space)
    if kept != group:
        raise ValueError(
            f"{group!r} does not map the pixels of a grid of {space} onto each other; "
            f"pass group={kept!r}, which does"
        )
    lattice = lattice_within(group, groups)
    losses = orbit_losses(
        variables, model, x, y, group, loss_fn, checked_motion(move_targets, x, y)
    )
    if not np.isfinite(losses).all():
        raise ValueError("the loss of a sample is not finite")
    rng = host_generator(key)
    place = {u: i for i, u in enumerate(group.elements)}
    outcomes = closed(
        {
            H: result(_statistics(losses, group, H, lattice, place, draws, rng)[None])
            for H in lattice
        }
    )
    loss = float(losses[:, 0].mean())
    rows = {}
    for H, outcome in outcomes.items():
        moved = float(losses[:, [place[u] for u in H.elements]].mean())
        rejected = outcome.adjusted <= level
        evidence = moved / loss if loss > 0 else 1.0
        rows[H.name] = HeldOutRow(
            H, moved, evidence, outcome.p, outcome.adjusted, rejected
        )
    known = loss_of_chance(y) if loss_fn is cross_entropy else math.inf
    return HeldOutTest(group, rows, level, len(losses), loss, known)


def loss_of_chance(labels: Any) -> float:
    """Return the loss of who knows how frequent the classes are, and nothing else.

    Args:
      labels: class numbers, of any shape.

    >>> round(loss_of_chance(np.array([0, 1, 0, 1])), 4)  # the logarithm of 2
    0.6931
    """
    _, counts = np.unique(np.asarray(labels), return_counts=True)
    share = counts / counts.sum()
    return float(-(share * np.log(share)).sum())


def orbit_losses(
    variables: Mapping[str, Any],
    model: nn.Module,
    x: Any,
    y: Any,
    group: Group,
    loss_fn: LossFn,
    move_targets: MoveTargets,
) -> np.ndarray:
    """Return (samples, order): the loss of every sample, moved by every element."""
    parts = []
    for begin in range(0, len(x), BATCH):
        part = slice(begin, begin + BATCH)
        images = jnp.asarray(x[part])
        targets = jax.tree.map(lambda leaf, part=part: leaf[part], y)
        columns = [
            sample_losses(
                variables,
                np.asarray(transform(images, u, group=group)),
                move_targets(targets, u),
                model=model,
                loss_fn=loss_fn,
            )
            for u in group.elements
        ]
        parts.append(np.stack(columns, 1))
    return np.concatenate(parts).astype(np.float64)


def _statistics(
    losses: np.ndarray,
    group: Group,
    tested: Group,
    lattice: Sequence[Group],
    place: Mapping[int, int],
    draws: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return (groups inside, 1 + draws): T of every subgroup, the group itself first.

    Args:
      losses: (samples, order).
      group: whose elements their columns are.
      tested: moves the samples.
      lattice: of all groups.
      place: column of every element.
      draws: how often the samples are moved.
      rng: of the draws.
    """
    samples = len(losses)
    moved = rng.integers(tested.order, size=(draws, samples))
    inside = [S for S in lattice if tested >= S and (S.order > 1 or tested == S)]
    found = []
    for S in inside:
        # Column v: the mean over S of l(s . v . x), less l(v . x).
        costs = np.stack(
            [
                losses[:, group.product[[place[s] for s in S.elements], place[v]]].mean(
                    1
                )
                - losses[:, place[v]]
                for v in tested.elements
            ],
            1,
        )
        own = np.array([costs[np.arange(samples), row].mean() for row in moved])
        found.append(np.concatenate([costs[:, :1].mean(0), own]))
    return np.stack(found)
