"""Exact randomization tests of invariance over a lattice of groups, in numpy.

Given are vectors g_b, one per block of samples, on which a group acts by permutations
of entries. Where the distribution of the data is invariant under a group K, moving
every g_b by an element of K of its own changes no distribution. So whatever is computed
of the moved vectors has the distribution of what is computed of the g_b themselves, and
the share of draws with at least as large a value is an exact p value at any sample size
(Chiu and Bloem-Reddy 2023, arXiv 2307.15834).

With m the mean vector and P_S the average over the elements of S, the statistic is

    T_S = |(1 - P_S) m|^2 = <m, m> - mean over s in S of <m, s . m>,

the part of m that invariance under S forbids. The test of K looks at all subgroups S of
K: S-invariance follows from K-invariance, and a small group may see at once what the
large one dilutes. Each T_S is put on the scale of its own draws, and the largest
counts.

Hypotheses of invariance are closed under intersection: data invariant under two groups
are so under their join. So closed testing (Marcus, Peritz and Gabriel 1976) needs no
correction: a group is rejected where every group that contains it fails its own test.
A true group is then rejected with probability at most the level, with all of its
subgroups together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from eqjax.groups.checks import several
from eqjax.groups.group import Group, difference

TIE = 1e-5  # of the draws' scale: what rounding leaves of equal values


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a test says of one group.

    Attributes:
      statistic: T of the group, summed over layers in units of their draws' means.
      evidence: the mean over layers of T over its mean under the null; about 1 where
        the data have the group.
      p: of the exact test of this group alone.
      adjusted: the largest p of a group that contains it: rejected where that is at
        most the level.
    """

    statistic: float
    evidence: float
    p: float
    adjusted: float


def lattice_of(groups: Sequence[Group]) -> tuple[Group, ...]:
    """Return the groups, all their joins and the trivial group, largest first."""
    found = {*groups, groups[0].smallest}
    while True:
        joined = {H.join(K) for H in found for K in found} | found
        if joined == found:
            break
        found = joined
    order = {H: i for i, H in enumerate(next(iter(found)).ambient.subgroups)}
    return tuple(sorted(found, key=order.__getitem__))


def lattice_within(whole: Group, groups: Sequence[Group] | None) -> tuple[Group, ...]:
    """Return the groups to test, with their joins; all subgroups if None.

    Raises:
      TypeError: it is no sequence of groups.
      ValueError: one of them is not within the whole.
    """
    if groups is None:
        return whole.subgroups
    for group in several("groups", groups, "Groups"):
        inside = isinstance(group, Group) and group.ambient == whole.ambient
        if not inside or not group <= whole:
            hint = ""
            if isinstance(group, Group):
                hint = difference(group.ambient, whole.ambient)
            raise ValueError(
                f"groups must be subgroups of {whole!r}, the largest that is tested, "
                f"got {group!r}{hint}"
            )
    return lattice_of(groups or (whole.smallest,))


Products = Callable[[Group, np.ndarray], np.ndarray]


def closed_test(
    layers: Sequence[Products],
    blocks: int,
    groups: Sequence[Group],
    draws: int,
    rng: np.random.Generator,
) -> tuple[dict[Group, Outcome], list[dict[Group, Outcome]]]:
    """Test every group of a lattice, with all layers together and with each alone.

    Args:
      layers: for each, (group, moved) -> (1 + draws, order): <m, w . m> for every
        element w of the group, of the mean m of blocks that are moved by the elements
        at the positions `moved`, (1 + draws, blocks).
      blocks: how many.
      groups: the lattice, closed under joins.
      draws: how many times the blocks are moved at random.
      rng: of the draws.

    Returns:
      The results of all layers together, which are moved by the same elements, and
      those of each layer.
    """
    together: dict[Group, Outcome] = {}
    alone: list[dict[Group, Outcome]] = [{} for _ in layers]
    for group in groups:
        moved = rng.integers(group.order, size=(1 + draws, blocks))
        moved[0] = 0  # the data themselves: the identity comes first
        inside = [S for S in groups if group >= S and (S.order > 1 or group == S)]
        values = np.stack(
            [_statistics(products(group, moved), group, inside) for products in layers]
        )
        together[group] = result(values)
        for layer, results in enumerate(alone):
            results[group] = result(values[layer : layer + 1])
    return closed(together), [closed(results) for results in alone]


def gram_products(
    group: Group,
    moved: np.ndarray,
    *,
    gram: np.ndarray,
    whole: Group,
    memory: int = 2**28,
) -> np.ndarray:
    """Return (1 + draws, order): <m, w . m> of the moved means, for every w.

    Args:
      group: a subgroup of the whole.
      moved: (1 + draws, blocks), positions of elements.
      gram: (order, blocks, blocks): <g_b, u . g_c> for every element u of the whole.
      whole: the group whose elements these are.
      memory: bytes that a step may take.

    With M[(b, u), (c, v)] = <u . g_b, v . g_c> and Z the moves as ones and zeros, all
    of them are entries of Z M: one matrix product for all elements.
    """
    place = np.array([whole.elements.index(u) for u in group.elements])
    product, inverse = group.product, group.inverse
    between = place[product[inverse]]  # [u, v]: u^-1 v, where the gram has it

    count, blocks = moved.shape
    order = group.order
    chosen = np.zeros((count, blocks, order), np.float32)
    np.put_along_axis(chosen, moved[..., None], 1, axis=-1)
    ones = chosen.reshape(count, -1)
    found = np.zeros((count, order))
    column_bytes = 4 * order * (blocks * order + count)
    step = max(1, int(memory // column_bytes))
    for begin in range(0, blocks, step):
        part = slice(begin, min(begin + step, blocks))
        pairs = gram[:, :, part][between]  # (u, v, b, c)
        width = pairs.shape[-1]
        matrix = pairs.transpose(2, 0, 3, 1).reshape(blocks * order, width * order)
        reached = (ones @ matrix).reshape(count, width, order)
        for w in range(order):
            own = product[w][moved[:, part]][..., None]
            found[:, w] += np.take_along_axis(reached, own, -1).sum((1, 2), np.float64)
    return found / blocks**2


def _statistics(
    products: np.ndarray, group: Group, inside: Sequence[Group]
) -> np.ndarray:
    """Return (groups, 1 + draws): T of every group inside, of the group itself first.

    What rounding leaves of zero is zero.
    """
    where = {u: i for i, u in enumerate(group.elements)}
    values = np.stack(
        [
            products[:, 0] - products[:, [where[s] for s in S.elements]].mean(-1)
            for S in inside
        ]
    )
    return np.where(values > TIE * products[:, 0], values, 0)


def result(values: np.ndarray) -> Outcome:
    """Return the test of a group from (layers, groups inside, 1 + draws) statistics."""
    means = values.mean(-1, keepdims=True)
    spread = values.std(-1, keepdims=True)
    known = spread > TIE * means
    scaled = np.where(known, (values - means) / np.where(known, spread, 1), 0)
    pooled = scaled.sum(0)  # (groups inside, 1 + draws)
    spread = pooled.std(-1, keepdims=True)
    largest = (pooled / np.where(spread > 0, spread, 1)).max(0)
    reached = largest[1:] >= largest[0] - TIE * max(1, abs(largest[0]))
    p = (1 + int(reached.sum())) / len(largest)
    own = values[:, 0]  # the group itself
    null = own[:, 1:].mean(-1) if own.shape[-1] > 1 else own[:, 0]
    ratios = np.where(null > 0, own[:, 0] / np.where(null > 0, null, 1), 1)
    return Outcome(float(own[:, 0].sum()), float(ratios.mean()), p, p)


def closed(results: Mapping[Any, Outcome]) -> dict[Any, Outcome]:
    """Return the results with p values adjusted over all groups that contain one."""
    return {
        group: dataclasses.replace(
            outcome, adjusted=max(t.p for K, t in results.items() if group <= K)
        )
        for group, outcome in results.items()
    }
