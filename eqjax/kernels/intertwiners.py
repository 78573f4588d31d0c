"""Bases of the kernels that commute with a group, where a fiber is turned by it.

Where fibers are representations, a kernel K(y), a matrix from what it reads to what it
writes for every tap y, commutes with every u of a group H exactly when

    K(u y) = rho_in(u) K(y) rho_out(u)^-1    for all u in H,

with rho_in on the rows. For permutation matrices these are the orbit tables. In general
K is known by one tap y0 of every orbit of taps, where it commutes with the elements
that keep y0, and is carried from there to the others. So the parameter holds
coordinates in an orthonormal basis: for every orbit of taps and every pair of irreps,
of the matrices at y0 that commute. To go from a group to a smaller one is a product
with two such bases.

Groups of infinite order move taps off the grid. Their kernels are functions of space,
sampled on the taps: spherical harmonics Y_l(y), times radial functions of |y| (both of
e3nn-jax), times tensors that are invariant under the group in l x rho_in x rho_out
(Weiler et al. 2018, 3D steerable CNNs). They lie within what the finite subgroups
allow, so that these relaxations are exact too.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from eqjax.groups.closed import Symmetry, finite_matrices
from eqjax.groups.group import Group
from eqjax.kernels.bases import Representation, bases, blocks, matrices_of, sizes
from eqjax.kernels.orbits import check_fibers, tap_permutations
from eqjax.ops.precision import accurate


@dataclasses.dataclass(frozen=True, eq=False)
class Cells:
    """Sets of entries that the group mixes among themselves, with one shape of basis.

    Attributes:
      entries: (bases, copies, e) flat positions in the full array.
      basis: (bases, e, n), with orthonormal columns.
      first: number of their first parameter; those of (bases, copies, n) follow.
    """

    entries: np.ndarray
    basis: np.ndarray
    first: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Bases, copies and coordinates in each."""
        return (*self.entries.shape[:2], self.basis.shape[-1])

    @property
    def parameters(self) -> slice:
        """Where their parameters are."""
        return slice(self.first, self.first + math.prod(self.shape))


@dataclasses.dataclass(frozen=True, eq=False)
class IntertwinerTable:
    """An orthonormal basis of the full arrays that commute with a group.

    Has the members of an `OrbitTable` that say which full arrays a parameter stands
    for. What an orbit's size is there, the number of entries that a coordinate spreads
    over is here, so that parameters are of the size of entries of K in either.

    Attributes:
      group: that the arrays commute with.
      shape: of the full array.
      stacks: the bases.
      fibers: that the last axes of the array belong to.
    """

    group: Symmetry
    shape: tuple[int, ...]
    stacks: tuple[Cells, ...]
    fibers: tuple[Representation, ...]

    @functools.cached_property
    def num_orbits(self) -> int:
        """Number of coordinates, the leading size of the parameter."""
        return sum(math.prod(each.shape) for each in self.stacks)

    @functools.cached_property
    def size(self) -> np.ndarray:
        """(num_orbits,) over how many entries of its cell a coordinate spreads.

        By the fourth powers of its basis array; together as many as the cell has.
        """
        found = [np.zeros(0)]
        for each in self.stacks:
            spread = 1 / (each.basis**4).sum(1)
            share = spread / spread.sum(1, keepdims=True)
            size = np.broadcast_to((each.basis.shape[1] * share)[:, None], each.shape)
            found.append(size.reshape(-1))
        return np.concatenate(found)

    @functools.cached_property
    def cells(self) -> np.ndarray:
        """(entries,) numbers of the sets that the group mixes among themselves."""
        found = np.full(math.prod(self.shape), -1)
        number = 0
        for each in self.stacks:
            flat = each.entries.reshape(-1, each.entries.shape[-1])
            found[flat] = number + np.arange(len(flat))[:, None]
            number += len(flat)
        return np.where(found < 0, number, found)  # nothing that commutes in the rest

    def same_as(self, other: Any) -> bool:
        """Tell whether another table stands for the same arrays in the same way."""
        return (
            isinstance(other, IntertwinerTable)
            and self.group == other.group
            and self.shape == other.shape
            and self.fibers == other.fibers
        )

    def spread(self, values: Any, *, squares: bool = False) -> Any:
        """Return the full array of parameters that are of the size of its entries.

        Args:
          values: (num_orbits, *rest), as a numpy or a JAX array, as is returned.
          squares: of squares of parameters, the expected squares of entries.
        """
        rest = values.shape[1:]
        scale = self.size if squares else np.sqrt(self.size)
        values = values * _rows(scale, values)
        kind = _numbers(values)
        parts = [kind.zeros((1, *rest), values.dtype)]  # for entries of no cell
        for each in self.stacks:
            own = values[each.parameters].reshape(*each.shape, *rest)
            found = _product("oen,ocn...->oce...", each, squares, own)
            parts.append(found.reshape(-1, *rest))
        return kind.concatenate(parts)[self._places].reshape(*self.shape, *rest)

    def mean(self, full: Any, *, squares: bool = False) -> Any:
        """Return the parameters of the nearest array that commutes.

        Args:
          full: (*shape, *rest).
          squares: of expected squares of entries, those of parameters.
        """
        rest = full.shape[len(self.shape) :]
        kind = _numbers(full)
        flat = (full if kind is np else accurate(full)).reshape(-1, *rest)
        parts = [kind.zeros((0, *rest), flat.dtype)]
        for each in self.stacks:
            found = _product("oen,oce...->ocn...", each, squares, flat[each.entries])
            parts.append(found.reshape(-1, *rest))
        found = kind.concatenate(parts)
        if not squares:
            found = found / _rows(np.sqrt(self.size), found)
        return found.astype(full.dtype)

    def drawn(self, full: Any) -> Any:
        """Return (num_orbits, *rest) of a random array, each of the size of entries.

        An entry of the spread array then has the variance of one of the given.
        """
        mean = self.mean(full)
        return mean * _rows(np.sqrt(self.size), mean)

    @functools.cached_property
    def _places(self) -> np.ndarray:
        """(entries,) where `spread` has every entry; 0 where there is none."""
        found = np.zeros(math.prod(self.shape), np.int32)
        begin = 1
        for each in self.stacks:
            count = each.entries.size
            found[each.entries.reshape(-1)] = np.arange(begin, begin + count)
            begin += count
        return found

    def moved(self, entries: Any, position: int) -> Any:
        """Return u . K, for the element u at a position of the group.

        Args:
          entries: (..., entries, channels), as a numpy or a JAX array.
          position: of u among the elements.
        """
        taps, matrices = self._actions
        *sizes, channels = entries.shape
        factors = [each[position] for each in matrices]
        inner = [len(each) for each in factors]
        full = entries.reshape(*sizes[:-1], -1, *inner, channels)
        full = full.take(np.argsort(taps[position]), axis=len(sizes) - 1)
        for axis, matrix in enumerate(factors, start=len(sizes)):
            kind = _numbers(full)
            turned = kind.tensordot(full, matrix.astype(full.dtype), [[axis], [1]])
            full = kind.moveaxis(turned, -1, axis)
        return full.reshape(entries.shape)

    def transformed(self, each: Any) -> Any:
        """Transform one array by each element u of the group, as `OrbitTable` does."""
        count = math.prod(self.shape)
        flat = each.reshape(len(each), count, -1)
        moved = [self.moved(own, i) for i, own in enumerate(flat)]
        return _numbers(each).stack(moved).reshape(each.shape)

    @functools.cached_property
    def _actions(self) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """(order, taps) permutations, and (order, size, size) for every fiber."""
        matrices = finite_matrices(self.group)
        if matrices is None:
            raise ValueError(f"{self.group!r} moves taps off the grid")
        taps = self.shape[: len(self.shape) - len(self.fibers)]
        turned = [matrices_of(fiber, matrices) for fiber in self.fibers]
        return tap_permutations(matrices, taps), tuple(turned)


def _numbers(array: Any) -> Any:
    """Return numpy or jax.numpy, as an array belongs to."""
    return np if isinstance(array, np.ndarray) else jnp


def _product(subscripts: str, each: Cells, squares: bool, own: Any) -> Any:
    basis = (each.basis**2 if squares else each.basis).astype(own.dtype)
    if isinstance(own, np.ndarray):
        return np.einsum(subscripts, basis, own)
    return jnp.einsum(subscripts, basis, own, precision="highest")


def _rows(values: np.ndarray, like: Any) -> np.ndarray:
    return values.astype(like.dtype).reshape(-1, *[1] * (like.ndim - 1))


@functools.lru_cache(maxsize=512)
def intertwiner_table(
    group: Symmetry,
    kernel_size: tuple[int, ...],
    *fibers: Representation,
    rings: int | None = None,
) -> IntertwinerTable:
    """Return a basis of the arrays over taps and fibers that commute with a group.

    Args:
      group: subgroup of O(3), or one that acts on a plane or a line.
      kernel_size: taps per axis; () for arrays that belong to a field, as a bias.
      *fibers: of what a kernel reads and writes; of a bias, the one that it is in.
      rings: how many radial functions a group of infinite order has; one per distance
        of taps if None.

    Raises:
      ValueError: as `kernel_table`.
    """
    if isinstance(group, Group):
        check_fibers(group, *fibers)
    shape = (*kernel_size, *(fiber.size for fiber in fibers))
    positions = np.arange(math.prod(shape)).reshape(-1, *shape[len(kernel_size) :])
    found: dict[tuple[int, ...], list[tuple[np.ndarray, np.ndarray]]] = {}
    for kinds, places in blocks(fibers):
        inside = np.stack([each[places] for each in positions])
        inside = inside.reshape(len(inside), -1, *sizes(kinds)).astype(np.int32)
        for taps, basis in bases(group, kernel_size, kinds, rings):
            if basis.shape[1]:
                entries = np.moveaxis(inside[taps], 1, 0)
                entries = entries.reshape(len(entries), -1)
                key = (len(entries), *basis.shape)
                found.setdefault(key, []).append((entries, basis))
    stacks = []
    first = 0
    for own in found.values():
        entries, basis = (np.stack(each) for each in zip(*own, strict=True))
        stacks.append(Cells(entries, basis, first))
        first = stacks[-1].parameters.stop
    return IntertwinerTable(group, shape, tuple(stacks), fibers)
