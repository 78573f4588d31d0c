"""How symmetric a function is, and how often a program compiles, measured."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from jax import monitoring

from eqjax.groups import Group
from eqjax.layers import transform
from eqjax.orbits import Fiber


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
      A scalar, 0 for an exactly equivariant function. NaN where fn(x) is zero.
    """
    reference = fn(x)
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
        return jnp.linalg.norm(got - expected) / jnp.linalg.norm(reference)

    return jnp.max(jnp.stack([error(u) for u in group.elements]))


@dataclasses.dataclass
class Compilations:
    """How many programs XLA compiled, and for how many seconds."""

    count: int = 0
    seconds: float = 0.0


@contextlib.contextmanager
def count_compilations() -> Iterator[Compilations]:
    """Count the programs compiled inside a `with` statement, by JAX's own monitoring.

    >>> with count_compilations() as compiled:
    ...     _ = jax.jit(lambda x: x + 1)(jnp.zeros(3))
    >>> compiled.count >= 1
    True
    """
    total = Compilations()

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            total.count += 1
            total.seconds += duration_secs

    monitoring.register_event_duration_secs_listener(listen)
    try:
        yield total
    finally:
        monitoring.unregister_event_duration_listener(listen)
