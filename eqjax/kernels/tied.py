"""Tied parameters and the full arrays they stand for: pure functions of both.

A tied parameter holds one entry per orbit of a table; the full array K repeats it
along the orbits. (Where a group turns fibers and does not permute them, there are
coordinates in a basis in the place of orbits: `eqjax.kernels.intertwiners`.) Two
parametrizations of the same space:

    tied:         K = kernel[index]
    orthonormal:  K = kernel[index] / sqrt(size[index])

In the orthonormal one the map from parameter to K keeps lengths, so that a plain
gradient step is the projected gradient step on K.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact

from eqjax.fields.fiber import Fiber
from eqjax.groups.axes import check_preserved
from eqjax.groups.closed import Symmetry
from eqjax.groups.group import Group
from eqjax.kernels.bases import Representation
from eqjax.kernels.harmonics import CircularHarmonics
from eqjax.kernels.intertwiners import IntertwinerTable, intertwiner_table
from eqjax.kernels.orbits import OrbitTable, fiber_table, kernel_table
from eqjax.kernels.steered import SteeredTable, steered_table
from eqjax.ops.precision import accurate, norm

Numbered = OrbitTable | SteeredTable  # by integers, so that the group may be data
Table = Numbered | IntertwinerTable  # which arrays commute, in one of three forms
Parametrization = Literal["tied", "orthonormal"]
PARAMETRIZATIONS = ("tied", "orthonormal")
Initializer = Callable[..., Array]


def commuting(
    group: Symmetry,
    kernel_size: tuple[int, ...],
    *fibers: Representation,
    basis: CircularHarmonics | None = None,
    rings: int | None = None,
) -> Table:
    """Return which full arrays over taps and fibers commute with a group.

    Args:
      group: that permutes fibers, or turns them.
      kernel_size: taps per axis; () for arrays that belong to one field, as a bias.
      *fibers: of what a kernel reads and writes; of a bias, the one that it is in.
      basis: of which the kernel has coefficients in the place of taps.
      rings: how many radial functions kernels have for a group of infinite order; one
        per distance of taps if None.

    Raises:
      ValueError: the group does not map the taps to themselves, or a fiber belongs to
        another ambient group.
    """
    permuted = [fiber for fiber in fibers if isinstance(fiber, Fiber)]
    if permuted and not isinstance(group, Group):
        raise ValueError(
            f"{group!r} acts on irreps alone; fields over the elements of a group need "
            "a Group, such as eq.full_octahedral()"
        )
    if basis is not None:
        functions = basis.fiber(square(kernel_size))
        if len(permuted) == len(fibers) and isinstance(group, Group):
            free = steered_table(group, functions, *permuted)
            if free is not None:
                return free
        return intertwiner_table(group, (), functions, *fibers)
    if len(permuted) < len(fibers) or not isinstance(group, Group):
        if kernel_size:
            check_preserved(group, kernel_size, "kernel_size")
        return intertwiner_table(group, kernel_size, *fibers, rings=rings)
    if len(fibers) == 1:
        return fiber_table(group, *permuted)
    return kernel_table(group, kernel_size, *permuted)


def square(kernel_size: tuple[int, ...]) -> int:
    """Return the one size of a square kernel in the plane."""
    if len(kernel_size) != 2 or len(set(kernel_size)) != 1:
        raise ValueError(
            "circular harmonics are sampled on as many rows as columns, got a kernel "
            f"of {kernel_size}"
        )
    return kernel_size[0]


@dataclasses.dataclass(frozen=True)
class Tie:
    """How one parameter of a layer stands for a full array.

    Attributes:
      table: the orbits along which the full array is constant.
      parametrization: "tied" or "orthonormal".
      maps: the full array maps one field to another, as a kernel does, with axes
        (*taps, fiber_in, fiber_out, c_in, c_out); else it belongs to one field, as a
        bias or a scale.
    """

    table: Table
    parametrization: str = "tied"
    maps: bool = False

    def __post_init__(self):
        """Reject unknown parametrizations."""
        if self.parametrization not in PARAMETRIZATIONS:
            raise ValueError(
                f"parametrization must be one of {', '.join(PARAMETRIZATIONS)}, got "
                f"{self.parametrization!r}"
            )

    @property
    def orbits(self) -> OrbitTable:
        """The table, where it is one of orbits.

        Raises:
          ValueError: the group turns fibers or filters, and does not permute entries.
        """
        if isinstance(self.table, SteeredTable):
            raise ValueError(
                "expected a kernel of single taps, got coefficients of circular "
                "harmonics, which are turned along orbits; basis='pixels' has taps, "
                "over a group of right angles"
            )
        if not isinstance(self.table, OrbitTable):
            raise ValueError(
                "expected fibers that the group permutes, such as eq.regular(group), "
                "got irreps: there are no orbits of entries"
            )
        return self.table

    @property
    def numbered(self) -> Numbered:
        """The table, where it is one of integers, which may be data.

        Raises:
          ValueError: the group turns fibers and does not permute them.
        """
        if isinstance(self.table, IntertwinerTable):
            return self.orbits  # which says what was expected
        return self.table

    @property
    def size(self) -> np.ndarray | Array:
        """(num_orbits,) entries per orbit, one for those that only pad the table."""
        return self.table.size.clip(1)

    @property
    def unit(self) -> np.ndarray | Array:
        """(num_orbits,) value of a full entry when its parameter is one."""
        if self.parametrization == "tied":
            return np.ones(self.table.num_orbits)
        return self.size**-0.5


def expand(kernel: Inexact[Array, "orbits ..."], tie: Tie) -> Inexact[Array, "..."]:
    """Return the full array K of shape (*table.shape, *rest) for a tied parameter."""
    if tie.parametrization == "orthonormal":
        kernel = kernel * _per_orbit(tie.unit, kernel)
    return tie.table.spread(kernel)


def project(full: Inexact[Array, "..."], tie: Tie) -> Inexact[Array, "orbits ..."]:
    """Return the parameter of the nearest tied array, the orbit average of K.

    Args:
      full: (*table.shape, *rest).
      tie: how the parameter stands for a full array.

    Returns:
      (num_orbits, *rest); `expand` of it is the Reynolds projection of K.
    """
    mean = accurate(tie.table.mean(accurate(full)))
    if tie.parametrization == "orthonormal":
        mean = mean / _per_orbit(tie.unit, mean)
    return cleared(mean.astype(full.dtype), tie.table)


def reynolds(full: Inexact[Array, "..."], table: Table) -> Inexact[Array, "..."]:
    """Project K onto the arrays that are constant on the orbits of a table."""
    tie = Tie(table)
    return expand(project(full, tie), tie)


def weighted_sum(
    full: Inexact[Array, "..."], table: Table, weights: Inexact[Array, " order"]
) -> Inexact[Array, "..."]:
    """Return sum_u weights[u] u . K over the elements of the table's group."""
    each = jnp.broadcast_to(full, (len(weights), *full.shape))
    moved = table.transformed(each)
    return jnp.tensordot(weights.astype(full.dtype), moved, 1, precision="highest")


def distance(full: Inexact[Array, "..."], table: Table) -> Inexact[Array, ""]:
    """Return |K - P K| / |K|, with P the Reynolds projection; zero for K = 0."""
    full = accurate(full)
    size = norm(full)
    return norm(full - reynolds(full, table)) / jnp.where(size == 0, 1, size)


def convolution_layout(
    full: Inexact[Array, "... fiber_in fiber_out c_in c_out"], feature_groups: int = 1
) -> Inexact[Array, "... real_in real_out"]:
    """Lay a full kernel out as a dense convolution over real channels expects it.

    Args:
      full: (*taps, fiber_in, fiber_out, c_in / feature_groups, c_out).
      feature_groups: channels are split into so many groups, each of which holds all
        fiber elements.

    Returns:
      (*taps, fiber_in * c_in / feature_groups, fiber_out * c_out), real output
      channels ordered by feature group, fiber element, channel.
    """
    *taps, fiber_in, fiber_out, c_in, c_out = full.shape
    split = full.reshape(
        *taps, fiber_in, fiber_out, c_in, feature_groups, c_out // feature_groups
    )
    n = len(taps)
    ordered = split.transpose(*range(n), n, n + 2, n + 3, n + 1, n + 4)
    return ordered.reshape(*taps, fiber_in * c_in, fiber_out * c_out)


def tied_initializer(init: Initializer, tie: Tie) -> Initializer:
    """Make any initializer of full arrays draw a tied parameter instead.

    The full array is drawn and read at the representatives, so a fan-in is that of the
    full kernel and every group starts with the same output variance.

    Args:
      init: (key, shape, dtype) -> array. For kernels the shape is that of a dense
        convolution, (*taps, fiber_in * c_in, fiber_out * c_out); for a bias, scale or
        offset it is (fiber, channels).
      tie: the tie of the parameter.

    Returns:
      (key, (num_orbits, *rest), dtype) -> array of that shape, in the box that the
      initializer puts its arrays into, if any.
    """
    table = tie.table

    def initialize(key, shape, dtype=jnp.float32):
        rest = tuple(shape[1:])
        if len(rest) == 1:
            drawn = init(key, (*table.shape, *rest), dtype)
            full = nn.meta.unbox(drawn)
        else:
            *taps, fiber_in, fiber_out = table.shape
            c_in, c_out = rest
            drawn = init(key, (*taps, fiber_in * c_in, fiber_out * c_out), dtype)
            full = nn.meta.unbox(drawn)
            full = full.reshape(*taps, fiber_in, c_in, fiber_out, c_out)
            full = jnp.swapaxes(full, -3, -2)
        entries = table.drawn(full)
        entries = (entries / _per_orbit(tie.unit, entries)).astype(dtype)
        return _boxed_as(drawn, cleared(entries, table))

    return initialize


def _boxed_as(drawn: Any, entries: jax.Array) -> Any:
    """Put entries into the box that an initializer returned, such as `nn.Partitioned`.

    Names of axes are those of Flax's layers, (*taps, in, out) or (features,); the tied
    axis in the place of taps and fibers has none.
    """
    if not isinstance(drawn, nn.meta.AxisMetadata):
        return entries
    if isinstance(drawn, nn.Partitioned) and len(drawn.names) != entries.ndim:
        kept = drawn.names[len(drawn.names) - (entries.ndim - 1) :]
        drawn = drawn.replace(names=(None, *kept))
    return drawn.replace_boxed(entries)


def identity_kernel(shape: tuple[int, ...]) -> np.ndarray:
    """Return the full kernel that leaves a field as it is.

    Args:
      shape: (*taps, fiber_in, fiber_out, c_in, c_out).

    Raises:
      ValueError: a kernel of this shape cannot be the identity.
    """
    *taps, fiber_in, fiber_out, c_in, c_out = shape
    if fiber_in != fiber_out or c_in != c_out or any(k % 2 == 0 for k in taps):
        raise ValueError(
            "the identity needs as many channels and fiber elements out as in and odd "
            f"taps, got {c_in} -> {c_out} channels, {fiber_in} -> {fiber_out} fiber "
            f"elements and taps {tuple(taps)}"
        )
    kernel = np.zeros(shape, np.float32)
    center = tuple(k // 2 for k in taps)
    kernel[center] = np.einsum("hg,io->hgio", np.eye(fiber_in), np.eye(c_in))
    return kernel


def cleared(entries: jax.Array, table: Table) -> jax.Array:
    """Set the entries of empty orbits to zero."""
    if table.group is not None:
        return entries
    used = (table.size > 0).reshape(-1, *[1] * (entries.ndim - 1))
    return jnp.where(used, entries, 0)


def _per_orbit(values: np.ndarray | Array, like: jax.Array) -> jax.Array:
    """Shape (num_orbits,) values to multiply a (num_orbits, *rest) array."""
    return jnp.asarray(values, like.dtype).reshape(-1, *[1] * (like.ndim - 1))
