"""How far a function is from commuting with a group."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

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
    errors = _errors(fn, x, group, fiber_in, fiber_out)
    return jnp.max(jnp.stack(list(errors.values())))


def assert_equivariant(
    fn: Callable[[jax.Array], jax.Array],
    x: jax.Array,
    *,
    group: Group,
    fiber_in: Fiber | None = None,
    fiber_out: Fiber | None = None,
    tolerance: float | None = None,
) -> None:
    """Raise an AssertionError that names the elements which a function breaks.

    For tests of your own models; `eq.symmetry` says which layer is at fault.

    Args:
      fn: as in `equivariance_error`, such as `lambda x: model.apply(variables, x)`.
      x: an image or a field; random ones see more than constant ones.
      group: the group whose elements are tried.
      fiber_in: as in `equivariance_error`.
      fiber_out: as in `equivariance_error`.
      tolerance: largest error allowed; if None, the square root of the unit in the last
        place of fn(x): 3e-4 in float32.

    Raises:
      AssertionError: the error of an element is larger, or not a number.
      ValueError: fn(x) is zero everywhere, which every function passes.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> x = jax.random.normal(jax.random.key(0), (1, 6, 6, 1))
    >>> pool = lambda x: eq.avg_pool(x, (3, 3), (2, 2))
    >>> assert_equivariant(pool, x[:, :5, :5], group=D4)
    >>> assert_equivariant(pool, x, group=D4)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    AssertionError: not equivariant to D4: rotation by 90°, ... by up to ...
    """
    reference = fn(x)
    if not np.any(np.asarray(reference)):
        raise ValueError(
            "fn(x) is zero everywhere, which says nothing; pass other inputs or weights"
        )
    if tolerance is None:
        tolerance = float(jnp.finfo(reference.dtype).eps) ** 0.5
    errors = _errors(fn, x, group, fiber_in, fiber_out)
    names = dict(zip(group.elements, group.element_names, strict=True))
    broken = {
        names[u]: float(e) for u, e in errors.items() if not float(e) <= tolerance
    }
    if broken:
        worst = max(broken.values())
        raise AssertionError(
            f"not equivariant to {group.name}: {', '.join(broken)} by up to "
            f"{worst:.1e}, more than {tolerance:.1e}; eq.symmetry(model, x) tells "
            "which layer breaks it"
        )


def _errors(
    fn: Callable[[jax.Array], jax.Array],
    x: jax.Array,
    group: Group,
    fiber_in: Fiber | None,
    fiber_out: Fiber | None,
) -> dict[int, jax.Array]:
    """Return the relative error of every element."""
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

    return {u: error(u) for u in group.elements}
