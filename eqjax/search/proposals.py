"""Which architectures a search tries next: the proposals.

A policy is a function (architecture, candidates) -> architectures, the unchanged copy
first: the children of a member. `candidates` are the groups that layers may have, all
subgroups of the ambient group if None.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
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


POLICIES: dict[str, Policy] = {
    "relax_from_output": relax_from_output,
    "neighbors": neighbors,
}


def maximal_below(
    group: Group, candidates: Sequence[Group] | None
) -> tuple[Group, ...]:
    """Return the largest candidates that are proper subgroups of a group."""
    if candidates is None:
        return group.covers
    below = [H for H in candidates if group > H]
    return tuple(H for H in below if not any(H < K for K in below))
