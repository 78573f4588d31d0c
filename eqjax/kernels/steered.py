"""Tables that tie coefficients of filters along a group which turns the filters.

Where a filter between two fiber elements is a sum of functions with coefficients c, and
an element u turns it by a linear map R(u) of these, the kernel commutes with a group H
exactly when

    c(u h, u g) = R(u) c(h, g)    for all u in H.

So there is one vector of coefficients for every orbit of pairs of fiber elements, and
that of any other pair is turned by the element that carries the orbit's first one
there. With single taps for functions, which right angles permute, these are the orbit
tables (`eqjax.kernels.orbits`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from eqjax.fields.fiber import Fiber
from eqjax.fields.irreps import IrrepsFiber, representations
from eqjax.groups.group import Group
from eqjax.kernels.orbits import check_fibers, orbits_of
from eqjax.ops.precision import accurate


@dataclasses.dataclass(frozen=True, eq=False)
class SteeredTable:
    """One vector of coefficients for each orbit of pairs, turned along the orbit.

    Has the members of an `OrbitTable`; the full array is (functions, fiber_in,
    fiber_out). The arrays may be traced, as there. Parameters are in the order of
    orbits, then functions.

    Attributes:
      group: whose orbits these are; None where the table is data.
      functions: how coefficients transform.
      fibers: what is read and written.
      index: (fiber_in, fiber_out) int32, the orbit number of every pair.
      carrier: (fiber_in, fiber_out) int32, the ambient element that carries the orbit's
        first pair there.
      orbit_size: (orbits,) int32, pairs per orbit.
      representative: (orbits,) int32, flat position of each orbit's first pair.
    """

    PER_ORBIT: ClassVar[tuple[str, ...]] = ("orbit_size", "representative")
    PER_ENTRY: ClassVar[tuple[str, ...]] = ("index", "carrier")

    group: Group | None
    functions: IrrepsFiber
    fibers: tuple[Fiber, Fiber]
    index: Any
    carrier: Any
    orbit_size: Any
    representative: Any

    @property
    def num_orbits(self) -> int:
        """Number of coefficients, the leading size of the tied parameter."""
        return len(self.orbit_size) * self.functions.size

    @property
    def most(self) -> int:
        """The leading size of the parameter under the trivial group."""
        return self.index.size * self.functions.size

    @property
    def size(self) -> Any:
        """(num_orbits,) pairs per orbit, for every coefficient."""
        return self.orbit_size.repeat(self.functions.size)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the full array that the table ties."""
        return (self.functions.size, *self.index.shape)

    @property
    def arrays(self) -> dict[str, Any]:
        """The table as data."""
        return {n: getattr(self, n) for n in (*self.PER_ENTRY, *self.PER_ORBIT)}

    def of_data(self, arrays: Mapping[str, Any]) -> SteeredTable:
        """Return the table of the same array that is given as data."""
        return dataclasses.replace(self, group=None, **arrays)

    @property
    def cells(self) -> Any:
        """(entries,) numbers of the sets that the group mixes among themselves."""
        together = np.minimum(np.arange(self.functions.size), self._turns.partner)
        found = together[:, None] * self.index.size + self.index.reshape(-1)
        return found.reshape(-1)

    def same_as(self, other: Any) -> bool:
        """Tell whether another table has the same orbits of the same functions."""
        return (
            isinstance(other, SteeredTable)
            and self.functions == other.functions
            and np.array_equal(self.index, other.index)
            and np.array_equal(self.carrier, other.carrier)
        )

    def spread(self, values: Any, *, squares: bool = False) -> Any:
        """Return the full array of (num_orbits, *rest) coefficients.

        Args:
          values: of the orbits' first pairs.
          squares: they are squares of coefficients; so is what is returned, expected
            of coefficients without correlations.
        """
        rest = values.shape[1:]
        each = values.reshape(-1, self.functions.size, *rest)[self.index]
        turned = self._turns.turned(each, self.carrier, squares=squares)
        return jnp.moveaxis(turned, 2, 0)

    def mean(self, full: Any, *, squares: bool = False) -> Any:
        """Return (num_orbits, *rest), the mean over every orbit of a full array.

        Each pair is turned back to its orbit's first one; this is added to the mean of
        the deviations from it, as in `OrbitTable`.
        """
        rest = full.shape[3:]
        each = jnp.moveaxis(accurate(full), 0, 2)
        back = self._turns.turned(each, self.carrier, squares=squares, back=True)
        back = back.reshape(-1, *back.shape[2:])
        index = self.index.reshape(-1)
        first = back[self.representative]
        deviation = jnp.zeros_like(first).at[index].add(back - first[index])
        size = jnp.asarray(self.orbit_size.clip(1), first.dtype)
        mean = first + deviation / size.reshape(-1, *[1] * (first.ndim - 1))
        return mean.astype(full.dtype).reshape(-1, *rest)

    def drawn(self, full: Any) -> Any:
        """Return (num_orbits, *rest) of a random array, each of the size of entries."""
        each = jnp.moveaxis(full, 0, 2)
        first = each.reshape(-1, *each.shape[2:])[self.representative]
        return first.reshape(-1, *full.shape[3:])

    def moved(self, entries: Any, position: int) -> Any:
        """Return u . c for (..., entries, channels), u at a position of the group."""
        assert self.group is not None
        u = self.group.elements[position]
        back = self.group.ambient.inverse[u]
        *lead, _, channels = entries.shape
        full = entries.reshape(*lead, *self.shape, channels)
        for axis, fiber in zip((-3, -2), self.fibers, strict=True):
            full = full.take(fiber.action[back], axis=axis)
        turned = self._turns.one(full, u, axis=len(lead))
        return turned.reshape(entries.shape)

    def transformed(self, each: Any) -> Any:
        """Transform one array by each element u of the group, as `OrbitTable` does."""
        count = self.index.size * self.functions.size
        flat = each.reshape(len(each), count, -1)
        moved = [self.moved(own, i) for i, own in enumerate(flat)]
        kind = np if isinstance(each, np.ndarray) else jnp
        return kind.stack(moved).reshape(each.shape)

    @property
    def _turns(self) -> Turns:
        return turns(self.functions, self.fibers[0].ambient)


@dataclasses.dataclass(frozen=True, eq=False)
class Turns:
    """What every element of a group does to coefficients of one or two components.

    Attributes:
      own: (order, functions), the diagonal of R(u).
      other: (order, functions), its entry at the partner.
      partner: (functions,) the other component of the same harmonic, or the same one.
    """

    own: np.ndarray
    other: np.ndarray
    partner: np.ndarray

    def turned(
        self, each: Any, carrier: Any, *, squares: bool = False, back: bool = False
    ) -> Any:
        """Return R(u) of (..., functions, *rest) coefficients, u given for all of ...

        Args:
          each: the coefficients.
          carrier: (...) numbers of the elements.
          squares: take squares of the entries of R(u).
          back: take the inverse.
        """
        other = self.other[:, self.partner] if back else self.other
        factors = []
        for entries in (self.own, other):
            values = jnp.asarray(entries**2 if squares else entries, each.dtype)[
                carrier
            ]
            rest = each.ndim - values.ndim
            factors.append(values.reshape(*values.shape, *[1] * rest))
        crossed = jnp.take(each, self.partner, axis=np.ndim(carrier))
        return factors[0] * each + factors[1] * crossed

    def one(self, full: Any, u: int, *, axis: int) -> Any:
        """Return R(u) of coefficients along an axis, for one element."""
        shape = [-1] + [1] * (full.ndim - axis - 1)
        own, other = (
            values[u].astype(full.dtype).reshape(shape)
            for values in (self.own, self.other)
        )
        return own * full + other * full.take(self.partner, axis=axis)


@functools.lru_cache(maxsize=64)
def turns(functions: IrrepsFiber, ambient: Group) -> Turns:
    """Return what the elements of a planar group do to coefficients."""
    acting = representations(functions.irreps, ambient.matrices)
    partner = np.arange(functions.size, dtype=np.int32)
    begin = 0
    for copies, _, size in functions.blocks:
        if size == 2:
            pairs = np.arange(begin, begin + 2 * copies).reshape(-1, 2)
            partner[pairs] = pairs[:, ::-1]
        begin += copies * size
    every = np.arange(functions.size)
    other = np.where(partner == every, 0, acting[:, every, partner])
    return Turns(acting[:, every, every], other, partner)


@functools.lru_cache(maxsize=256)
def steered_table(
    group: Group, functions: IrrepsFiber, fiber_in: Fiber, fiber_out: Fiber
) -> SteeredTable | None:
    """Return the table of a group that acts on pairs of fiber elements.

    None where an element other than the identity keeps a pair, so that coefficients
    there are not free: `eqjax.kernels.intertwiners` has bases of these.

    Args:
      group: that the kernel commutes with.
      functions: how coefficients transform.
      fiber_in: the fiber that the kernel reads.
      fiber_out: the fiber that the kernel writes.

    Raises:
      ValueError: a fiber belongs to another ambient group.
    """
    check_fibers(group, fiber_in, fiber_out)
    elements = list(group.elements)
    actions = (fiber_in.action[elements], fiber_out.action[elements])
    table = orbits_of(group, actions, (fiber_in.size, fiber_out.size))
    if (table.size != group.order).any():
        return None
    first_in, first_out = np.divmod(table.representative, fiber_out.size)
    carrier = np.zeros(table.shape, np.int32)
    for u, on_in, on_out in zip(elements, *actions, strict=True):
        carrier[on_in[first_in], on_out[first_out]] = u
    return SteeredTable(
        group,
        functions,
        (fiber_in, fiber_out),
        table.index,
        carrier,
        table.size,
        table.representative,
    )
