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
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from eqjax.fields.fiber import Fiber
from eqjax.groups.axes import check_preserved
from eqjax.groups.group import Group, difference
from eqjax.ops.precision import accurate


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

    PER_ORBIT: ClassVar[tuple[str, ...]] = ("size", "representative")
    PER_ENTRY: ClassVar[tuple[str, ...]] = ("index",)

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
    def most(self) -> int:
        """The leading size of the parameter under the trivial group."""
        return self.index.size

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the full array that the table ties."""
        return self.index.shape

    @property
    def arrays(self) -> dict[str, Any]:
        """The table as data."""
        return {n: getattr(self, n) for n in (*self.PER_ENTRY, *self.PER_ORBIT)}

    def of_data(self, arrays: Mapping[str, Any]) -> OrbitTable:
        """Return the table of the same array that is given as data."""
        return dataclasses.replace(self, group=None, actions=(), **arrays)

    @functools.cached_property
    def sources(self) -> np.ndarray:
        """(order, entries) flat positions: where u . K reads each of its entries."""
        return np.stack([np.argsort(moved) for moved in _moved(self.actions)])

    @property
    def cells(self) -> Any:
        """(entries,) numbers of the sets that the group mixes among themselves."""
        return self.index.reshape(-1)

    def same_as(self, other: Any) -> bool:
        """Tell whether another table has the same orbits."""
        same = isinstance(other, OrbitTable)
        return same and np.array_equal(self.index, other.index)

    def spread(self, values: Any, *, squares: bool = False) -> Any:
        """Return the full array of (num_orbits, *rest) values of its entries."""
        del squares  # which move along orbits like anything else
        return _taken(values, self.index)

    def mean(self, full: Any, *, squares: bool = False) -> Any:
        """Return (num_orbits, *rest), the mean over every orbit of a full array.

        Taken as the representative plus the mean deviation from it, so that an array
        which is constant on the orbits is read out without any rounding.
        """
        del squares
        rest = full.shape[len(self.shape) :]
        index = self.index.reshape(-1)
        flat = accurate(full.reshape(index.size, *rest))
        first = flat[self.representative]
        deviation = jnp.zeros_like(first).at[index].add(flat - first[index])
        size = jnp.asarray(self.size.clip(1), first.dtype)
        mean = first + deviation / size.reshape(-1, *[1] * len(rest))
        return mean.astype(full.dtype)

    def drawn(self, full: Any) -> Any:
        """Return (num_orbits, *rest) of a random array, each of the size of entries."""
        rest = full.shape[len(self.shape) :]
        return full.reshape(-1, *rest)[self.representative]

    def moved(self, entries: Any, position: int) -> Any:
        """Return u . K for (..., entries, channels), u at a position of the group."""
        return entries[..., self.sources[position], :]

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


@jax.jit
def _taken(values: jax.Array, index: jax.Array) -> jax.Array:
    return values[index]  # one program, where it is not part of another


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
    check_fibers(group, fiber_in, fiber_out)
    check_exact(group)
    check_preserved(group, kernel_size, "kernel_size")
    actions = _kernel_actions(group, kernel_size, fiber_in, fiber_out)
    shape = (*kernel_size, fiber_in.size, fiber_out.size)
    return orbits_of(group, actions, shape)


@functools.cache
def fiber_table(group: Group, fiber: Fiber) -> OrbitTable:
    """Return the orbits of a group on a fiber, a table of shape (fiber.size,)."""
    check_fibers(group, fiber)
    return orbits_of(group, (fiber.action[list(group.elements)],), (fiber.size,))


def check_fibers(group: Group, *fibers: Any) -> None:
    """Raise unless a group acts on fibers; on those of irreps, every one does."""
    for fiber in fibers:
        if isinstance(fiber, Fiber) and fiber.ambient != group.ambient:
            raise ValueError(
                f"fiber of ambient group {fiber.ambient!r} does not fit a layer "
                f"over {group.ambient!r}{difference(fiber.ambient, group.ambient)}"
            )


def check_exact(group: Group) -> None:
    """Raise unless every element of a group moves pixels onto pixels."""
    if not all(group.exact):
        names = zip(group.element_names, group.exact, strict=True)
        raise ValueError(
            f"{group!r} holds elements that move pixels between pixels, such as a "
            f"{next(name for name, kept in names if not kept)}; a kernel of single "
            f"taps takes {group.exact_subgroup!r}, and one of eq.CircularHarmonics() "
            "any of the plane"
        )


def tap_offsets(kernel_size: tuple[int, ...]) -> np.ndarray:
    """Return (taps, axes) integers, twice the offset of every tap from the centre."""
    if not kernel_size:
        return np.zeros((1, 3), np.int64)
    extent = np.array(kernel_size)
    grid = np.stack(np.meshgrid(*map(np.arange, kernel_size), indexing="ij"), axis=-1)
    return 2 * grid.reshape(-1, len(kernel_size)) - (extent - 1)


def tap_permutations(matrices: np.ndarray, kernel_size: tuple[int, ...]) -> np.ndarray:
    """Return (order, taps) integers: the tap that each tap is moved to."""
    if not kernel_size:
        return np.zeros((len(matrices), 1), np.int64)
    extent = np.array(kernel_size)
    moved = np.einsum("uij,tj->uti", matrices, tap_offsets(kernel_size))
    moved = (moved + extent - 1) // 2
    return np.ravel_multi_index(tuple(np.moveaxis(moved, -1, 0)), kernel_size)


def _kernel_actions(
    group: Group, kernel_size: tuple[int, ...], fiber_in: Fiber, fiber_out: Fiber
) -> tuple[np.ndarray, ...]:
    elements = list(group.elements)
    return (
        tap_permutations(group.matrices, kernel_size),
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


def orbits_of(
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
