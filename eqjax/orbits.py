"""Fibers (finite G-sets) and the orbit tables that tie kernel entries along a group.

A field holds one value per point p and fiber element a. A group element u acts from
the left, (u . f)(p, a) = f(u^-1 p, u^-1 a). A full kernel K(y, h, g), with y the
offset of a tap (input minus output position), h the fiber element it reads and g the
one it writes, commutes with every u of a group H exactly when

    K(u y, u h, u g) = K(y, h, g)    for all u in H,

so the constraint is one integer per entry: the number of its orbit under H.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np

from eqjax.groups import Group


@dataclasses.dataclass(frozen=True)
class Fiber:
    """The transitive G-set G/K: the cosets of a stabilizer K in its ambient group G.

    K = 1 gives the regular fiber (one value per group element), K = G the trivial one
    (a single value, as in an image), and anything between a quotient.

    >>> from eqjax.groups import dihedral
    >>> regular(dihedral(4)).size, trivial(dihedral(4)).size
    (8, 1)
    """

    stabilizer: Group

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
    def action(self) -> np.ndarray:
        """(ambient order, size) integers; action[u, a] is the fiber element u a."""
        moved = self.ambient.product[:, self.representatives]
        return np.searchsorted(self.representatives, self._coset_minimum[moved])

    @functools.cached_property
    def _coset_minimum(self) -> np.ndarray:
        """(ambient order,) the smallest element of every element's coset gK."""
        return self.ambient.product[:, list(self.stabilizer.elements)].min(axis=1)


def regular(group: Group) -> Fiber:
    """Return the fiber of one value per element of the ambient group."""
    return Fiber(group.ambient.subgroups[-1])


def trivial(group: Group) -> Fiber:
    """Return the one-element fiber, that of an image or an invariant."""
    return Fiber(group.ambient)


def quotient(stabilizer: Group) -> Fiber:
    """Return the fiber of cosets of a subgroup in its ambient group."""
    return Fiber(stabilizer)


@dataclasses.dataclass(frozen=True, eq=False)
class OrbitTable:
    """The orbits of a group on a finite set laid out as an array.

    Orbits are numbered in the order in which a row-major walk first meets them. The
    arrays may be traced, so that one compiled program serves all groups; they are then
    padded to a common number of orbits by empty ones, of size and representative zero.

    Attributes:
      group: the group whose orbits these are; None where the table is data.
      index: int32, the orbit number of every entry.
      size: (num_orbits,) int32, entries per orbit.
      representative: (num_orbits,) int32, flat position of each orbit's first entry.
    """

    group: Group | None
    index: np.ndarray
    size: np.ndarray
    representative: np.ndarray

    @property
    def num_orbits(self) -> int:
        """Number of orbits, the leading size of the tied parameter."""
        return len(self.size)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the full array that the table ties."""
        return self.index.shape


@functools.cache
def kernel_table(
    group: Group, kernel_size: tuple[int, ...], fiber_in: Fiber, fiber_out: Fiber
) -> OrbitTable:
    """Return the orbits of a group on taps x input fiber x output fiber.

    Args:
      group: the group that the layer must commute with.
      kernel_size: taps per spatial axis; even and non-square sizes are tied like any
        other, on taps at half-integer offsets.
      fiber_in: the fiber that the kernel reads.
      fiber_out: the fiber that the kernel writes.

    Returns:
      A table of shape (*kernel_size, fiber_in.size, fiber_out.size).

    Raises:
      ValueError: the group does not map the taps to themselves, or a fiber belongs to
        another ambient group.
    """
    _check_fibers(group, fiber_in, fiber_out)
    check_preserved(group, kernel_size, "kernel_size")
    elements = list(group.elements)
    actions = (
        _tap_action(group, kernel_size),
        fiber_in.action[elements],
        fiber_out.action[elements],
    )
    shape = (*kernel_size, fiber_in.size, fiber_out.size)
    return _orbits(group, actions, shape)


@functools.cache
def fiber_table(group: Group, fiber: Fiber) -> OrbitTable:
    """Return the orbits of a group on a fiber, a table of shape (fiber.size,)."""
    _check_fibers(group, fiber)
    return _orbits(group, (fiber.action[list(group.elements)],), (fiber.size,))


def check_preserved(group: Group, values: Sequence[int], what: str) -> None:
    """Raise unless every element of the group maps a per-axis setting to itself.

    The error names the largest subgroup for which the setting works.
    """
    if len(values) != group.dimension:
        raise ValueError(
            f"{what} needs one entry for each of the {group.dimension} axes that "
            f"{group!r} acts on, got {tuple(values)}"
        )
    allowed = preserving_subgroup(group, values)
    if allowed != group:
        raise ValueError(
            f"{what} {tuple(values)} is not mapped to itself by {group.name}; "
            f"the largest subgroup for which it works is {allowed.name}"
        )


def preserving_subgroup(group: Group, values: Sequence) -> Group:
    """Return the largest subgroup whose axis permutations keep per-axis values."""
    kept = []
    for element, matrix in zip(group.elements, group.matrices, strict=True):
        axes = np.argmax(np.abs(matrix), axis=1)
        if all(values[i] == values[j] for i, j in enumerate(axes)):
            kept.append(element)
    return group.generated_by(kept)


def _check_fibers(group: Group, *fibers: Fiber) -> None:
    for fiber in fibers:
        if fiber.ambient != group.ambient:
            raise ValueError(
                f"fiber of ambient group {fiber.ambient!r} does not fit a layer "
                f"over {group.ambient!r}"
            )


def _tap_action(group: Group, kernel_size: tuple[int, ...]) -> np.ndarray:
    """Return (group order, taps) integers: the tap that each tap is moved to."""
    extent = np.array(kernel_size)
    grid = np.stack(np.meshgrid(*map(np.arange, kernel_size), indexing="ij"), axis=-1)
    doubled = 2 * grid.reshape(-1, len(kernel_size)) - (extent - 1)
    moved = (np.einsum("uij,tj->uti", group.matrices, doubled) + extent - 1) // 2
    return np.ravel_multi_index(tuple(np.moveaxis(moved, -1, 0)), kernel_size)


def _orbits(
    group: Group, actions: tuple[np.ndarray, ...], shape: tuple[int, ...]
) -> OrbitTable:
    """Return the orbits on a product of sets, given (order, n_i) actions on each."""
    smallest = np.arange(math.prod(shape), dtype=np.int32)
    for permutations in zip(*actions, strict=True):
        moved = permutations[0].astype(np.int32)
        for permutation in permutations[1:]:
            moved = moved[:, None] * np.int32(len(permutation)) + permutation
            moved = moved.reshape(-1).astype(np.int32)
        np.minimum(smallest, moved, out=smallest)
    representative, index, size = np.unique(
        smallest, return_inverse=True, return_counts=True
    )
    return OrbitTable(
        group=group,
        index=index.reshape(shape).astype(np.int32),
        size=size.astype(np.int32),
        representative=representative.astype(np.int32),
    )
