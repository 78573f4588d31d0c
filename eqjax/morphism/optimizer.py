"""The state of an optimizer, carried along with the parameters that it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from eqjax.constraints.collections import PARAMS
from eqjax.morphism.matching import match, show
from eqjax.morphism.measuring import check_powers, warn_of_steps
from eqjax.morphism.moments import (
    CompensationState,
    carry_optimizer,
    restart_optimizer,
)
from eqjax.training.checks import check_optimizer


def morph_optimizer(
    opt_state: Any,
    *,
    source: nn.Module,
    target: nn.Module,
    inputs: Any,
    call_kwargs: Mapping[str, Any] | None = None,
    optimizer: optax.GradientTransformation | None = None,
    restart: bool = False,
) -> Any:
    """Carry the state of an optax optimizer along with `morph`.

    Moments move so that the child continues as the parent would have, given gradients
    that keep the parent's symmetry: exactly for SGD and momentum in the orthonormal
    parametrization and for Adam in the tied one. In the other two pairings the step
    changes by the factor that the report of `morph` names; put `compensated_steps()`
    behind the optimizer to undo it.

    What a state means is read off its class, its shape and its place in the chain. Some
    optimizers keep something else under the class of another: adamax and adopt under
    Adam's; and what has no state, such as clips and signs, leaves nothing to read. Pass
    `optimizer` to have the meanings measured, with a warning where the next step grows
    by another factor than the two; passed to `morph`, it is in the report.

    Args:
      opt_state: the state of any optax chain of sgd, momentum, adam, adamw and kin.
      source: as in `morph`.
      target: as in `morph`.
      inputs: as in `morph`.
      call_kwargs: as in `morph`.
      restart: moments of the layers that change start at zero instead: see
        `restart_optimizer`.
      optimizer: the one that the state is of, to be measured; compiles a program.

    Returns:
      The state of the same optimizer for the target's parameters.

    Raises:
      ValueError: the state holds a quantity of a parameter that moves whose meaning is
        unknown, whose shape is not the parameter's, or, where the optimizer is given,
        that is not what its class says.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> groups = eq.Architecture.uniform(D4, 2)
    >>> model = eq.exact(groups, features=(2,), pool_after=())
    >>> x = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)
    >>> shapes = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    >>> adam = optax.adam(1e-3).init(jax.tree.map(lambda p: jnp.zeros(p.shape), shapes))
    >>> relaxed = model.clone(architecture=eq.Architecture.parse(D4, "D4 C4"))
    >>> moved = morph_optimizer(adam, source=model, target=relaxed, inputs=x)
    >>> [state[0].mu["head"]["kernel"].shape for state in (adam, moved)]
    [(1, 2, 64), (2, 2, 64)]
    """
    if optimizer is not None:
        check_optimizer("optimizer", optimizer)
    plan = match(source, target, inputs, call_kwargs)
    if plan.rewrites:
        raise ValueError(
            f"the constraint of {show(plan.rewrites[0])} changes, and moments have no "
            "meaning under another one; start a new optimizer"
        )
    params = {p[1:]: s.shape for p, s in plan.source.shapes.items() if p[0] == PARAMS}
    new = carry_optimizer(opt_state, params, plan.moves, warn=optimizer is None)
    if optimizer is not None and plan.moves:
        check_powers(optimizer, plan)
        warn_of_steps(optimizer, plan)
    return restart_optimizer(new, params, plan.moves) if restart else new


def compensated_steps() -> optax.GradientTransformation:
    """Scale updates so that relaxing a layer leaves the size of its steps alone.

    Starts as the identity; `morph_optimizer` adjusts its factors. Put it behind the
    transformation whose steps it shall correct and before decoupled weight decay:

    >>> sgd = optax.chain(optax.sgd(0.1), compensated_steps())

    With parametrization="orthonormal" the norm of all parameters is that of all full
    arrays, so that this clips the same before and after a move:

    >>> clipped = optax.chain(
    ...     optax.clip_by_global_norm(1.0), optax.adam(0.1), compensated_steps()
    ... )
    """

    def init(params):
        return CompensationState(jax.tree.map(jnp.ones_like, params))

    def update(updates, state, params=None):
        del params
        return jax.tree.map(jnp.multiply, updates, state.step_scale), state

    return optax.GradientTransformation(init, update)
