"""Pooling over space and over the fiber, up-sampling, and dropout by field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from eqjax import kernels
from eqjax.fields.fiber import regular
from eqjax.groups.group import Group
from eqjax.kernels.orbits import fiber_table
from eqjax.kernels.tied import Tie
from eqjax.ops.windows import Padding, window


def avg_pool(
    x: jax.Array,
    window_shape: int | Sequence[int],
    strides: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    *,
    count_include_pad: bool = True,
) -> jax.Array:
    """Average a field over windows in space, as `flax.linen.avg_pool`.

    Args:
      x: (batch, *space, fiber, channels).
      window_shape: points per spatial axis, or one integer for all axes.
      strides: one per spatial axis, or one integer for all axes.
      padding: "SAME", "VALID", an integer, or one integer or (low, high) pair per axis.
      count_include_pad: divide by the size of the window at the border too.

    Returns:
      (batch, *space_out, fiber, channels). What a choice of window commutes with:
      `eq.window((28, 28), 3, 2, 1).symmetry(D4)`.
    """
    return _spatially(nn.avg_pool, x, window_shape, strides, padding, count_include_pad)


def max_pool(
    x: jax.Array,
    window_shape: int | Sequence[int],
    strides: int | Sequence[int] = 1,
    padding: Padding = "VALID",
) -> jax.Array:
    """Take the maximum of a field over windows in space; arguments as `avg_pool`."""
    return _spatially(nn.max_pool, x, window_shape, strides, padding)


def _spatially(pool, x: jax.Array, window_shape, strides, padding, *settings):
    *lead, fiber, channels = x.shape
    if padding == "CIRCULAR":
        raise ValueError("pooling pads with SAME, VALID or integers, got 'CIRCULAR'")
    w = window(lead[1:], window_shape, strides, padding)
    merged = x.reshape(*lead, fiber * channels)
    y = pool(merged, w.taps, w.strides, w.padding, *settings)
    return y.reshape(*y.shape[:-1], fiber, channels)


def fiber_pool(
    x: jax.Array, *, group: Group, reduce: Literal["mean", "max"] = "mean"
) -> jax.Array:
    """Reduce a regular field to the invariants of a subgroup.

    Values are pooled along the orbits H g of the subgroup H on the fiber, so every
    element u of H acts on the result as on an image: (u . f)(p, Hg) = f(u^-1 p, Hg).

    Args:
      x: (batch, *space, |ambient|, channels).
      group: the subgroup H whose invariants are kept; the ambient group for one value.
      reduce: "mean" or "max".

    Returns:
      (batch, *space, |ambient| / |H|, channels).
    """
    if reduce not in ("mean", "max"):
        raise ValueError(f"reduce must be 'mean' or 'max', got {reduce!r}")
    table = fiber_table(group, regular(group))
    if x.ndim < 3 or x.shape[-2] != len(table.index):
        raise ValueError(
            f"expected a field (batch, *space, {len(table.index)}, channels), got "
            f"shape {x.shape}"
        )
    along = jnp.moveaxis(x, -2, 0)
    if reduce == "mean":
        pooled = kernels.project(along, Tie(table))
    else:
        pooled = jax.ops.segment_max(along, table.index, table.num_orbits)
    return jnp.moveaxis(pooled, 0, -2)


def upsample(
    x: jax.Array, factor: int, *, method: Literal["nearest", "linear"] = "nearest"
) -> jax.Array:
    """Refine the grid of a field by an integer factor along every spatial axis.

    Args:
      x: (batch, *space, fiber, channels).
      factor: new points per old point.
      method: "nearest" repeats, "linear" interpolates; both keep every symmetry of
        the grid.

    Returns:
      (batch, *(factor * space), fiber, channels).
    """
    if method not in ("nearest", "linear"):
        raise ValueError(f"method must be 'nearest' or 'linear', got {method!r}")
    if not isinstance(factor, int) or factor < 1:
        raise ValueError(f"factor must be a positive integer, got {factor}")
    space = tuple(factor * n for n in x.shape[1:-2])
    return jax.image.resize(x, (x.shape[0], *space, *x.shape[-2:]), method)


class FieldDropout(nn.Module):
    """Drop whole channels of a field: all points and fiber elements at once.

    Attributes:
      rate: probability of dropping a channel.
      deterministic: keep everything; here or in the call.
    """

    rate: float
    deterministic: bool | None = None

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool | None = None) -> jax.Array:
        """Drop channels of a field (batch, *space, fiber, channels)."""
        together = tuple(range(1, x.ndim - 1))
        drop = nn.Dropout(self.rate, together, self.deterministic)
        return drop(x, deterministic=deterministic)
