"""Gradients of a validation loss through a training that has come to its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
from jaxtyping import Array, Float
from optax import tree

Inner = TypeVar("Inner")
Outer = TypeVar("Outer")


def hypergradient(
    train_loss: Callable[[Inner, Outer], Float[Array, ""]],
    validation_loss: Callable[[Inner, Outer], Float[Array, ""]],
    inner: Inner,
    outer: Outer,
    *,
    steps: int = 30,
    damping: float = 0.0,
) -> Outer:
    """Return the gradient of a validation loss by what the training has been given.

    Where w(a) is the minimum of the training loss, it is

        dV/da - (d2T/da dw) (d2T/dw2 + damping)^-1 dV/dw

    by the implicit function theorem (Yeh et al. 2022). The inverse is applied by
    conjugate gradients, without a matrix.

    Args:
      train_loss: T(w, a), at its minimum in w.
      validation_loss: V(w, a).
      inner: w, any tree of arrays.
      outer: a, any tree of arrays.
      steps: of conjugate gradients, at most.
      damping: added to the second derivatives, at least 0. Where the training has not
        come to its end these may be negative, and a damping as large as that helps.

    Returns:
      A tree like a.

    Raises:
      ValueError: there is no step, or the damping is negative.

    >>> import jax.numpy as jnp
    >>> slope = hypergradient(
    ...     lambda w, a: jnp.sum((w - a) ** 2), lambda w, a: jnp.sum(w**2),
    ...     jnp.ones(2), jnp.ones(2))  # w = a, and V = a^2
    >>> slope.tolist()
    [2.0, 2.0]
    """
    if steps < 1 or not damping >= 0:
        raise ValueError(
            f"steps must be at least 1 and damping at least 0, got {steps} and "
            f"{damping}"
        )
    slope, direct = jax.grad(validation_loss, (0, 1))(inner, outer)

    def curved(direction: Inner) -> Inner:
        gradient = jax.grad(train_loss)
        moved = jax.jvp(lambda w: gradient(w, outer), (inner,), (direction,))[1]
        return tree.add_scale(moved, damping, direction)

    solved, _ = jax.scipy.sparse.linalg.cg(curved, slope, maxiter=steps)
    through = jax.vjp(lambda a: jax.grad(train_loss)(inner, a), outer)[1]
    return tree.sub(direct, through(solved)[0])
