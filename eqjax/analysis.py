"""What can be measured: symmetry of functions and of layers, and compilations."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jax import monitoring

from eqjax.groups import Group
from eqjax.kernels import distance
from eqjax.layers import transform
from eqjax.matching import Path, tied_model
from eqjax.orbits import Fiber, preserving_subgroup


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


def distances(
    variables: Mapping[str, Any],
    *,
    model: nn.Module,
    inputs: Any,
    groups: Sequence[Group] | None = None,
    **settings: Any,
) -> dict[Path, dict[str, jax.Array]]:
    """Return how far every layer's kernel is from commuting with each group.

    |K - P K| / |K| with P the Reynolds projection onto the kernels that commute; 0 for
    a kernel that does. K is what the layer convolves with, whatever its constraint.

    Args:
      variables: of the model.
      model: any linen model with convolutions of eqjax.
      inputs: an input of the model, or a tuple of call arguments; shapes are enough.
      groups: the groups to measure to; if None, all subgroups of the ambient group
        that map the taps to themselves.
      **settings: keyword arguments of the model's call.

    Returns:
      By path of the layer and name of the group; layers stacked by `nn.scan` have one
      number each.
    """
    found = tied_model(model, inputs, **settings)
    flat = flatten_dict(flax.core.unfreeze(dict(variables)))
    ledger = {}
    for path, layer in found.layers.items():
        if "kernel" not in layer.tables:
            continue
        ambient = layer.group.ambient
        possible = preserving_subgroup(ambient, layer.taps)
        fitting = tuple(H for H in ambient.subgroups if possible >= H)
        chosen = fitting if groups is None else groups
        tables = {H.name: layer.ties_of(H)["kernel"].table for H in chosen}

        def measure(variables, layer=layer, tables=tables):
            kernel = layer.read(variables)["kernel"]
            return {name: distance(kernel, table) for name, table in tables.items()}

        for _ in range(found.stacked_axes(path)):
            measure = jax.vmap(measure)
        ledger[path] = measure(found.own(path, flat))
    return ledger


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
