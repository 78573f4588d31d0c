"""Fibers: the finite G-sets that the values of a field are indexed by.

A field holds one value per point p and fiber element a. A group element u acts from
the left, (u . f)(p, a) = f(u^-1 p, u^-1 a).
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from eqjax.groups.checks import check_group
from eqjax.groups.group import Group


@dataclasses.dataclass(frozen=True)
class Fiber:
    """The transitive G-set G/K: the cosets of a stabilizer K in its ambient group G.

    K = 1 gives the regular fiber (one value per group element), K = G the trivial one
    (a single value, as in an image), and anything between a quotient.

    >>> from eqjax.groups import dihedral
    >>> regular(dihedral(4)).size, trivial(dihedral(4)).size
    (8, 1)
    >>> Fiber(dihedral(4).subgroup("C4")).size
    2
    """

    stabilizer: Group

    def __post_init__(self):
        """Reject groups whose elements are not numbered."""
        if not isinstance(self.stabilizer, Group):
            raise TypeError(
                "a fiber holds the cosets of a Group, such as eq.full_octahedral(), "
                f"got {self.stabilizer!r}; closed subgroups of O(3) act on an "
                "IrrepsFiber"
            )

    @property
    def ambient(self) -> Group:
        """The group that acts on this fiber."""
        return self.stabilizer.ambient

    @property
    def size(self) -> int:
        """Number of fiber elements."""
        return self.ambient.order // self.stabilizer.order

    @functools.cached_property
    def representatives(self) -> np.ndarray:
        """(size,) the smallest ambient element of every coset, ascending."""
        return np.unique(self._coset_minimum)

    @functools.cached_property
    def members(self) -> np.ndarray:
        """(size, stabilizer order) the ambient elements of every coset gK."""
        return self.ambient.product[self.representatives][
            :, list(self.stabilizer.elements)
        ]

    @functools.cached_property
    def action(self) -> np.ndarray:
        """(ambient order, size) integers; action[u, a] is the fiber element u a."""
        moved = self.ambient.product[:, self.representatives]
        return np.searchsorted(self.representatives, self._coset_minimum[moved])

    @functools.cached_property
    def _coset_minimum(self) -> np.ndarray:
        """(ambient order,) the smallest element of every element's coset gK."""
        return self.ambient.product[:, list(self.stabilizer.elements)].min(axis=1)


def regular(group: Group) -> Fiber:
    """Return the fiber of one value per element of the ambient group.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> regular(D4.subgroup("C4")).size  # that of the ambient group
    8
    """
    check_group("group", group, closed=True)
    return Fiber(group.smallest)


def trivial(group: Group) -> Fiber:
    """Return the one-element fiber, that of an image or an invariant.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> trivial(D4).size
    1
    """
    check_group("group", group, closed=True)
    return Fiber(group.ambient)


def quotient(stabilizer: Group) -> Fiber:
    """Return the fiber of cosets of a subgroup in its ambient group.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> quotient(D4.subgroup("C4")).size
    2
    """
    return Fiber(stabilizer)
