"""The left action of group elements on fields and images."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from eqjax.fields.fiber import Fiber, regular, trivial
from eqjax.fields.interpolation import interpolated
from eqjax.fields.irreps import IrrepsFiber, turned
from eqjax.groups.checks import check_array, check_group
from eqjax.groups.group import Group, difference
from eqjax.groups.matrices import is_exact


def transform(
    x: jax.Array,
    u: int | jax.Array,
    *,
    group: Group,
    fiber: Fiber | IrrepsFiber | None = None,
) -> jax.Array:
    """Act on a field from the left: (u . f)(p, a) = f(u^-1 p, u^-1 a).

    Elements that move pixels onto pixels are exact. Others, as a rotation by 45°, read
    between the pixels by cubic interpolation, and outside of the grid what is at its
    border; on the fiber they are exact (see `Group.exact`).

    Args:
      x: a field (batch, *space, fiber, channels), or an image (batch, *space, channels)
        without a fiber axis.
      u: an element number in the ambient group, one of `group.elements`; it may be
        traced, as under `jax.vmap`, if no element of the group changes the shape.
      group: the group that u belongs to.
      fiber: the fiber of x; the regular or the trivial one by its size if None.
        Components of an `IrrepsFiber` are turned.

    Returns:
      An array of the shape of x, its spatial axes exchanged as u exchanges them.

    Raises:
      ValueError: u does not belong to the group, or the axes of x do not fit it.

    >>> from eqjax.groups import dihedral
    >>> image = jnp.arange(4.0).reshape(1, 2, 2, 1)
    >>> transform(image, 1, group=dihedral(4))[0, ..., 0].tolist()
    [[1.0, 3.0], [0.0, 2.0]]
    """
    check_group("group", group)
    check_array("x", x)
    if not isinstance(fiber, Fiber | IrrepsFiber | None):
        raise TypeError(
            f"fiber must be a Fiber, such as eq.regular(group), got {fiber!r}"
        )
    position = element_position(group, u)
    d = group.dimension
    if x.ndim not in (d + 2, d + 3):
        raise ValueError(
            f"expected a field (batch, {d} spatial axes, fiber, channels) or an image "
            f"(batch, {d} spatial axes, channels) for {group!r}, got shape {x.shape}"
        )
    if isinstance(u, jax.core.Tracer):
        return _transform_traced(x, position, group, fiber)
    matrix = group.ambient.matrices[u]
    moved = _moved_in_space(x, matrix)
    if x.ndim == d + 2:
        return moved
    fiber = fiber or _fiber_of_size(x.shape[-2], group)
    if isinstance(fiber, IrrepsFiber):
        if fiber.size != x.shape[-2]:
            raise ValueError(
                f"{fiber.irreps} have {fiber.size} components, got shape {x.shape}"
            )
        return turned(moved, fiber, matrix, axis=-2)
    if fiber.ambient != group.ambient or fiber.size != x.shape[-2]:
        raise ValueError(
            f"a fiber of {fiber.size} elements over {fiber.ambient!r} does not fit "
            f"shape {x.shape} and {group!r}{difference(fiber.ambient, group.ambient)}"
        )
    inverse = group.ambient.inverse[u]
    return moved[..., fiber.action[inverse], :]


def _moved_in_space(x: jax.Array, matrix: np.ndarray) -> jax.Array:
    """Return f(u^-1 p) for (batch, *space, ...)."""
    if not is_exact(matrix):
        return interpolated(x, matrix)
    d = len(matrix)
    source = np.argmax(np.abs(matrix), axis=1)  # output axis i reads input axis j
    reversed_axes = [1 + j for j in range(d) if matrix[:, j].sum() < 0]
    axes = (0, *(1 + source), *range(d + 1, x.ndim))
    return jnp.flip(x, reversed_axes).transpose(axes)


def element_position(group: Group, u: int | jax.Array) -> Any:
    """Return the place of an ambient element among a group's own.

    A traced number is looked up when the program runs, without an error for elements of
    other groups: they are taken for the first.

    Raises:
      ValueError: a number that is not traced is not one of `group.elements`.
    """
    if isinstance(u, jax.core.Tracer):
        places = np.zeros(group.ambient.order, np.int32)
        places[list(group.elements)] = np.arange(group.order)
        return jnp.asarray(places)[u]
    number = np.asarray(u)
    whole = number.ndim == 0 and np.issubdtype(number.dtype, np.integer)
    if not whole or int(u) not in group:
        named = zip(group.elements, group.element_names, strict=True)
        raise ValueError(
            f"u = {u!r:.40} is not an element of {group!r}; its elements are "
            + ", ".join(f"{v} ({name})" for v, name in named)
        )
    return group.elements.index(int(u))


def _transform_traced(
    x: jax.Array, position: jax.Array, group: Group, fiber: Fiber | IrrepsFiber | None
) -> jax.Array:
    def moved(u: int):
        return lambda x: transform(x, u, group=group, fiber=fiber)

    branches = [moved(u) for u in group.elements]
    shapes = {jax.eval_shape(branch, x).shape for branch in branches}
    if len(shapes) > 1:
        raise ValueError(
            f"elements of {group!r} exchange axes of different sizes, got shape "
            f"{x.shape}; a traced element needs a grid that all of them keep"
        )
    return lax.switch(position, branches, x)


def _fiber_of_size(size: int, group: Group) -> Fiber:
    for fiber in (regular(group), trivial(group)):
        if fiber.size == size:
            return fiber
    raise ValueError(
        f"a fiber axis over {group.ambient!r} has {group.ambient.order} elements "
        f"(regular) or 1 (trivial), got {size}; for a quotient pass fiber="
    )
