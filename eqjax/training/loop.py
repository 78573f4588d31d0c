"""Training of one model: a pure step, and the loop that all trainings share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from eqjax.constraints.collections import PARAMS
from eqjax.training.checks import check_batches
from eqjax.training.losses import (
    LossFn,
    Metrics,
    at_least_single,
    count_classes,
    cross_entropy,
    training_loss,
    training_outputs,
)
from eqjax.training.state import TrainState

State = TypeVar("State")
Batch = TypeVar("Batch")


def train_step(
    state: TrainState,
    x: Float[Array, "batch ..."],
    y: Any,
    *,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    key: chex.PRNGKey | None = None,
    loss_fn: LossFn = cross_entropy,
) -> tuple[TrainState, Metrics]:
    """Take one step on the mean loss of a batch, and on penalties.

    Args:
      state: before the step.
      x: inputs of the model, called as model(x, train=True).
      y: targets, such as class numbers (batch,).
      model: any linen module with a `train` argument.
      optimizer: any optax transformation; one that takes extra arguments, such as
        `optax.contrib.reduce_on_plateau` or `optax.lbfgs`, gets those of `updates_of`.
        Static under `jax.jit`, where one made anew is compiled anew.
      key: for models with dropout; folded with the number of the step.
      loss_fn: (outputs, y) -> a loss per sample, or `Metrics`; see `losses`.

    Returns:
      The state after the step, and the metrics of the batch before it.
    """
    rngs = {} if key is None else {"dropout": jax.random.fold_in(key, state.step)}

    def loss_of(params):
        variables = {PARAMS: params, **state.collections}
        return training_loss(variables, x, y, model=model, rngs=rngs, loss_fn=loss_fn)

    params, opt_state, (collections, metrics) = take_step(
        loss_of, state.params, state.opt_state, optimizer
    )
    return TrainState(params, collections, opt_state, state.step + 1), metrics


def take_step(
    loss_of: Callable[[Any], tuple[Array, Any]],
    params: Any,
    opt_state: Any,
    optimizer: optax.GradientTransformation,
) -> tuple[Any, Any, Any]:
    """Take one step of an optimizer.

    Args:
      loss_of: parameters -> the loss to minimize, and what else is found.
      params: before the step.
      opt_state: before the step.
      optimizer: of the parameters.

    Returns:
      Parameters and state after the step, and what else was found before it.
    """
    updates, opt_state, found = updates_of(loss_of, params, opt_state, optimizer)
    return optax.apply_updates(params, updates), opt_state, found


def updates_of(
    loss_of: Callable[[Any], tuple[Array, Any]],
    params: Any,
    opt_state: Any,
    optimizer: optax.GradientTransformation,
) -> tuple[Any, Any, Any]:
    """Return the updates of an optimizer, with all that it may ask for.

    Transformations with extra arguments get the loss as `value`, its gradient as
    `grad`, the loss as a function of the parameters as `value_fn` and `obj_fn`, and its
    gradient as `grad_fn`, on the same batch with the same random numbers.

    Args:
      loss_of: parameters -> the loss to minimize, and what else is found.
      params: before the step.
      opt_state: before the step.
      optimizer: of the parameters.

    Returns:
      The updates, the state after them, and what else was found before.
    """
    (value, found), gradient = jax.value_and_grad(loss_of, has_aux=True)(params)

    def loss_alone(params, obj_fn=None, grad_fn=None):
        del obj_fn, grad_fn  # line searches take what their function does not, amiss
        return loss_of(params)[0]

    offered = {
        "value": value,
        "grad": gradient,
        "value_fn": loss_alone,
        "obj_fn": loss_alone,
        "grad_fn": lambda params, _: jax.grad(loss_alone)(params),
    }
    update = optax.with_extra_args_support(optimizer).update
    taken = inspect.signature(update).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in taken.values()):  # as SAM's
        offered = {name: v for name, v in offered.items() if name in taken}
    updates, opt_state = update(gradient, opt_state, params, **offered)
    return updates, opt_state, found


def run_steps(
    step: Callable[[State, Batch], tuple[State, Any]],
    state: State,
    batches: Iterable[Batch],
    on_step: Callable[[int, State], None] | None = None,
) -> tuple[State, list[Any]]:
    """Take one step per batch: the loop of all trainings.

    Args:
      step: (state, batch) -> the next state and what is measured.
      state: before the first step.
      batches: one for each step.
      on_step: called after each step with its number, from 1, and the state.

    Returns:
      The state after the last step, and what every step measured.

    Raises:
      ValueError: there is no batch.
    """
    measured = []
    for number, batch in enumerate(batches, 1):
        state, found = step(state, batch)
        measured.append(found)
        if on_step is not None:
            on_step(number, state)
    if not measured:
        raise ValueError("training needs at least one batch; is batch_size too large?")
    return state, measured


def mean_metrics(history: list[Metrics]) -> Metrics:
    """Return the mean over steps.

    Args:
      history: the metrics of every step, of equal shapes.

    Returns:
      Metrics of the same shapes, at least float32; not finite if those of any step are
      not.

    Raises:
      ValueError: there is no step.
    """
    if not history:
        raise ValueError("a mean over steps needs at least one, got none")
    return jax.tree.map(
        lambda *values: at_least_single(jnp.stack(values)).mean(), *history
    )


_outputs = jax.jit(training_outputs, static_argnames="model")


def class_counter(
    state: TrainState, key: chex.PRNGKey | None, model: nn.Module, loss_fn: LossFn
) -> Callable[[Any], int | None]:
    """Return a function of inputs: how many classes a model in training has."""

    def count(x):
        rngs = {} if key is None else {"dropout": key}
        outputs, _ = _outputs.eval_shape(state.variables, x, model=model, rngs=rngs)
        return count_classes(loss_fn, outputs)

    return count


@partial(jax.jit, static_argnames=("model", "optimizer", "loss_fn"))
def _step(state, batch, key, *, model, optimizer, loss_fn):
    x, y = batch
    return train_step(
        state, x, y, model=model, optimizer=optimizer, key=key, loss_fn=loss_fn
    )


def train(
    state: TrainState,
    batches: Iterable[tuple[np.ndarray | Array, Any]],
    *,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    key: chex.PRNGKey | None = None,
    loss_fn: LossFn = cross_entropy,
) -> tuple[TrainState, Metrics]:
    """Take one step per batch.

    Args:
      state: before the first step.
      batches: pairs (x, y) of equal shapes.
      model: as in `train_step`.
      optimizer: as in `train_step`; the same object for every call, since one made
        anew is compiled anew, even of equal settings.
      key: as in `train_step`.
      loss_fn: as in `train_step`; the same function for every call, since one made
        anew, as by `lambda`, is compiled anew.

    Returns:
      The state after the last step, and the metrics averaged over all batches.

    Raises:
      ValueError: there is no batch, a batch is empty or has not as many x as y, or a
        label is not one of the model's classes.
    """
    settings = {"model": model, "optimizer": optimizer, "loss_fn": loss_fn}
    step = partial(_step, key=key, **settings)
    checked = check_batches(batches, class_counter(state, key, model, loss_fn))
    state, history = run_steps(step, state, checked)
    return state, mean_metrics(history)
