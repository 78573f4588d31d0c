"""Random group elements applied to images: the rival of a symmetric network."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from eqjax.fields.action import transform
from eqjax.fields.keys import check_key
from eqjax.groups.checks import check_array, check_group
from eqjax.groups.group import Group


def augment(key: jax.Array, x: jax.Array, *, group: Group) -> jax.Array:
    """Apply a random element of a group to every sample, drawn uniformly.

    Args:
      key: of the draw.
      x: images (batch, *space, channels) or fields (batch, *space, fiber, channels);
        the grid must be one that every element maps to itself.
      group: the group to draw from.

    Returns:
      An array of the shape of x.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> augment(jax.random.key(0), jnp.ones((4, 6, 6, 3)), group=D4).shape
    (4, 6, 6, 3)
    """
    check_key("key", key)
    check_group("group", group)
    check_array("x", x)
    moved = [transform(x, u, group=group) for u in group.elements]
    for each, u in zip(moved, group.elements, strict=True):
        if each.shape != x.shape:
            raise ValueError(
                f"{group.ambient.element_names[u]} of {group!r} changes shape "
                f"{x.shape} to {each.shape}; "
                "use a square grid"
            )
    chosen = jax.random.randint(key, (x.shape[0],), 0, group.order)
    samples = jnp.arange(x.shape[0])
    return jnp.stack(moved)[chosen, samples]
