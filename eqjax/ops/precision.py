"""Norms and means that low precision neither overflows nor blurs.

What is reported of arrays is computed in single precision at least, in the precision of
the arrays where that is higher. What is not finite stays visible: a norm of it is not a
number, never zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp


def accurate(x: jax.Array) -> jax.Array:
    """Return an array of numbers in at least float32, or complex64."""
    return jnp.asarray(x, jnp.promote_types(jnp.result_type(x), jnp.float32))


def squared(x: jax.Array) -> jax.Array:
    """Return |x|^2, real, in at least float32.

    >>> squared(jnp.array([3j, 300.0], jnp.complex64)).tolist()
    [9.0, 90000.0]
    """
    x = accurate(x)
    return jnp.square(x.real) + jnp.square(x.imag) if x.dtype.kind == "c" else x * x


def norm(*arrays: jax.Array) -> jax.Array:
    """Return the root of the sum over |entries|^2 of all arrays.

    >>> float(norm(jnp.full(4, 3e4, jnp.float16)))
    60000.0
    """
    arrays = tuple(accurate(a) for a in arrays if a.size)
    if not arrays:
        return jnp.zeros(())
    largest = jnp.max(jnp.stack([jnp.abs(a).max() for a in arrays]))
    scale = jnp.where(largest > 0, largest, 1)  # squares of large numbers overflow
    return scale * jnp.sqrt(sum(squared(a / scale).sum() for a in arrays))


def mean(
    x: jax.Array, axis: int | Sequence[int] | None = None, *, keepdims: bool = False
) -> jax.Array:
    """Return the mean of an array, summed in at least float32, in a dtype for means."""
    axes = axis if axis is None or isinstance(axis, int) else tuple(axis)
    return accurate(x).mean(axes, keepdims=keepdims).astype(mean_dtype(x))


def check_dtype(name: str, dtype: Any) -> None:
    """Raise unless a setting is a dtype of real or complex numbers, or None.

    Raises:
      TypeError: it is no dtype.
      ValueError: it is one of whole numbers.
    """
    if dtype is None:
        return
    try:
        kind = jnp.dtype(dtype)
    except TypeError:
        raise TypeError(
            f"{name} must be a dtype, such as jnp.bfloat16, got {dtype!r}"
        ) from None
    if not jnp.issubdtype(kind, jnp.inexact):
        raise ValueError(f"{name} must be floating or complex, got {kind}")


def mean_dtype(x: jax.Array) -> jnp.dtype:
    """Return the dtype of means of x: its own, and float32 for whole numbers."""
    return x.dtype if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.dtype(jnp.float32)
