"""How far a function is from commuting with a group."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from eqjax.fields.action import transform
from eqjax.fields.fiber import Fiber
from eqjax.groups.group import Group
from eqjax.ops.precision import accurate, norm


def equivariance_error(
    fn: Callable[[jax.Array], jax.Array],
    x: jax.Array,
    *,
    group: Group,
    fiber_in: Fiber | None = None,
    fiber_out: Fiber | None = None,
) -> jax.Array:
    """Return max over u of |fn(u . x) - u . fn(x)| / |fn(x)|, norms over all entries.

    Args:
      fn: maps images or fields to images, fields, or invariants (batch, numbers).
      x: an image (batch, *space, channels) or a field (batch, *space, fiber, channels).
      group: the group whose elements are tried.
      fiber_in: fiber of x where it is a quotient.
      fiber_out: fiber of fn(x) where it is a quotient.

    Returns:
      A scalar, in float32 or the dtype of fn(x) where that has more; 0 for an exactly
      equivariant function. NaN where fn(x) is zero or not finite.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> blur = lambda x: eq.avg_pool(x, (3, 3), 1, "SAME")
    >>> float(equivariance_error(blur, jnp.eye(5)[None, :, :, None], group=D4)) < 1e-6
    True
    """
    reference = fn(x)
    size = norm(reference)
    moves = reference.ndim > 2

    def error(u: int) -> jax.Array:
        expected = reference
        if moves:
            expected = transform(reference, u, group=group, fiber=fiber_out)
        got = fn(transform(x, u, group=group, fiber=fiber_in))
        if got.shape != expected.shape:
            raise ValueError(
                f"fn returns shape {got.shape} for a transformed input and "
                f"{expected.shape} expected; is the grid square where {group!r} "
                "exchanges its axes?"
            )
        return norm(accurate(got) - accurate(expected)) / size

    return jnp.max(jnp.stack([error(u) for u in group.elements]))
