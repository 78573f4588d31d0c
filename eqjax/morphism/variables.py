"""The equivariance relaxation morphism: carry a trained model to other groups.

Every tied parameter stands for a full array K. To move a layer from a group to another,
read K and average it over the orbits of the target. Relaxing to a subgroup changes
nothing, since K is constant on the smaller orbits already; constraining to a larger
group is the Reynolds projection. Optimizer state moves by the same rule, each quantity
by its meaning per entry of K (Maile, Wilson and Forre 2023 relax by hand-written
formulas; here the orbit tables do it).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from eqjax.constraints.collections import PARAMS
from eqjax.morphism.carrying import (
    carry,
    gradient_step_weight,
    under_stacked_axes,
    unit_step_weight,
    value_weight,
)
from eqjax.morphism.matching import (
    Move,
    Path,
    Plan,
    check_held,
    flat_variables,
    match,
)
from eqjax.morphism.measuring import growth, step_factors
from eqjax.morphism.report import LayerChange, MorphReport
from eqjax.ops.precision import accurate, norm
from eqjax.training.checks import check_optimizer


def morph(
    variables: Mapping[str, Any],
    *,
    source: nn.Module,
    target: nn.Module,
    inputs: Any,
    call_kwargs: Mapping[str, Any] | None = None,
    optimizer: optax.GradientTransformation | None = None,
) -> tuple[dict[str, Any], MorphReport]:
    """Carry the variables of a model to the same model with other groups.

    Relaxing a layer to a subgroup keeps its full kernel: bitwise in the tied
    parametrization, to rounding in the orthonormal one. Constraining it to another
    group projects. Everything that is not tied (statistics, dense layers) is kept.
    A layer whose constraint changes, as from a mixture to one group or back, is read as
    full arrays and written again: the same function where the new constraint allows it.

    Args:
      variables: of the source model, as from `source.init`.
      source: any linen model that holds eqjax layers anywhere inside.
      target: the same model with other groups.
      inputs: an input of the models, or a tuple of call arguments; only shapes matter,
        so `jax.ShapeDtypeStruct` will do.
      call_kwargs: keyword arguments of the models' calls, such as {"train": False}.
      optimizer: whose next step is measured for the report, on random gradients of
        several sizes, clips, decays and all; compiles a program, so not under jit.

    Returns:
      The variables of the target model, and a report of what changed per layer.

    Raises:
      ValueError: the models differ in more than groups, parametrization and
        constraints, or the variables are not those of the source; the message names
        the path.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> groups = eq.Architecture.uniform(D4, 2)
    >>> model = eq.exact(groups, features=(2,), pool_after=())
    >>> x = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)
    >>> variables = jax.jit(model.init)(jax.random.key(0), jnp.ones(x.shape))
    >>> relaxed = model.clone(architecture=eq.Architecture.parse(D4, "D4 C4"))
    >>> _, report = morph(variables, source=model, target=relaxed, inputs=x)
    >>> print(report)
    layer  from  to  largest change  relative  parameters  SGD step  Adam step
    conv1  D4    D4  0.0e+00         0 %       50 -> 50    x 1       x 1
    norm1  D4    D4  0.0e+00         0 %       4 -> 4      x 1       x 1
    head   D4    C4  0.0e+00         0 %       192 -> 320  x 0.5     x 1
    """
    if optimizer is not None:
        check_optimizer("optimizer", optimizer)
    plan = match(source, target, inputs, call_kwargs)
    flat = jax.tree.map(jnp.asarray, flat_variables(variables))
    check_held(plan.source, flat)
    new = {path: v for path, v in flat.items() if path[1:-1] not in plan.rewrites}
    for path, move in plan.moves.items():
        new[path] = _carried(flat[path], move=move)
    for path in plan.rewrites:
        new.update(_rewrite(path, plan, flat))
    for path in plan.target.shapes:  # what a rewritten layer has of its own
        if path not in new and path in flat:
            new[path] = flat[path]
    steps = {} if optimizer is None else step_factors(optimizer, plan)
    changes = tuple(
        _layer_change(path, plan, flat, new, steps) for path in plan.source.layers
    )
    for path, box in flatten_dict(flax.core.unfreeze(dict(variables))).items():
        if path in new and isinstance(box, nn.meta.AxisMetadata):
            new[path] = box.replace_boxed(new[path])
    return unflatten_dict(new), MorphReport(changes)


@functools.partial(jax.jit, static_argnames=("move",))  # one program, not ten
def _carried(leaf: jax.Array, *, move: Move) -> jax.Array:
    return carry(leaf, move, value_weight)


def _rewrite(path: Path, plan: Plan, flat: Mapping[Path, jax.Array]) -> dict[Path, Any]:
    """Return the variables of a layer under the target's constraint."""
    source, target = plan.source.layers[path], plan.target.layers[path]

    def rewrite(variables):
        return target.write(source.read(variables))

    rewritten = under_stacked_axes(rewrite, plan.source.stacked_axes(path))(
        plan.source.own(path, flat)
    )
    return {(kind, *path, name): v for (kind, name), v in rewritten.items()}


def _layer_change(
    path: Path, plan: Plan, old: dict, new: dict, steps: Mapping
) -> LayerChange:
    source, target = plan.source.layers[path], plan.target.layers[path]
    own = [p for p in plan.moves if p[1:-1] == path]
    largest = relative = jnp.zeros(())
    if own or path in plan.rewrites:
        stacked = plan.source.stacked_axes(path)
        before = under_stacked_axes(source.read, stacked)(plan.source.own(path, old))
        after = under_stacked_axes(target.read, stacked)(plan.source.own(path, new))
        largest, relative = _change(before, after)
    moves = [plan.moves[p] for p in own]
    main = next((move for move in moves if move.source.maps), (*moves, None)[0])
    unchanged = float("nan") if path in plan.rewrites else 1.0
    return LayerChange(
        path=path,
        source=source.group,
        target=target.group,
        largest_change=largest,
        relative_change=relative,
        parameters_before=_count(plan.source.own(path, old)),
        parameters_after=_count(plan.source.own(path, new)),
        gradient_step=growth(main, gradient_step_weight) if main else unchanged,
        normalized_step=growth(main, unit_step_weight) if main else unchanged,
        measured_step=_range(steps[p] for p in own if p in steps),
    )


@jax.jit
def _change(before: dict, after: dict) -> tuple[jax.Array, jax.Array]:
    """Return the largest and the relative change of full arrays."""
    gap = [accurate(after[name]) - accurate(before[name]) for name in before]
    largest = jnp.max(jnp.stack([jnp.abs(a).max() for a in gap]))
    size = norm(*before.values())
    return largest, norm(*gap) / jnp.where(size == 0, 1, size)


def _range(factors: Iterable[tuple[float, float]]) -> tuple[float, float] | None:
    ends = [end for pair in factors for end in pair]
    return (min(ends), max(ends)) if ends else None


def _count(variables: Mapping[tuple[str, str], jax.Array]) -> int:
    return sum(v.size for (kind, _), v in variables.items() if kind == PARAMS)
