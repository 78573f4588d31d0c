"""The state of an optimizer, carried along with the parameters that it belongs to."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Set
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from eqjax.constraints.collections import PARAMS
from eqjax.kernels.tied import Tie
from eqjax.morphism.carrying import carry, gradient_step_weight, unit_step_weight
from eqjax.morphism.matching import Move, Path, match, show


def morph_optimizer(
    opt_state: Any,
    *,
    source: nn.Module,
    target: nn.Module,
    inputs: Any,
    call_kwargs: Mapping[str, Any] | None = None,
    restart: bool = False,
) -> Any:
    """Carry the state of an optax optimizer along with `morph`.

    Moments move so that the child continues as the parent would have, given gradients
    that keep the parent's symmetry: exactly for SGD and momentum in the orthonormal
    parametrization and for Adam in the tied one. In the other two pairings the step
    changes by the factor that the report of `morph` names; put `compensated_steps()`
    behind the optimizer to undo it.

    What a state means is read off its fields and their order in the chain. Two optax
    transformations leave nothing to read: adamax keeps an infinity norm under the name
    of Adam's second moment, and sign_sgd keeps nothing, so that its steps pass for
    plain gradients in `compensated_steps`.

    Args:
      opt_state: the state of any optax chain of sgd, momentum, adam, adamw and kin.
      source: as in `morph`.
      target: as in `morph`.
      inputs: as in `morph`.
      call_kwargs: as in `morph`.
      restart: moments of the layers that change start at zero instead: see
        `restart_optimizer`.

    Returns:
      The state of the same optimizer for the target's parameters.

    Raises:
      ValueError: the state holds a quantity per parameter whose meaning is unknown.
    """
    plan = match(source, target, inputs, call_kwargs)
    if plan.rewrites:
        raise ValueError(
            f"the constraint of {show(plan.rewrites[0])} changes, and moments have no "
            "meaning under another one; start a new optimizer"
        )
    params = {path[1:] for path in plan.source.shapes if path[0] == PARAMS}
    carried = carry_optimizer(opt_state, params, plan.moves)
    return restart_optimizer(carried, params, plan.moves) if restart else carried


def carry_optimizer(
    opt_state: Any, params: Set[Path], moves: Mapping[Path, Move]
) -> Any:
    """Carry the state of an optax optimizer along with parameters that move.

    Args:
      opt_state: as in `morph_optimizer`.
      params: the paths of all parameters, without their collection.
      moves: the parameters that change, by path from their collection on.

    Returns:
      The state for the parameters after the moves.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(opt_state)
    owners = [owner_of(keys, params) for keys, _ in leaves]
    normalized: set[Path] = set()  # whose steps were normalized so far in the chain
    new = []
    for (keys, leaf), (owner, field) in zip(leaves, owners, strict=True):
        if field in _NORMALIZING:
            normalized.add(owner)
        move = moves.get((PARAMS, *owner))
        if move is None:
            new.append(leaf)
            continue
        if field == _STEP_SCALE:
            weight = unit_step_weight if owner in normalized else gradient_step_weight
        elif field in _AVERAGES and owner in normalized:
            weight = _normalized_weight
        elif field in _MOMENTS:
            weight = functools.partial(_moment_weight, power=_MOMENTS[field])
        else:
            raise ValueError(
                f"cannot carry {jax.tree_util.keystr(keys)} to another group: only "
                f"{', '.join(sorted(_MOMENTS))} of optax states have a known meaning"
            )
        new.append(carry(jnp.asarray(leaf), move, weight))
    return jax.tree_util.tree_unflatten(structure, new)


def restart_optimizer(
    opt_state: Any, params: Set[Path], moves: Mapping[Path, Move]
) -> Any:
    """Set what an optimizer keeps of parameters that moved to zero.

    Relaxed directions start at zero, often at a saddle, and what Adam carries for them
    is the large second moment of the symmetric gradient, which makes their steps small.
    Counts are kept: Adam does not correct the new moments for starting at zero, and its
    first steps are a few times longer.

    Args:
      opt_state: over the new groups, as from `carry_optimizer`.
      params: the paths of all parameters, without their collection.
      moves: the parameters that changed, by path from their collection on.
    """

    def restart(keys: tuple, leaf: Any) -> Any:
        owner, field = owner_of(keys, params)
        kept = (PARAMS, *owner) not in moves or field == _STEP_SCALE
        return leaf if kept else jnp.zeros_like(leaf)

    return jax.tree_util.tree_map_with_path(restart, opt_state)


class CompensationState(NamedTuple):
    """State of `compensated_steps`: a factor per parameter."""

    step_scale: Any


def compensated_steps() -> optax.GradientTransformation:
    """Scale updates so that relaxing a layer leaves the size of its steps alone.

    Starts as the identity; `morph_optimizer` adjusts its factors. Put it behind the
    transformation whose steps it shall correct and before decoupled weight decay:

    >>> sgd = optax.chain(optax.sgd(0.1), compensated_steps())
    """

    def init(params):
        return CompensationState(jax.tree.map(jnp.ones_like, params))

    def update(updates, state, params=None):
        del params
        return jax.tree.map(jnp.multiply, updates, state.step_scale), state

    return optax.GradientTransformation(init, update)


_MOMENTS = {
    "trace": 1,
    "mu": 1,
    "ema": 1,
    "acc_grads": 1,
    "nu": 2,
    "nu_max": 2,
    "sum_of_squares": 2,
}
# States that hold one of these take steps whose size the gradient does not set: Adam
# and its kin divide by a second moment, Lion takes the sign of its only one.
_NORMALIZING = {"mu", "nu", "nu_max", "sum_of_squares"}
# Running means, of gradients or, behind a normalizing state, of normalized steps.
_AVERAGES = {"trace", "ema"}
_STEP_SCALE = CompensationState._fields[0]


def _moment_weight(tie: Tie, *, power: int) -> np.ndarray | jax.Array:
    """A parameter's gradient sums unit * dK over its orbit."""
    return (tie.size * tie.unit) ** -float(power)


def _normalized_weight(tie: Tie) -> np.ndarray | jax.Array:
    """A normalized step is the same number under every group."""
    return np.ones(tie.table.num_orbits)


def owner_of(keys: tuple, params: Set[Path]) -> tuple[Path, str]:
    """Return the parameter that a leaf of an optimizer state belongs to, or ().

    The leaf lies under the name of its quantity, followed by the parameter's path.
    """
    names = [k.key for k in keys if isinstance(k, jax.tree_util.DictKey)]
    fields = [k.name for k in keys if isinstance(k, jax.tree_util.GetAttrKey)]
    tails = (tuple(names[start:]) for start in range(len(names)))
    owner = next((path for path in tails if path in params), ())
    return owner, fields[-1] if fields else ""
