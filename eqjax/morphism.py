"""The equivariance relaxation morphism: carry a trained model to other groups.

Every tied parameter stands for a full array K. To move a layer from a group to another,
read K and average it over the orbits of the target. Relaxing to a subgroup changes
nothing, since K is constant on the smaller orbits already; constraining to a larger
group is the Reynolds projection. Optimizer state moves by the same rule, each quantity
by its meaning per entry of K (Maile, Wilson and Forre 2023 relax by hand-written
formulas; here the orbit tables do it).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Set
from typing import Any, NamedTuple

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from eqjax import kernels
from eqjax.groups import Group
from eqjax.kernels import Tie
from eqjax.matching import Move, Path, Plan, check_shape, match, show

# --- reports ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class LayerChange:
    """What the morphism did to one layer.

    Attributes:
      path: of the layer in the model.
      source: the group it had.
      target: the group it has now.
      largest_change: largest absolute change of an entry of its full arrays.
      relative_change: norm of the change of its full arrays over their norm.
      parameters_before: its number of tied parameters.
      parameters_after: and now.
      gradient_step: by which factor the next step of the full kernel grows under SGD
        or momentum, given the same symmetric gradient (mean over the orbits).
      normalized_step: the same under Adam and its kin. Both are NaN for a layer whose
        constraint changed, which starts a new optimizer.
    """

    path: Path
    source: Group
    target: Group
    largest_change: jax.Array
    relative_change: jax.Array
    parameters_before: int
    parameters_after: int
    gradient_step: float
    normalized_step: float


@dataclasses.dataclass(frozen=True)
class MorphReport:
    """One entry per tied layer, in the order of the model; prints as a table."""

    layers: tuple[LayerChange, ...]

    def __str__(self) -> str:
        """Return one line per layer."""
        changes = ("largest change", "relative")
        steps = ("parameters", "SGD step", "Adam step")
        rows: list[tuple[str, ...]] = [("layer", "from", "to", *changes, *steps)]
        for change in self.layers:
            rows.append(
                (
                    show(change.path),
                    change.source.name,
                    change.target.name,
                    f"{float(change.largest_change):.1e}",
                    f"{100 * float(change.relative_change):.2g} %",
                    f"{change.parameters_before} -> {change.parameters_after}",
                    *map(_show_step, (change.gradient_step, change.normalized_step)),
                )
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(
                cell.ljust(width) for cell, width in zip(row, widths, strict=True)
            ).rstrip()
            for row in rows
        )


def _show_step(factor: float) -> str:
    return "anew" if np.isnan(factor) else f"x {factor:.4g}"


# --- the morphism -------------------------------------------------------------------


def morph(
    variables: Mapping[str, Any],
    *,
    source: nn.Module,
    target: nn.Module,
    inputs: Any,
    **settings: Any,
) -> tuple[dict[str, Any], MorphReport]:
    """Carry the variables of a model to the same model with other groups.

    Relaxing a layer to a subgroup keeps its full kernel: bitwise in the tied
    parametrization, to rounding in the orthonormal one. Constraining it to another
    group projects. Everything that is not tied (statistics, dense layers) is kept.
    A layer whose constraint changes, as from a mixture to one group or back, is read as
    full arrays and written anew: the same function where the new constraint allows it.

    Args:
      variables: of the source model, as from `source.init`.
      source: any linen model that holds eqjax layers anywhere inside.
      target: the same model with other groups.
      inputs: an input of the models, or a tuple of call arguments; only shapes matter,
        so `jax.ShapeDtypeStruct` will do.
      **settings: keyword arguments of the models' calls, such as train=False.

    Returns:
      The variables of the target model, and a report of what changed per layer.

    Raises:
      ValueError: the models differ in more than groups, parametrization and
        constraints, or the variables are not those of the source; the message names
        the path.
    """
    plan = match(source, target, inputs, **settings)
    flat = flatten_dict(flax.core.unfreeze(dict(variables)))
    flat = jax.tree.map(jnp.asarray, flat)
    for path in flat:
        if path[0] == "params" and path not in plan.source.shapes:
            raise ValueError(f"the source model has no variable {show(path)}")
    for path, shape in plan.source.shapes.items():
        if path not in flat:
            raise ValueError(f"variables of the source model lack {show(path)}")
        check_shape(path, flat[path], shape)
    new = {path: v for path, v in flat.items() if path[1:-1] not in plan.rewrites}
    for path, move in plan.moves.items():
        new[path] = carry(flat[path], move, value_weight)
    for path in plan.rewrites:
        new.update(_rewrite(path, plan, flat))
    for path in plan.target.shapes:  # what a rewritten layer has of its own
        if path not in new and path in flat:
            new[path] = flat[path]
    changes = tuple(_layer_change(path, plan, flat, new) for path in plan.source.layers)
    return unflatten_dict(new), MorphReport(changes)


def morph_optimizer(
    opt_state: Any,
    *,
    source: nn.Module,
    target: nn.Module,
    inputs: Any,
    **settings: Any,
) -> Any:
    """Carry the state of an optax optimizer along with `morph`.

    Moments move so that the child goes on as the parent would have, given gradients
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
      **settings: as in `morph`.

    Returns:
      The state of the same optimizer for the target's parameters.

    Raises:
      ValueError: the state holds a quantity per parameter whose meaning is unknown.
    """
    plan = match(source, target, inputs, **settings)
    if plan.rewrites:
        raise ValueError(
            f"the constraint of {show(plan.rewrites[0])} changes, and moments have no "
            "meaning under another one; start a new optimizer"
        )
    params = {path[1:] for path in plan.source.shapes if path[0] == "params"}
    return carry_optimizer(opt_state, params, plan.moves)


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
        move = moves.get(("params", *owner))
        if move is None:
            new.append(leaf)
            continue
        if field == _STEP_SCALE:
            weight = _unit_step if owner in normalized else _gradient_step
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


# --- how a quantity moves -----------------------------------------------------------

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
Weight = Callable[[Tie], np.ndarray | jax.Array]


def value_weight(tie: Tie) -> np.ndarray | jax.Array:
    """An entry of K is unit * parameter."""
    return tie.unit


def _moment_weight(tie: Tie, *, power: int) -> np.ndarray | jax.Array:
    """A parameter's gradient sums unit * dK over its orbit."""
    return (tie.size * tie.unit) ** -float(power)


def _normalized_weight(tie: Tie) -> np.ndarray | jax.Array:
    """A normalized step is the same number under every group."""
    return np.ones(tie.table.num_orbits)


def _gradient_step(tie: Tie) -> np.ndarray | jax.Array:
    """K moves by unit * (size * unit * dK) in a step along the gradient."""
    return tie.size * tie.unit**2


def _unit_step(tie: Tie) -> np.ndarray | jax.Array:
    """K moves by unit in a step whose size does not depend on the gradient."""
    return tie.unit


def carry(leaf: jax.Array, move: Move, weight: Weight) -> jax.Array:
    """Carry a quantity of which one unit is worth weight(tie) per entry of K."""

    def per_orbit(tie: Tie, like: jax.Array) -> jax.Array:
        values = weight(tie).reshape(-1, *[1] * (like.ndim - 1))
        return jnp.asarray(values, like.dtype)

    def move_one(leaf: jax.Array) -> jax.Array:
        worth = leaf * per_orbit(move.source, leaf)
        full = kernels.expand(worth, Tie(move.source.table))
        new = kernels.collapse(full, Tie(move.target.table))
        return new / per_orbit(move.target, new)

    return _under_stacked_axes(move_one, move.stacked)(leaf)


def _under_stacked_axes(fn: Callable, axes: int) -> Callable:
    for _ in range(axes):
        fn = jax.vmap(fn)
    return fn


def _growth(move: Move, weight: Weight) -> float:
    """Return by how much one unit is worth more after a move, mean over the orbits."""
    flat = dataclasses.replace(move, stacked=0)
    with jax.ensure_compile_time_eval():  # a number even while `morph` is traced
        unit = jnp.ones(move.source.table.num_orbits)
        return float(jnp.mean(1 / carry(unit, flat, weight)))


def owner_of(keys: tuple, params: Set[Path]) -> tuple[Path, str]:
    """Return the parameter that a leaf of an optimizer state belongs to, or ().

    The leaf lies under the name of its quantity, followed by the parameter's path.
    """
    names = [k.key for k in keys if isinstance(k, jax.tree_util.DictKey)]
    fields = [k.name for k in keys if isinstance(k, jax.tree_util.GetAttrKey)]
    tails = (tuple(names[start:]) for start in range(len(names)))
    owner = next((path for path in tails if path in params), ())
    return owner, fields[-1] if fields else ""


def _rewrite(path: Path, plan: Plan, flat: Mapping[Path, jax.Array]) -> dict[Path, Any]:
    """Return the variables of a layer under the target's constraint."""
    source, target = plan.source.layers[path], plan.target.layers[path]

    def rewrite(variables):
        return target.write(source.read(variables))

    rewritten = _under_stacked_axes(rewrite, plan.source.stacked_axes(path))(
        plan.source.own(path, flat)
    )
    return {(kind, *path, name): v for (kind, name), v in rewritten.items()}


def _layer_change(path: Path, plan: Plan, old: dict, new: dict) -> LayerChange:
    source, target = plan.source.layers[path], plan.target.layers[path]
    own = [p for p in plan.moves if p[1:-1] == path]
    largest = relative = jnp.zeros(())
    if own or path in plan.rewrites:
        stacked = plan.source.stacked_axes(path)
        before = _under_stacked_axes(source.read, stacked)(plan.source.own(path, old))
        after = _under_stacked_axes(target.read, stacked)(plan.source.own(path, new))
        gap = jax.tree.map(jnp.subtract, after, before)
        largest = jnp.max(jnp.stack([jnp.abs(a).max() for a in jax.tree.leaves(gap)]))
        norm = _norm(before)
        relative = _norm(gap) / jnp.where(norm > 0, norm, 1)
    main = plan.moves[own[0]] if own else None
    unchanged = float("nan") if path in plan.rewrites else 1.0
    return LayerChange(
        path=path,
        source=source.group,
        target=target.group,
        largest_change=largest,
        relative_change=relative,
        parameters_before=_count(plan.source.own(path, old)),
        parameters_after=_count(plan.source.own(path, new)),
        gradient_step=_growth(main, _gradient_step) if main else unchanged,
        normalized_step=_growth(main, _unit_step) if main else unchanged,
    )


def _count(variables: Mapping[tuple[str, str], jax.Array]) -> int:
    return sum(v.size for (kind, _), v in variables.items() if kind == "params")


def _norm(arrays: Mapping[str, jax.Array]) -> jax.Array:
    return jnp.sqrt(
        sum((jnp.sum(jnp.square(a)) for a in arrays.values()), jnp.zeros(()))
    )
