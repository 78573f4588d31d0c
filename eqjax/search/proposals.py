"""Which architectures a search tries next: the proposals.

A policy is a function (architecture, candidates) -> architectures, the unchanged copy
first: the children of a member. `candidates` are the groups that layers may have, all
subgroups of the ambient group if None.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from eqjax.groups.group import Group
from eqjax.models.architecture import Architecture


class Proposal(NamedTuple):
    """A child to train.

    Attributes:
      architecture: its groups.
      parent: position of the member whose weights it inherits.
    """

    architecture: Architecture
    parent: int


Policy = Callable[[Architecture, Sequence[Group] | None], tuple[Architecture, ...]]


def relax_from_output(
    architecture: Architecture, candidates: Sequence[Group] | None = None
) -> tuple[Architecture, ...]:
    """Return the relaxations that EquiNAS_E tries, the unchanged copy first.

    The last layer goes to each of its maximal smaller candidates, and a layer that has
    a larger group than its successor takes the successor's. Groups never grow with
    depth, so relaxation enters from the output side (Maile et al. 2023).

    Args:
      architecture: of the parent.
      candidates: groups that layers may have; all subgroups if None.
    """
    groups = architecture.groups
    last = len(groups) - 1
    smaller = maximal_below(groups[-1], candidates)
    children = [architecture, *(architecture.replace(last, H) for H in smaller)]
    for layer, (group, later) in enumerate(itertools.pairwise(groups)):
        if later < group:
            children.append(architecture.replace(layer, later))
    return tuple(children)


def neighbors(
    architecture: Architecture, candidates: Sequence[Group] | None = None
) -> tuple[Architecture, ...]:
    """Return a copy, and all monotone architectures one step of one layer away.

    A step goes to a maximal smaller candidate or to a minimal larger one.

    Args:
      architecture: of the parent.
      candidates: groups that layers may have; all subgroups if None.
    """
    ambient = architecture.ambient
    allowed = ambient.subgroups if candidates is None else tuple(candidates)
    found = []
    for layer, group in enumerate(architecture.groups):
        down = maximal_below(group, allowed)
        up = [H for H in allowed if group in maximal_below(H, (*allowed, group))]
        found += [architecture.replace(layer, H) for H in (*down, *up)]
    return (architecture, *(a for a in found if a.is_monotone))


def relax_and_constrain(
    architecture: Architecture, candidates: Sequence[Group] | None = None
) -> tuple[Architecture, ...]:
    """Return the children of `relax_from_output`, then those with a larger group.

    A layer goes back up to each of its minimal larger candidates that the layer before
    it contains, or at once to the group of the layer before it. Its weights are
    projected: averaged over the orbits of the larger group, exactly tied to it from
    then on. That is no longer the function of the parent, so such a child has to win by
    what it learns; what the optimizer keeps is averaged as well (`Population.relax`).

    Args:
      architecture: of the parent.
      candidates: groups that layers may have; all subgroups if None.
    """
    groups = architecture.groups
    allowed = architecture.ambient.subgroups if candidates is None else candidates
    found = list(relax_from_output(architecture, candidates))
    for layer, group in enumerate(groups):
        up = minimal_above(group, allowed)
        if layer > 0:
            before = groups[layer - 1]
            up = tuple(H for H in up if before >= H)
            if group < before and before not in up:
                up = (*up, before)
        found += [architecture.replace(layer, H) for H in up]
    return tuple(found)


POLICIES: dict[str, Policy] = {
    "relax_from_output": relax_from_output,
    "neighbors": neighbors,
    "relax_and_constrain": relax_and_constrain,
}

# An order puts the most promising children first: a function (architecture, children
# without the copy) -> those of them to try.
Order = Callable[[Architecture, Sequence[Architecture]], Sequence[Architecture]]
Gains = (
    Mapping[tuple[int, Group], float] | Callable[[Architecture, Architecture], float]
)


def by_gain(gains: Gains) -> Order:
    """Return the order of children by what they are predicted to gain, most first.

    Children of equal gains keep the order of the policy.

    Args:
      gains: what a layer gains, by its number from 0 and the group that it goes to; 0
        where it is not listed, and added over layers. Or a function (architecture of
        the parent, that of the child) -> gain of the child.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> order = by_gain({(1, D4.subgroup("C4")): 0.1, (1, D4.subgroup("D2:i")): 0.3})
    >>> copy, *children = neighbors(eq.Architecture.uniform(D4, 2))
    >>> [str(child) for child in order(copy, children)]
    ['D4 D2:i', 'D4 C4', 'D4 D2:i+j']
    """

    def gain(parent: Architecture, child: Architecture) -> float:
        if callable(gains):
            return gains(parent, child)
        pairs = zip(parent.groups, child.groups, strict=True)
        moved = [(layer, new) for layer, (old, new) in enumerate(pairs) if old != new]
        return sum(gains.get(move, 0.0) for move in moved)

    def order(
        parent: Architecture, children: Sequence[Architecture]
    ) -> Sequence[Architecture]:
        return sorted(children, key=lambda child: -gain(parent, child))

    return order


def maximal_below(
    group: Group, candidates: Sequence[Group] | None
) -> tuple[Group, ...]:
    """Return the largest candidates that are proper subgroups of a group."""
    if candidates is None:
        return group.covers
    below = [H for H in candidates if group > H]
    return tuple(H for H in below if not any(H < K for K in below))


def minimal_above(group: Group, candidates: Sequence[Group]) -> tuple[Group, ...]:
    """Return the smallest candidates that properly contain a group."""
    above = [H for H in candidates if group < H]
    return tuple(H for H in above if not any(K < H for K in above))
