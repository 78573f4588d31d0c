"""Pooling over space and over the fiber, up-sampling, and dropout by field."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from eqjax.fields.fiber import quotient, regular
from eqjax.groups.checks import check_array, check_choice, check_group, check_number
from eqjax.groups.group import Group
from eqjax.kernels.orbits import fiber_table
from eqjax.ops.precision import accurate, mean, mean_dtype
from eqjax.ops.windows import Padding, per_axis, window


def avg_pool(
    x: jax.Array,
    window_shape: int | Sequence[int],
    strides: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    *,
    count_include_pad: bool = True,
) -> jax.Array:
    """Average a field or an image over windows in space, as `flax.linen.avg_pool`.

    Args:
      x: a field (batch, *space, fiber, channels); or an image (batch, *space, channels)
        whose last spatial axis cannot be a fiber, with one integer per axis.
      window_shape: points per spatial axis, or one integer for all axes of a field.
      strides: one per spatial axis, or one integer for all axes.
      padding: "SAME", "VALID", an integer, or one integer or (low, high) pair per axis.
      count_include_pad: divide by the size of the window at the border too.

    Returns:
      (batch, *space_out, fiber, channels), averaged in at least float32. What a choice
      of window commutes with: `eq.window((28, 28), 3, 2, 1).symmetry(D4)`.

    Raises:
      ValueError: x has no fiber axis, or the window does not fit into it.

    >>> avg_pool(jnp.ones((2, 6, 6, 8, 3)), 2, 2).shape
    (2, 3, 3, 8, 3)
    """
    settings = {"count_include_pad": count_include_pad}
    check_array("x", x)
    pooled = _spatially(
        nn.avg_pool, accurate(x), window_shape, strides, padding, **settings
    )
    return pooled.astype(mean_dtype(x))


def max_pool(
    x: jax.Array,
    window_shape: int | Sequence[int],
    strides: int | Sequence[int] = 1,
    padding: Padding = "VALID",
) -> jax.Array:
    """Take the maximum over windows in space; arguments and errors as `avg_pool`.

    >>> max_pool(jnp.ones((2, 6, 6, 8, 3)), 2, 2).shape
    (2, 3, 3, 8, 3)
    """
    _check_ordered(x)
    return _spatially(nn.max_pool, x, window_shape, strides, padding)


def _spatially(pool, x: jax.Array, window_shape, strides, padding, **settings):
    if isinstance(padding, str) and padding == "CIRCULAR":
        raise ValueError("pooling pads with SAME, VALID or integers, got 'CIRCULAR'")
    axes = _spatial_axes(x, window_shape)
    space, rest = x.shape[1 : 1 + axes], x.shape[1 + axes :]
    w = window(space, window_shape, strides, padding)
    if 0 in w.output_size:
        padded = zip(w.size, w.padding, strict=True)
        raise ValueError(
            f"a window of {w.taps} with padding {w.padding} does not fit into an input "
            f"of size {w.size}; the largest that fits is "
            f"{tuple(n + low + high for n, (low, high) in padded)}"
        )
    merged = x.reshape(x.shape[0], *space, math.prod(rest))
    # By keyword, which exporters to ONNX ask for.
    y = pool(
        merged, window_shape=w.taps, strides=w.strides, padding=w.padding, **settings
    )
    return y.reshape(*y.shape[:-1], *rest)


def _spatial_axes(x: jax.Array, per_axis: Any = 1) -> int:
    """Return how many axes of a field, or of an image, are spatial.

    Args:
      x: a field; or an image whose second last axis cannot be a fiber.
      per_axis: one setting for all axes, or a sequence of one for each axis, which
        tells fields from images.

    Raises:
      ValueError: x may be an image, and there is not one setting per axis.
    """
    check_array("x", x)
    axes = x.ndim - 3
    if axes >= 1 and (np.shape(per_axis) == (axes,) or _like_a_fiber(x.shape)):
        return axes
    if np.shape(per_axis) == (axes + 1,):
        return axes + 1
    raise ValueError(
        f"expected a field (batch, *space, fiber, channels), got {x.shape}, whose "
        "second last axis may be of space; of an image, pool with one integer per "
        f"axis, such as {(2,) * (x.ndim - 2)}, and of a field with {(2,) * axes}"
    )


def _like_a_fiber(shape: tuple[int, ...]) -> bool:
    """Tell whether the second last axis is a fiber's, and not a third one of space.

    Over d axes right angles make fibers of cosets in the 2^d d! signed permutations,
    and finer angles of the plane such of more elements.
    """
    *space, fiber = shape[1:-1]
    axes = len(space)
    exact = 2**axes * math.factorial(axes)
    if exact % max(1, fiber) == 0:
        return True
    return axes == 2 and fiber % exact == 0 and set(space) != {fiber}


def _check_ordered(x: jax.Array) -> None:
    check_array("x", x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise ValueError(f"complex numbers have no maximum, got {x.dtype}; pool abs(x)")


def fiber_pool(
    x: jax.Array,
    *,
    group: Group,
    reduce: Literal["mean", "max"] = "mean",
    to: Literal["quotient", "invariants"] = "quotient",
) -> jax.Array:
    """Pool a regular field over the cosets of a subgroup K.

    Over the cosets gK it becomes a field over `eq.quotient(K)`, which the whole ambient
    group acts on and layers with that fiber read. Over the cosets Kg it keeps what K
    leaves alone: every u in K acts on the result as on an image, (u . f)(p, Kg) =
    f(u^-1 p, Kg), but no layer takes it for a field. The two are one where K is normal.

    Args:
      x: (batch, *space, |ambient|, channels).
      group: the subgroup K; the ambient group for one value.
      reduce: "mean", in at least float32, or "max".
      to: "quotient" for the cosets gK, "invariants" for Kg.

    Returns:
      (batch, *space, |ambient| / |K|, channels).

    >>> from eqjax.groups import dihedral
    >>> D4 = dihedral(4)
    >>> fiber_pool(jnp.ones((2, 6, 6, 8, 3)), group=D4.subgroup("C4")).shape
    (2, 6, 6, 2, 3)
    """
    check_choice("reduce", reduce, ("mean", "max"))
    check_choice("to", to, ("quotient", "invariants"))
    check_group("group", group)
    check_array("x", x)
    order = group.ambient.order
    if x.ndim < 3 or x.shape[-2] != order:
        raise ValueError(
            f"expected a field (batch, *space, {order}, channels), got shape {x.shape}"
        )
    if to == "quotient":
        cosets = quotient(group).members
    else:
        index = fiber_table(group, regular(group)).index
        cosets = np.argsort(index, kind="stable").reshape(-1, group.order)
    grouped = x[..., cosets, :]  # (batch, *space, cosets, members, channels)
    if reduce == "mean":
        return mean(grouped, -2)
    _check_ordered(x)
    return grouped.max(-2)


def upsample(
    x: jax.Array,
    factor: int | Sequence[int],
    *,
    method: Literal["nearest", "linear"] = "nearest",
) -> jax.Array:
    """Refine the grid of a field by an integer factor along every spatial axis.

    Args:
      x: (batch, *space, fiber, channels).
      factor: new points per old point, one integer for all axes or one for each.
      method: "nearest" repeats, "linear" interpolates; both keep every symmetry of
        the grid.

    Returns:
      (batch, *(factor * space), fiber, channels).

    >>> upsample(jnp.ones((2, 6, 6, 8, 3)), 2).shape
    (2, 12, 12, 8, 3)
    >>> upsample(jnp.ones((2, 6, 6, 12, 3)), (2, 2)).shape  # over C12
    (2, 12, 12, 12, 3)
    """
    check_choice("method", method, ("nearest", "linear"))
    each = factor if isinstance(factor, Sequence) else (factor,)
    if not all(isinstance(f, (int, np.integer)) and f >= 1 for f in each):
        raise ValueError(f"factor must be a positive integer, got {factor}")
    axes = _spatial_axes(x, factor)
    factors = per_axis(factor, axes, "factor")
    space = (f * n for f, n in zip(factors, x.shape[1 : 1 + axes], strict=True))
    return jax.image.resize(x, (x.shape[0], *space, *x.shape[1 + axes :]), method)


class FieldDropout(nn.Module):
    """Drop whole channels of a field: all points and fiber elements at once.

    Attributes:
      rate: probability of dropping a channel.
      deterministic: keep everything; here or in the call.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> layer = FieldDropout(0.5, deterministic=True)
    >>> x = jnp.ones((2, 6, 6, 8, 4))
    >>> y, _ = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
    >>> y.shape
    (2, 6, 6, 8, 4)
    """

    rate: float
    deterministic: bool | None = None

    def __post_init__(self) -> None:
        """Reject what is no probability."""
        super().__post_init__()
        check_number("rate", self.rate)
        if not 0 <= self.rate <= 1:
            raise ValueError(f"rate must be in [0, 1], got {self.rate}")

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool | None = None) -> jax.Array:
        """Drop channels of a field (batch, *space, fiber, channels)."""
        check_array("x", x)
        if x.ndim < 3:
            raise ValueError(
                f"expected a field (batch, *space, fiber, channels), got {x.shape}"
            )
        together = tuple(range(1, x.ndim - 1))
        drop = nn.Dropout(self.rate, together, self.deterministic)
        return drop(x, deterministic=deterministic)
