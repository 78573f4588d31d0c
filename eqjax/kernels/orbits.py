"""Orbit tables, which tie the entries of a kernel along a group.

A full kernel K(y, h, g), with y the offset of a tap (input minus output position), h
the fiber element it reads and g the one it writes, commutes with every u of a group H
exactly when

    K(u y, u h, u g) = K(y, h, g)    for all u in H,

so the constraint is one integer per entry: the number of its orbit under H.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from eqjax.fields.fiber import Fiber
from eqjax.groups.axes import check_preserved
from eqjax.groups.group import Group, difference


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
      actions: (order, n_i) integers per factor of the set: where each element of the
        group moves each of its points; empty where the table is data.
    """

    group: Group | None
    index: Any  # numpy or JAX arrays
    size: Any
    representative: Any
    actions: tuple[np.ndarray, ...] = dataclasses.field(default=(), repr=False)

    @property
    def num_orbits(self) -> int:
        """Number of orbits, the leading size of the tied parameter."""
        return len(self.size)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the full array that the table ties."""
        return self.index.shape

    @functools.cached_property
    def sources(self) -> np.ndarray:
        """(order, entries) flat positions: where u . K reads each of its entries."""
        return np.stack([np.argsort(moved) for moved in _moved(self.actions)])

    def transformed(self, each: Any) -> Any:
        """Transform one array by each element u of the group: K_u(u^-1 entry).

        Args:
          each: (order, *shape, *rest), the array that each element transforms.

        Returns:
          An array of the same shape.
        """
        sources = self.sources
        flat = each.reshape(*sources.shape, *each.shape[1 + len(self.shape) :])
        return flat[np.arange(len(sources))[:, None], sources].reshape(each.shape)


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
    actions = _kernel_actions(group, kernel_size, fiber_in, fiber_out)
    shape = (*kernel_size, fiber_in.size, fiber_out.size)
    return _orbits(group, actions, shape)


@functools.cache
def fiber_table(group: Group, fiber: Fiber) -> OrbitTable:
    """Return the orbits of a group on a fiber, a table of shape (fiber.size,)."""
    _check_fibers(group, fiber)
    return _orbits(group, (fiber.action[list(group.elements)],), (fiber.size,))


def _check_fibers(group: Group, *fibers: Fiber) -> None:
    for fiber in fibers:
        if fiber.ambient != group.ambient:
            raise ValueError(
                f"fiber of ambient group {fiber.ambient!r} does not fit a layer "
                f"over {group.ambient!r}{difference(fiber.ambient, group.ambient)}"
            )


def _tap_action(group: Group, kernel_size: tuple[int, ...]) -> np.ndarray:
    """Return (group order, taps) integers: the tap that each tap is moved to."""
    extent = np.array(kernel_size)
    grid = np.stack(np.meshgrid(*map(np.arange, kernel_size), indexing="ij"), axis=-1)
    doubled = 2 * grid.reshape(-1, len(kernel_size)) - (extent - 1)
    moved = (np.einsum("uij,tj->uti", group.matrices, doubled) + extent - 1) // 2
    return np.ravel_multi_index(tuple(np.moveaxis(moved, -1, 0)), kernel_size)


def _kernel_actions(
    group: Group, kernel_size: tuple[int, ...], fiber_in: Fiber, fiber_out: Fiber
) -> tuple[np.ndarray, ...]:
    elements = list(group.elements)
    return (
        _tap_action(group, kernel_size),
        fiber_in.action[elements],
        fiber_out.action[elements],
    )


def _moved(actions: tuple[np.ndarray, ...]) -> Iterator[np.ndarray]:
    """Yield the flat positions that each element moves a product of sets to."""
    for permutations in zip(*actions, strict=True):
        moved = permutations[0].astype(np.int32)
        for permutation in permutations[1:]:
            moved = moved[:, None] * np.int32(len(permutation)) + permutation
            moved = moved.reshape(-1).astype(np.int32)
        yield moved


def _orbits(
    group: Group, actions: tuple[np.ndarray, ...], shape: tuple[int, ...]
) -> OrbitTable:
    """Return the orbits on a product of sets, given (order, n_i) actions on each."""
    smallest = np.arange(math.prod(shape), dtype=np.int32)
    for moved in _moved(actions):
        np.minimum(smallest, moved, out=smallest)
    representative, index, size = np.unique(
        smallest, return_inverse=True, return_counts=True
    )
    return OrbitTable(
        group=group,
        index=index.reshape(shape).astype(np.int32),
        size=size.astype(np.int32),
        representative=representative.astype(np.int32),
        actions=actions,
    )
