"""Training and evaluation of one model: pure functions of state and batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from eqjax.constraints import PENALTIES


class TrainState(NamedTuple):
    """Everything that a training step reads and writes.

    Attributes:
      params: trainable parameters.
      statistics: the other collections, such as {"batch_stats": ...}.
      opt_state: state of the optimizer.
      step: int32, number of steps taken.
    """

    params: chex.ArrayTree
    statistics: chex.ArrayTree
    opt_state: chex.ArrayTree
    step: Array

    @property
    def variables(self) -> dict[str, Any]:
        """What `model.apply` takes."""
        return {"params": self.params, **self.statistics}


class Metrics(NamedTuple):
    """Cross-entropy in nats, and error in [0, 1]: per sample, or a mean over them."""

    loss: Float[Array, "..."]
    error: Float[Array, "..."]

    def of(self, member: int) -> Metrics:
        """Return the metrics of one member of a population."""
        return Metrics(self.loss[member], self.error[member])


def init_state(
    key: chex.PRNGKey,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    x: np.ndarray | Array,
) -> TrainState:
    """Return the state of an untrained model for inputs like x."""
    variables = _init(key, x, model=model)
    return pack_state(variables, optimizer.init(variables["params"]))


@partial(jax.jit, static_argnames=("model",))
def _init(key, x, *, model: nn.Module):
    return model.init(key, x)


def pack_state(
    variables: Mapping[str, Any], opt_state: Any, step: int | Array = 0
) -> TrainState:
    """Build the state from variables and the optimizer's state."""
    statistics = {name: v for name, v in variables.items() if name != "params"}
    return TrainState(
        variables["params"], statistics, opt_state, jnp.asarray(step, jnp.int32)
    )


def train_step(
    state: TrainState,
    x: Float[Array, "batch ..."],
    y: Int[Array, " batch"],
    *,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    key: chex.PRNGKey | None = None,
) -> tuple[TrainState, Metrics]:
    """Take one step on the mean softmax cross-entropy of a batch, and on penalties.

    Args:
      state: before the step.
      x: inputs of the model, called as model(x, train=True).
      y: class numbers.
      model: any linen module with a `train` argument.
      optimizer: any optax transformation.
      key: for models with dropout; folded with the number of the step.

    Returns:
      The state after the step, and the metrics of the batch before it.
    """
    rngs = {} if key is None else {"dropout": jax.random.fold_in(key, state.step)}

    def loss_of(params):
        variables = {"params": params, **state.statistics}
        return training_loss(variables, x, y, model=model, rngs=rngs)

    gradient, (statistics, metrics) = jax.grad(loss_of, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(params, statistics, opt_state, state.step + 1), metrics


def training_loss(
    variables: Mapping[str, Any],
    x: Float[Array, "batch ..."],
    y: Int[Array, " batch"],
    *,
    model: nn.Module,
    rngs: dict[str, chex.PRNGKey],
) -> tuple[Array, tuple[Mapping[str, Any], Metrics]]:
    """Return what training minimizes, the new statistics and the batch's metrics.

    It is the mean softmax cross-entropy plus all that layers put into the collection
    `penalties`, such as the negative logarithms of priors.
    """
    kept = [name for name in variables if name != "params"]
    logits, written = model.apply(
        variables, x, train=True, mutable=[*kept, PENALTIES], rngs=rngs
    )
    statistics = {name: v for name, v in written.items() if name != PENALTIES}
    metrics = jax.tree.map(jnp.mean, classification_metrics(logits, y))
    penalty = sum(jax.tree.leaves(written.get(PENALTIES, {})))
    return metrics.loss + penalty, (statistics, metrics)


def classification_metrics(
    logits: Float[Array, "batch classes"], y: Int[Array, " batch"]
) -> Metrics:
    """Return cross-entropy and error, (batch,) each, of logits for class numbers y."""
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    return Metrics(loss, (jnp.argmax(logits, -1) != y).astype(loss.dtype))


_jitted_step = jax.jit(train_step, static_argnames=("model", "optimizer"))


def train(
    state: TrainState,
    batches: Iterable[tuple[np.ndarray | Array, np.ndarray | Array]],
    *,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    key: chex.PRNGKey | None = None,
) -> tuple[TrainState, Metrics]:
    """Take one step per batch.

    Args:
      state: before the first step.
      batches: pairs (x, y) of equal shapes.
      model: as in `train_step`.
      optimizer: as in `train_step`.
      key: as in `train_step`.

    Returns:
      The state after the last step, and the metrics averaged over all batches.

    Raises:
      ValueError: there is no batch.
    """
    history = []
    for x, y in batches:
        state, metrics = _jitted_step(
            state, x, y, model=model, optimizer=optimizer, key=key
        )
        history.append(metrics)
    if not history:
        raise ValueError("train needs at least one batch; is batch_size too large?")
    return state, jax.tree.map(lambda *values: jnp.stack(values).mean(), *history)


@partial(jax.jit, static_argnames=("model",))
def _evaluate_batch(variables, x, y, *, model: nn.Module) -> Metrics:
    """Return sums over the batch, so that equal errors stay equal numbers."""
    logits: Any = model.apply(variables, x)
    per_sample = classification_metrics(logits, y)
    return jax.tree.map(jnp.sum, per_sample)


def evaluate(
    variables: Mapping[str, Any],
    x: Any,
    y: Int[np.ndarray | Array, " labels"],
    *,
    model: nn.Module,
    batch_size: int = 500,
) -> Metrics:
    """Return the metrics of a model in evaluation mode over all samples.

    The last batch may be smaller; every sample weighs the same.

    Args:
      variables: of the model.
      x: array (samples, ...), or anything of that length whose slices are arrays.
      y: class numbers.
      model: called as model(x).
      batch_size: samples at once.
    """
    samples = len(y)
    if samples == 0 or len(x) != samples:
        raise ValueError(f"evaluate needs as many x as y, got {len(x)} and {samples}")
    parts = [slice(i, i + batch_size) for i in range(0, samples, batch_size)]
    sums = [_evaluate_batch(variables, x[p], y[p], model=model) for p in parts]
    return jax.tree.map(lambda *values: jnp.stack(values).sum() / samples, *sums)


def count_parameters(params: Any) -> int:
    """Return the number of trainable parameters in a tree of arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
