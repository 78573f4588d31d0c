"""What the states of optax mean, and how each of their quantities moves.

A gradient of a tied parameter sums unit * dK over its orbit, so a quantity of power k
in gradients moves by the k-th power of (size * unit); a running mean of normalized
steps moves as it is. Which power a quantity has follows from the class of its state.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from eqjax.constraints.collections import PARAMS
from eqjax.kernels.tied import Tie
from eqjax.morphism.carrying import (
    Weight,
    carry,
    gradient_step_weight,
    unit_step_weight,
)
from eqjax.morphism.matching import Move, Path

Shapes = Mapping[Path, tuple[int, ...]]  # of all parameters, without their collection

# States whose steps have a size that the gradient does not set: Adam and its kin divide
# by a second moment, Lion takes the sign of its only one.
NORMALIZING = {
    "ScaleByAdamState": {"mu": 1, "nu": 2},
    "ScaleByAmsgradState": {"mu": 1, "nu": 2, "nu_max": 2},
    "ScaleByAdanState": {"m": 1, "v": 1, "n": 2, "g": 1},
    "ScaleByAdemamixState": {"m1": 1, "m2": 1, "nu": 2},
    "ScaleByBeliefState": {"mu": 1, "nu": 2},
    "ScaleByLionState": {"mu": 1},
    "ScaleByRmsState": {"nu": 2},
    "ScaleByRStdDevState": {"mu": 1, "nu": 2},
    "ScaleByRssState": {"sum_of_squares": 2},
    "ScaleBySimplifiedAdEMAMixState": {"m": 1, "n": 2},
}
# Sums and means of gradients or, behind a normalizing state, of normalized steps.
AVERAGES = {
    "TraceState": {"trace": 1},
    "EmaState": {"ema": 1},
    "ApplyEvery": {"grad_acc": 1},
    "ScaleByOptimisticGradientState": {"previous_gradient": 1},
}
GRADIENTS = {"MultiStepsState": {"acc_grads": 1}}
KNOWN = {**NORMALIZING, **AVERAGES, **GRADIENTS}


class CompensationState(NamedTuple):
    """State of `compensated_steps`: a factor per parameter."""

    step_scale: Any


class Quantity(NamedTuple):
    """A leaf of an optimizer's state.

    Attributes:
      keys: its path in the state.
      leaf: the array.
      kind: name of the class of optax's state that holds it, or of another's with its
        module.
      field: its name there.
      owner: path of the parameter that it belongs to, or ().
      power: of the gradient; None where that is unknown.
    """

    keys: tuple
    leaf: Any
    kind: str
    field: str
    owner: Path
    power: int | None


def quantities(opt_state: Any, params: Shapes) -> Iterator[Quantity]:
    """Yield all leaves of a state, in order, each with its meaning."""
    normalized: set[Path] = set()  # whose steps were normalized so far in the chain
    for keys, leaf in jax.tree_util.tree_flatten_with_path(opt_state)[0]:
        kind, field = _holder(opt_state, keys)
        owner, power = owner_of(keys, params), KNOWN.get(kind, {}).get(field)
        if kind in NORMALIZING:
            normalized.add(owner)
        if power is not None and kind in AVERAGES and owner in normalized:
            power = 0
        yield Quantity(keys, leaf, kind, field, owner, power)


def carry_optimizer(
    opt_state: Any, params: Shapes, moves: Mapping[Path, Move], *, warn: bool = True
) -> Any:
    """Carry the state of an optax optimizer along with parameters that move.

    Args:
      opt_state: as in `morph_optimizer`.
      params: the shapes of all parameters, by path without their collection.
      moves: the parameters that change, by path from their collection on.
      warn: of links that may change the next step.

    Returns:
      The state for the parameters after the moves.

    Raises:
      ValueError: a quantity of a parameter that moves has no known meaning, or not the
        shape of the parameter.
    """
    if moves and warn and _stateless_first(opt_state):
        warnings.warn(
            "a link without state stands before the moments of the optimizer. If it "
            "clips, decays or normalizes by a norm of tied gradients or parameters, "
            "the next step of a relaxed network is another than its parent's: "
            "`morph(..., optimizer=optimizer)` reports by which factor, and "
            "parametrization='orthonormal' with `compensated_steps` keeps global norms",
            stacklevel=3,
        )
    moving = {path[1:] for path in moves}
    steps: set[Path] = set()  # whose steps are normalized
    new = []
    for found in quantities(opt_state, params):
        if found.kind in NORMALIZING:
            steps.add(found.owner)
        _check_meaning(found, params, moving)
        if found.owner not in moving or np.shape(found.leaf) == ():
            new.append(found.leaf)
            continue
        weight: Weight
        if found.kind == CompensationState.__name__:
            own = found.owner in steps
            weight = unit_step_weight if own else gradient_step_weight
        else:
            weight = functools.partial(moment_weight, power=found.power or 0)
        leaf = jnp.asarray(found.leaf)
        move = moves[(PARAMS, *found.owner)]
        new.append(carry(leaf, move, weight, squares=found.power == 2))
    return jax.tree.unflatten(jax.tree.structure(opt_state), new)


def restart_optimizer(
    opt_state: Any, params: Shapes, moves: Mapping[Path, Move]
) -> Any:
    """Set what an optimizer keeps of parameters that moved to zero.

    Relaxed directions start at zero, often at a saddle, and what Adam carries for them
    is the large second moment of the symmetric gradient, which makes their steps small.
    Counts are kept: Adam does not correct the new moments for starting at zero, and its
    first steps are a few times longer.

    Args:
      opt_state: over the new groups, as from `carry_optimizer`.
      params: the shapes of all parameters, by path without their collection.
      moves: the parameters that changed, by path from their collection on.
    """

    def restart(found: Quantity) -> Any:
        moment = (PARAMS, *found.owner) in moves and found.power is not None
        return jnp.zeros_like(found.leaf) if moment else found.leaf

    leaves = [restart(found) for found in quantities(opt_state, params)]
    return jax.tree.unflatten(jax.tree.structure(opt_state), leaves)


def _check_meaning(found: Quantity, params: Shapes, moving: set[Path]) -> None:
    """Raise unless a quantity can stay as it is, or its shape and power are known."""
    shape, known = np.shape(found.leaf), found.power is not None
    floating = jnp.issubdtype(jnp.result_type(found.leaf), jnp.inexact)
    if found.owner in moving:
        flag = shape == () and not floating
        compensation = found.kind == CompensationState.__name__
        if flag or ((known or compensation) and shape == params[found.owner]):
            return
        why = f"its shape is {shape}, that of its parameter {params[found.owner]}"
        if shape == params[found.owner]:
            why = "what it means for a gradient is unknown"
    elif moving and found.owner == () and known:
        why = "it holds all parameters at once"
    else:
        return
    known_kinds = ", ".join(sorted(KNOWN))
    raise ValueError(
        f"cannot carry {jax.tree_util.keystr(found.keys)} of {found.kind or 'a state'} "
        f"to another group: {why}; start a new optimizer by optimizer.init(params), or "
        f"take one whose states have a known meaning: {known_kinds}"
    )


def moment_weight(tie: Tie, *, power: int) -> np.ndarray | jax.Array:
    """Return what a unit of the power of a gradient is worth: it sums unit * dK."""
    return (tie.size * tie.unit) ** -float(power)


def owner_of(keys: tuple, params: Mapping[Path, Any]) -> Path:
    """Return the parameter that a leaf of an optimizer state belongs to, or ().

    The leaf lies under the name of its quantity, followed by the parameter's path.
    """
    names = [k.key for k in keys if isinstance(k, jax.tree_util.DictKey)]
    tails = (tuple(names[start:]) for start in range(len(names)))
    return next((path for path in tails if path in params), ())


def _holder(node: Any, keys: tuple) -> tuple[str, str]:
    """Return the class and the field of the innermost state around a leaf."""
    kind = field = ""
    for key in keys:
        if isinstance(node, nn.meta.AxisMetadata):  # the box of a parameter
            node = node.unbox()
        elif isinstance(key, jax.tree_util.GetAttrKey):
            owner, field = type(node), key.name
            kind = owner.__name__
            if owner.__module__.partition(".")[0] not in ("optax", "eqjax"):
                kind = f"{owner.__module__}.{kind}"
            node = getattr(node, key.name)
        elif isinstance(key, jax.tree_util.SequenceKey):
            node = node[key.idx]
        elif isinstance(key, jax.tree_util.DictKey):
            node = node[key.key]
        else:
            return "", ""
    return kind, field


def _stateless_first(opt_state: Any) -> bool:
    """Tell whether a link without state comes before the first known moments."""

    def is_link(node: Any) -> bool:
        moments = type(node).__name__ in {**NORMALIZING, **AVERAGES}
        return moments or isinstance(node, optax.EmptyState)

    links = [n for n in jax.tree.leaves(opt_state, is_leaf=is_link) if is_link(n)]
    empty = [isinstance(link, optax.EmptyState) for link in links]
    return not all(empty) and empty[:1] == [True]
