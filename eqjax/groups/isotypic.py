"""Functions on a group that split everything it acts on into isotypic components."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from eqjax.groups.group import Group


@dataclasses.dataclass(frozen=True, eq=False)
class Isotypic:
    """A component of whatever a group acts on, over the real numbers.

    The sum over u of weights[u] u . x is the orthogonal projection of x on it.

    Attributes:
      degree: how many factors of the defining representation (by matrices) a tensor
        product needs to contain the component: 0 of what is invariant; of rotations of
        the plane, the frequency.
      weights: (order,), one for each element of the group.
    """

    degree: int
    weights: np.ndarray


@functools.cache
def isotypic_components(group: Group) -> tuple[Isotypic, ...]:
    """Return the real isotypic components of a group, the invariant one first.

    Their weights add up to one at the identity, and to zero elsewhere: the projections
    are orthogonal, and their sum is what they project. Irreps that are complex
    conjugates of each other make one component.

    Source: Serre, Linear Representations of Finite Groups (1977), sections 2.6 and 6.3;
    that every degree exists is the theorem of Burnside and Brauer.

    >>> from eqjax.groups import cyclic, dihedral
    >>> [c.degree for c in isotypic_components(cyclic(4))]  # frequencies
    [0, 1, 2]
    >>> [c.degree for c in isotypic_components(dihedral(4))]
    [0, 1, 2, 2, 2]
    """
    classes = _real_classes(group)
    values = np.random.default_rng(0).normal(size=len(classes))  # all different
    function = np.zeros(group.order)
    for value, members in zip(values, classes, strict=True):
        function[members] = value / len(members)
    # Convolution with a real class function is a multiple of one on every component.
    eigenvalues, vectors = np.linalg.eigh(function[group.product[group.inverse]])
    parts = np.split(vectors, np.flatnonzero(np.diff(eigenvalues) > 1e-8) + 1, axis=1)
    assert len(parts) == len(classes)
    found = [part @ part[0] for part in parts]
    character = np.trace(group.matrices, axis1=1, axis2=2)
    components = [Isotypic(_degree(character, each), each) for each in found]
    return tuple(sorted(components, key=lambda c: (c.degree, -c.weights.sum())))


def _real_classes(group: Group) -> list[np.ndarray]:
    """Return conjugacy classes, each with that of the inverses."""
    every = np.arange(group.order)
    conjugates = group.product[
        group.product, group.inverse[:, None]
    ]  # (u, v): u v u^-1
    both = np.concatenate([conjugates, group.inverse[conjugates]])
    return [
        np.flatnonzero(np.isin(every, c)) for c in np.unique(np.sort(both, 0).T, axis=0)
    ]


def _degree(character: np.ndarray, weights: np.ndarray) -> int:
    power = np.ones(len(character))
    for degree in range(len(character)):
        if abs(power @ weights) > 1e-6:
            return degree
        power = power * character
    raise AssertionError("a faithful representation has every irrep in some power")
