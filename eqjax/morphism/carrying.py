"""How a quantity that belongs to a tied parameter moves from one tie to another.

A weight is a function of a tie: (num_orbits,) numbers, what one unit of the quantity is
worth per entry of the full array K.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from eqjax import kernels
from eqjax.kernels.tied import Tie
from eqjax.morphism.matching import Move

Weight = Callable[[Tie], np.ndarray | jax.Array]


def value_weight(tie: Tie) -> np.ndarray | jax.Array:
    """An entry of K is unit * parameter."""
    return tie.unit


def gradient_step_weight(tie: Tie) -> np.ndarray | jax.Array:
    """K moves by unit * (size * unit * dK) in a step along the gradient."""
    return tie.size * tie.unit**2


def unit_step_weight(tie: Tie) -> np.ndarray | jax.Array:
    """K moves by unit in a step whose size does not depend on the gradient."""
    return tie.unit


def carry(
    leaf: jax.Array, move: Move, weight: Weight, *, squares: bool = False
) -> jax.Array:
    """Carry a quantity of which one unit is worth weight(tie) per entry of K.

    Args:
      leaf: (*stacked, num_orbits of the source, *rest).
      move: from one tie to another, under stacked leading axes.
      weight: of the quantity.
      squares: it holds squares of others, and has no sign.

    Returns:
      (*stacked, num_orbits of the target, *rest).
    """

    def per_orbit(tie: Tie, like: jax.Array) -> jax.Array:
        values = weight(tie).reshape(-1, *[1] * (like.ndim - 1))
        return jnp.asarray(values, like.dtype)

    def move_one(leaf: jax.Array) -> jax.Array:
        worth = leaf * per_orbit(move.source, leaf)
        full = move.source.table.spread(worth, squares=squares)
        new = kernels.cleared(
            move.target.table.mean(full, squares=squares), move.target.table
        )
        return new / per_orbit(move.target, new)

    return under_stacked_axes(move_one, move.stacked)(leaf)


def under_stacked_axes(fn: Callable, axes: int) -> Callable:
    """Return a function applied under so many leading axes of its arguments."""
    for _ in range(axes):
        fn = jax.vmap(fn)
    return fn
