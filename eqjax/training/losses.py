"""Losses, what is measured beside them, and what a training step minimizes.

A loss is a function (outputs, targets) -> (batch,) losses, one per sample, or `Metrics`
of one loss and one error per sample. Where it returns losses alone, they are the errors
as well: what searches compare and tables report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from eqjax.constraints.collections import PARAMS, PENALTIES


class Metrics(NamedTuple):
    """A loss, and an error: per sample, or a mean over samples.

    For `cross_entropy` the loss is in nats, and the error is 1 for a wrong class.
    """

    loss: Float[Array, ...]
    error: Float[Array, ...]

    def of(self, member: int) -> Metrics:
        """Return the metrics of one member of a population."""
        return Metrics(self.loss[member], self.error[member])


LossFn = Callable[[Any, Any], Metrics | Array]


def cross_entropy(
    logits: Float[Array, "batch classes"], y: Int[Array, " batch"]
) -> Metrics:
    """Return softmax cross-entropy and error, (batch,) each, for class numbers y."""
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    return Metrics(loss, (jnp.argmax(logits, -1) != y).astype(loss.dtype))


def measure(loss_fn: LossFn, outputs: Any, targets: Any) -> Metrics:
    """Return loss and error of every sample, (batch,) each.

    Raises:
      ValueError: the loss is not one number per sample.
    """
    found = loss_fn(outputs, targets)
    metrics = found if isinstance(found, Metrics) else Metrics(found, found)
    batch = jax.tree.leaves(targets)[0].shape[:1]
    if jnp.shape(metrics.loss) != batch or jnp.shape(metrics.error) != batch:
        raise ValueError(
            f"loss_fn must return one number per sample, shape {batch}, got "
            f"{jnp.shape(metrics.loss)}; leave the mean over the batch to the training"
        )
    return metrics


def training_loss(
    variables: Mapping[str, Any],
    x: Float[Array, "batch ..."],
    y: Any,
    *,
    model: nn.Module,
    rngs: dict[str, chex.PRNGKey],
    loss_fn: LossFn = cross_entropy,
) -> tuple[Array, tuple[Mapping[str, Any], Metrics]]:
    """Return what training minimizes, the new collections and the batch's metrics.

    It is the mean loss plus all that layers put into the collection `penalties`, such
    as the negative logarithms of priors.

    Args:
      variables: of the model.
      x: inputs of the model, called as model(x, train=True).
      y: targets.
      model: any linen module with a `train` argument.
      rngs: of the call.
      loss_fn: (outputs, y) -> a loss per sample, see the module.
    """
    kept = [name for name in variables if name != PARAMS]
    outputs, written = model.apply(
        variables, x, train=True, mutable=[*kept, PENALTIES], rngs=rngs
    )
    collections = {name: v for name, v in written.items() if name != PENALTIES}
    metrics = jax.tree.map(jnp.mean, measure(loss_fn, outputs, y))
    penalty = sum(jax.tree.leaves(written.get(PENALTIES, {})))
    return metrics.loss + penalty, (collections, metrics)
