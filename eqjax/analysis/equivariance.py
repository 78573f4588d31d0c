"""How far a function is from commuting with a group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eqjax.fields.action import transform
from eqjax.fields.fiber import Fiber
from eqjax.fields.irreps import IrrepsFiber, turned
from eqjax.groups.checks import check_array, check_callable, check_group
from eqjax.groups.closed import Symmetry
from eqjax.groups.group import Group
from eqjax.ops.precision import accurate, norm


def equivariance_error(
    fn: Callable[[Any], Any],
    x: Any,
    *,
    group: Symmetry,
    fiber_in: Fiber | IrrepsFiber | None = None,
    fiber_out: Fiber | IrrepsFiber | None = None,
    irreps_in: Any = None,
    irreps_out: Any = None,
) -> jax.Array:
    """Return max over u of |fn(u . x) - u . fn(x)| / |fn(x)|, norms over all entries.

    Args:
      fn: maps images or fields to images, fields, or invariants (batch, numbers).
      x: an image (batch, *space, channels) or a field (batch, *space, fiber, channels).
      group: the group whose elements are tried; of a closed subgroup of O(3), those
        that generate it, on irreps at points.
      fiber_in: fiber of x where it is a quotient.
      fiber_out: fiber of fn(x) where it is a quotient.
      irreps_in: of O(3), where the channels of x, (batch, *space, irreps.dim), are
        turned as well: "1o" for vectors. Without spatial axes, (points, irreps.dim),
        nothing else is done. x may be an `e3nn_jax.IrrepsArray`.
      irreps_out: the same of fn(x).

    Returns:
      A scalar, in float32 or the dtype of fn(x) where that has more; 0 for an exactly
      equivariant function. NaN where fn(x) is zero or not finite.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> blur = lambda x: eq.avg_pool(x, (3, 3), 1, "SAME")
    >>> float(equivariance_error(blur, jnp.eye(5)[None, :, :, None], group=D4)) < 1e-6
    True
    """
    _check(fn, x, group)
    errors = _errors(fn, x, group, (fiber_in, irreps_in), (fiber_out, irreps_out))
    return jnp.max(jnp.stack(list(errors.values())))


def assert_equivariant(
    fn: Callable[[Any], Any],
    x: Any,
    *,
    group: Symmetry,
    fiber_in: Fiber | IrrepsFiber | None = None,
    fiber_out: Fiber | IrrepsFiber | None = None,
    irreps_in: Any = None,
    irreps_out: Any = None,
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
      irreps_in: as in `equivariance_error`.
      irreps_out: as in `equivariance_error`.
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
    _check(fn, x, group)
    reference = _array(fn(x))
    check_array("fn(x)", reference)
    if not np.any(np.asarray(reference)):
        raise ValueError(
            "fn(x) is zero everywhere, which says nothing; pass other inputs or weights"
        )
    if tolerance is None:
        tolerance = float(jnp.finfo(reference.dtype).eps) ** 0.5
    errors = _errors(fn, x, group, (fiber_in, irreps_in), (fiber_out, irreps_out))
    broken = {name: float(e) for name, e in errors.items() if not float(e) <= tolerance}
    if broken:
        worst = max(broken.values())
        raise AssertionError(
            f"not equivariant to {group.name}: {', '.join(broken)} by up to "
            f"{worst:.1e}, more than {tolerance:.1e}; eq.symmetry(model, x) tells "
            "which layer breaks it"
        )


def _check(fn: Any, x: Any, group: Any) -> None:
    check_callable("fn", fn, "lambda x: model.apply(variables, x)")
    check_group("group", group, closed=True)
    check_array("x", _array(x))


Mover = Callable[[Any, int], Any]  # what an element makes of an array, by its place


def _mover(group: Symmetry, fiber: Fiber | IrrepsFiber | None, irreps: Any) -> Mover:
    """Return what moves an array with this fiber, or with channels in irreps."""
    if irreps is None:
        if not isinstance(group, Group):
            raise ValueError(
                f"{group!r} acts on irreps at points; pass irreps_in and irreps_out"
            )
        elements = group.elements
        return lambda x, i: transform(x, elements[i], group=group, fiber=fiber)
    components = IrrepsFiber(str(irreps))

    def move(x: Any, i: int) -> Any:
        moved = _array(x)
        if isinstance(group, Group) and moved.ndim == group.dimension + 2:
            moved = transform(moved, group.elements[i], group=group)
        moved = turned(moved, components, _matrices(group)[i])
        return _like(x, moved) if hasattr(x, "irreps") else moved

    return move


def _matrices(group: Symmetry) -> np.ndarray:
    return group.matrices if isinstance(group, Group) else group.generators


def _names(group: Symmetry) -> tuple[str, ...]:
    if isinstance(group, Group):
        return group.element_names
    return tuple(f"generator {i} of {group.name}" for i in range(len(group.generators)))


def _array(x: Any) -> jax.Array:
    """Return the components of an `e3nn_jax.IrrepsArray`, and other arrays as given."""
    return getattr(x, "array", x)


def _like(x: Any, array: jax.Array) -> Any:
    return type(x)(x.irreps, array)


def _errors(
    fn: Callable[[Any], Any],
    x: Any,
    group: Symmetry,
    kind_in: tuple[Fiber | IrrepsFiber | None, Any],
    kind_out: tuple[Fiber | IrrepsFiber | None, Any],
) -> dict[str, jax.Array]:
    """Return the relative error of every element, by its name.

    Kinds are a fiber and irreps. Outputs without space are invariants, if not irreps.
    """
    reference = fn(x)
    check_array("fn(x)", _array(reference))
    size = norm(_array(reference))
    move_in, move_out = _mover(group, *kind_in), _mover(group, *kind_out)
    moves = reference.ndim > 2 or kind_out[1] is not None

    def error(i: int) -> jax.Array:
        expected = move_out(reference, i) if moves else reference
        got = _array(fn(move_in(x, i)))
        if got.shape != _array(expected).shape:
            raise ValueError(
                f"fn returns shape {got.shape} for a transformed input and "
                f"{_array(expected).shape} expected; is the grid square where "
                f"{group!r} exchanges its axes?"
            )
        return norm(accurate(got) - accurate(_array(expected))) / size

    return {name: error(i) for i, name in enumerate(_names(group))}
