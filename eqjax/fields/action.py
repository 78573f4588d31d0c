"""The left action of group elements on fields and images."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from eqjax.fields.fiber import Fiber, regular, trivial
from eqjax.groups.group import Group, difference


def transform(
    x: jax.Array, u: int, *, group: Group, fiber: Fiber | None = None
) -> jax.Array:
    """Act on a field from the left: (u . f)(p, a) = f(u^-1 p, u^-1 a).

    Args:
      x: a field (batch, *space, fiber, channels), or an image (batch, *space, channels)
        without a fiber axis.
      u: an element number in the ambient group, one of `group.elements`.
      group: the group that u belongs to.
      fiber: the fiber of x; the regular or the trivial one by its size if None.

    Returns:
      An array of the shape of x, its spatial axes exchanged as u exchanges them.

    Raises:
      ValueError: u does not belong to the group, or the axes of x do not fit it.
    """
    if u not in group:
        raise ValueError(
            f"{u} is not an element of {group!r}; its elements are {group.elements}"
        )
    d = group.dimension
    if x.ndim not in (d + 2, d + 3):
        raise ValueError(
            f"expected a field (batch, {d} spatial axes, fiber, channels) or an image "
            f"(batch, {d} spatial axes, channels) for {group!r}, got shape {x.shape}"
        )
    matrix = group.ambient.matrices[u]
    source = np.argmax(np.abs(matrix), axis=1)  # output axis i reads input axis j
    reversed_axes = [1 + j for j in range(d) if matrix[:, j].sum() < 0]
    axes = (0, *(1 + source), *range(d + 1, x.ndim))
    moved = jnp.flip(x, reversed_axes).transpose(axes)
    if x.ndim == d + 2:
        return moved
    fiber = fiber or _fiber_of_size(x.shape[-2], group)
    if fiber.ambient != group.ambient or fiber.size != x.shape[-2]:
        raise ValueError(
            f"a fiber of {fiber.size} elements over {fiber.ambient!r} does not fit "
            f"shape {x.shape} and {group!r}{difference(fiber.ambient, group.ambient)}"
        )
    inverse = group.ambient.inverse[u]
    return moved[..., fiber.action[inverse], :]


def _fiber_of_size(size: int, group: Group) -> Fiber:
    for fiber in (regular(group), trivial(group)):
        if fiber.size == size:
            return fiber
    raise ValueError(
        f"a fiber axis over {group.ambient!r} has {group.ambient.order} elements "
        f"(regular) or 1 (trivial), got {size}; for a quotient pass fiber="
    )
