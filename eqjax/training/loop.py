"""Training of one model: a pure step, and the loop that all trainings share."""

from __future__ import annotations

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
from eqjax.training.losses import LossFn, Metrics, cross_entropy, training_loss
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
      optimizer: any optax transformation.
      key: for models with dropout; folded with the number of the step.
      loss_fn: (outputs, y) -> a loss per sample, or `Metrics`; see `losses`.

    Returns:
      The state after the step, and the metrics of the batch before it.
    """
    rngs = {} if key is None else {"dropout": jax.random.fold_in(key, state.step)}

    def loss_of(params):
        variables = {PARAMS: params, **state.collections}
        return training_loss(variables, x, y, model=model, rngs=rngs, loss_fn=loss_fn)

    gradient, (collections, metrics) = jax.grad(loss_of, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(params, collections, opt_state, state.step + 1), metrics


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
      Metrics of the same shapes.
    """
    return jax.tree.map(lambda *values: jnp.stack(values).mean(), *history)


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
      optimizer: as in `train_step`.
      key: as in `train_step`.
      loss_fn: as in `train_step`; the same function for every call, since each new one
        is compiled.

    Returns:
      The state after the last step, and the metrics averaged over all batches.

    Raises:
      ValueError: there is no batch.
    """
    settings = {"model": model, "optimizer": optimizer, "loss_fn": loss_fn}
    step = partial(_step, key=key, **settings)
    state, history = run_steps(step, state, batches)
    return state, mean_metrics(history)
