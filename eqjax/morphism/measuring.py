"""What an optimizer does with gradients of several sizes, measured before it is moved.

Random symmetric gradients stand for those of a training. Nothing of the optimizer is
looked at but its `init` and `update`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from eqjax.constraints.collections import PARAMS
from eqjax.kernels.tied import Table
from eqjax.morphism.carrying import (
    Weight,
    carry,
    gradient_step_weight,
    unit_step_weight,
    value_weight,
)
from eqjax.morphism.matching import Move, Path, Plan, show
from eqjax.morphism.moments import carry_optimizer, moment_weight, quantities
from eqjax.training.loop import updates_of

_PLAIN = (gradient_step_weight, unit_step_weight)
_STEPS = 2  # of the parent, before it is moved
_SIZES = (1e-2, 1.0, 1e2)  # of an entry of the gradient


def check_powers(optimizer: optax.GradientTransformation, plan: Plan) -> None:
    """Raise unless the moments of an optimizer grow with gradients as they should.

    Raises:
      ValueError: what the optimizer keeps is not what the class of its state says.
    """
    shapes, arrays = _shapes(plan), _draw(plan)
    entries = sum(math.prod(shape) for shape in shapes.values())

    @jax.jit
    def after(scale, worth):
        params = {path: worth * array for path, array in arrays[0].items()}
        state = optimizer.init(unflatten_dict(params))
        for gradient in arrays[1:]:
            scaled = {path: scale * g for path, g in gradient.items()}
            _, state = _update(optimizer, scaled, state, params)
        return state

    wrong: Mapping[str, str] = {}
    # Links that clip or decay are at rest in one of these.
    for size, worth in ((0.3, 0.0), (1e-3, 0.0), (0.3, 1e3)):
        states = [after(k * size / entries**0.5, worth) for k in (0.0, 1.0, 2.0)]
        wrong = _wrong_powers(states, shapes, plan)
        if not wrong:
            return
    name, why = next(iter(wrong.items()))
    raise ValueError(
        f"cannot carry {name} to another group: {why}, so that it is no such quantity; "
        "start a new optimizer by optimizer.init(params)"
    )


def _wrong_powers(states: list, shapes: Mapping, plan: Plan) -> dict[str, str]:
    """Return the quantities that do not grow as their power says, and how they do."""
    moving = {path[1:] for path in plan.moves}
    wrong = {}
    leaves = [list(quantities(state, shapes)) for state in states]
    for rest, once, twice in zip(*leaves, strict=True):
        if once.owner not in moving or once.power is None:
            continue
        small, large = (
            float(jnp.linalg.norm(jnp.ravel(a.leaf - jnp.nan_to_num(rest.leaf))))
            for a in (once, twice)
        )
        power = math.log2(large / small) if small > 0 and large > 0 else 0.0
        if abs(power - once.power) > 0.3:
            wrong[f"{once.kind}.{once.field} of {'/'.join(once.owner)}"] = (
                f"it grows with the gradient to the power {power:.2g} and not "
                f"{once.power}"
            )
    return wrong


def step_factors(
    optimizer: optax.GradientTransformation, plan: Plan
) -> dict[Path, tuple[float, float]]:
    """Return by which factor the next step of every moved parameter's full array grows.

    Returns:
      The least and the largest factor over gradients whose entries are of sizes 0.01, 1
      and 100, by path from the collection on.
    """
    shapes, arrays = _shapes(plan), _draw(plan)
    params, *gradients = arrays

    @jax.jit
    def factors(scale):
        state = optimizer.init(unflatten_dict(params))
        for gradient in gradients:
            scaled = {path: scale * g for path, g in gradient.items()}
            before = state
            step, state = _update(optimizer, scaled, state, params)
        carried = carry_optimizer(before, shapes, plan.moves, warn=False)
        child = _moved(params, plan, value_weight)
        gradient = _moved(scaled, plan, partial(moment_weight, power=1))
        own, _ = _update(optimizer, gradient, carried, child)
        expected = _moved(step, plan, value_weight)
        return {path: _ratio(own[path[1:]], expected[path[1:]]) for path in plan.moves}

    found = [jax.device_get(factors(size)) for size in _SIZES]
    return {
        path: (float(min(f[path] for f in found)), float(max(f[path] for f in found)))
        for path in plan.moves
    }


def _ratio(step: jax.Array, expected: jax.Array) -> jax.Array:
    """Return by which factor a step is the expected one; 1 where that is none."""
    square = jnp.vdot(expected, expected)
    return jnp.where(square > 0, jnp.vdot(step, expected) / square, 1)


def warn_of_steps(optimizer: optax.GradientTransformation, plan: Plan) -> None:
    """Warn where the next step grows by another factor than under SGD or Adam alone."""
    for path, (low, high) in step_factors(optimizer, plan).items():
        plain = [growth(plan.moves[path], weight) for weight in _PLAIN]
        if not any(max(abs(f - low), abs(f - high)) < 0.01 * f for f in (1.0, *plain)):
            warnings.warn(
                f"the next step of {show(path)} is {low:.3g} to {high:.3g} times that "
                "of its parent, by the size of the gradient: a link of the optimizer "
                "clips, decays or normalizes by what changes with the group",
                stacklevel=3,
            )


def growth(move: Move, weight: Weight) -> float:
    """Return by how much one unit is worth more after a move, mean over the orbits."""
    source, target = move.source.table, move.target.table
    with jax.ensure_compile_time_eval():
        before = jnp.asarray(weight(move.source))
        worth = np.asarray(_worth(before, source=source, target=target))
    # A basis may turn what others do not.
    reached = worth > 1e-12 * worth.max(initial=0)
    return float(np.mean(np.asarray(weight(move.target))[reached] / worth[reached]))


@partial(jax.jit, static_argnames=("source", "target"))
def _worth(weights: jax.Array, *, source: Table, target: Table) -> jax.Array:
    """Return what the units of one table are worth in another's parameters."""
    return target.mean(source.spread(weights, squares=True), squares=True)


def _update(
    optimizer: optax.GradientTransformation,
    gradient: Mapping[Path, jax.Array],
    state: Any,
    params: Mapping[Path, jax.Array],
) -> tuple[dict[Path, jax.Array], Any]:
    def loss(nested):  # whose gradient is this one
        flat = flatten_dict(nested)
        return sum(jnp.sum(g * flat[path]) for path, g in gradient.items()), None

    step, state, _ = updates_of(loss, unflatten_dict(params), state, optimizer)
    return flatten_dict(step), state


def _shapes(plan: Plan) -> dict[Path, tuple[int, ...]]:
    found = plan.source.shapes.items()
    return {path[1:]: s.shape for path, s in found if path[0] == PARAMS}


def _draw(plan: Plan) -> list[dict[Path, jax.Array]]:
    """Return random parameters, and gradients for some steps and one more."""
    rng = np.random.default_rng(0)
    found = [(p[1:], s) for p, s in plan.source.shapes.items() if p[0] == PARAMS]
    return [
        {path: jnp.asarray(rng.normal(size=s.shape), s.dtype) for path, s in found}
        for _ in range(_STEPS + 2)
    ]


def _moved(
    flat: Mapping[Path, jax.Array], plan: Plan, weight: Any
) -> dict[Path, jax.Array]:
    moves = {path[1:]: move for path, move in plan.moves.items()}
    return {
        path: carry(leaf, moves[path], weight) if path in moves else leaf
        for path, leaf in flat.items()
    }
