"""Losses, what is measured beside them, and what a training step minimizes.

A loss is a function (outputs, targets) -> (batch,) losses, one per sample, or `Metrics`
of one loss and one error per sample. Where it returns losses alone, they are the errors
as well: what searches compare and tables report.

A sample that the network has no finite answer to has no finite error either: where
loss or error of a sample is not finite, or one of its logits, both are NaN or infinite,
and so are all means over it. Metrics are at least float32, whatever the network is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Shaped

from eqjax.constraints.collections import PARAMS, PENALTIES
from eqjax.training.checks import check_labels


class Metrics(NamedTuple):
    """A loss, and an error: per sample, or a mean over samples.

    For `cross_entropy` the loss is in nats, and the error is 1 for a wrong class.
    """

    loss: Float[Array, "..."]
    error: Float[Array, "..."]

    def __repr__(self) -> str:
        return f"Metrics(loss {self.loss}, error {self.error})"

    def of(self, member: int) -> Metrics:
        """Return the metrics of one member of a population."""
        return Metrics(self.loss[member], self.error[member])


LossFn = Callable[[Any, Any], Metrics | Array]


def cross_entropy(
    logits: Float[Array, "batch classes"], y: Shaped[Array | np.ndarray, "..."]
) -> Metrics:
    """Return softmax cross-entropy and error, (batch,) each, for class numbers y.

    Both are NaN for a sample with a logit that is not finite: to leave a class out, use
    a large negative number.

    Raises:
      ValueError: y is not one integer per sample or, where it is known before the
        computation runs, has a label outside [0, classes).
    """
    check_labels(y, len(logits), logits.shape[-1])
    logits = at_least_single(logits)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    wrong = (jnp.argmax(logits, -1) != y).astype(loss.dtype)
    lost = _nan_unless(jnp.isfinite(logits).all(-1), loss.dtype)
    return Metrics(loss + lost, wrong + lost)


def mean_squared_error(outputs: Any, y: Any) -> Array:
    """Return the mean of squared differences of each sample, (batch,); for regression.

    Raises:
      ValueError: targets have another shape than the outputs.

    >>> mean_squared_error(jnp.ones((2, 3)), jnp.zeros((2, 3))).tolist()
    [1.0, 1.0]
    """
    _check_same_shape(outputs, y)
    gap = at_least_single(outputs) - at_least_single(y)
    return (gap**2).reshape(len(gap), -1).mean(-1)


def sigmoid_cross_entropy(logits: Any, y: Any) -> Metrics:
    """Return loss and error of labels that are true or not, each by itself.

    Args:
      logits: (batch, ..., labels).
      y: the same shape, zeros and ones.

    Returns:
      The mean over all labels of a sample, in nats; the share of wrong ones.

    >>> logits, y = jnp.array([[9.0, 9.0]]), jnp.array([[1, 0]])
    >>> sigmoid_cross_entropy(logits, y).error.tolist()
    [0.5]
    """
    _check_same_shape(logits, y)
    logits = at_least_single(logits)
    loss = optax.sigmoid_binary_cross_entropy(logits, jnp.asarray(y, logits.dtype))
    wrong = ((logits > 0) != (jnp.asarray(y) > 0)).astype(loss.dtype)
    return Metrics(*(v.reshape(len(v), -1).mean(-1) for v in (loss, wrong)))


def pixel_cross_entropy(logits: Any, y: Any) -> Metrics:
    """Return loss and error of a class for every point, as in segmentation.

    Args:
      logits: (batch, *space, classes).
      y: (batch, *space), class numbers.

    Returns:
      The mean over all points of a sample, in nats; the share of wrong points.

    >>> logits, y = jnp.zeros((2, 4, 4, 3)), jnp.zeros((2, 4, 4), int)
    >>> pixel_cross_entropy(logits, y).error.tolist()
    [0.0, 0.0]
    """
    classes = logits.shape[-1]
    if np.shape(y) != logits.shape[:-1]:
        raise ValueError(
            f"expected a class for every point, {logits.shape[:-1]}, got {np.shape(y)}"
        )
    points = math.prod(logits.shape[1:-1])
    flat = cross_entropy(logits.reshape(-1, classes), jnp.reshape(y, -1))
    return Metrics(*(v.reshape(-1, points).mean(-1) for v in flat))


def _check_same_shape(outputs: Any, y: Any) -> None:
    if np.shape(outputs) != np.shape(y):
        raise ValueError(
            f"expected targets of the outputs' shape {np.shape(outputs)}, got "
            f"{np.shape(y)}"
        )


def at_least_single(values: Any) -> Array:
    """Return real numbers in float32, or as they are if that is more precise."""
    values = jnp.asarray(values)
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))


def _nan_unless(finite: Array, dtype: Any) -> Array:
    return jnp.where(finite, 0, jnp.nan).astype(dtype)


def measure(loss_fn: LossFn, outputs: Any, targets: Any) -> Metrics:
    """Return loss and error of every sample, (batch,) each, at least float32.

    Where one of them is not finite, neither is the other.

    Raises:
      ValueError: the loss is not one number per sample.
    """
    found = loss_fn(outputs, targets)
    loss, error = found if isinstance(found, Metrics) else (found, found)
    batch = np.shape(jax.tree.leaves(targets)[0])[:1]
    if jnp.shape(loss) != batch or jnp.shape(error) != batch:
        raise ValueError(
            f"loss_fn must return one number per sample, shape {batch}, got "
            f"{jnp.shape(loss)}; leave the mean over the batch to the training"
        )
    loss, error = at_least_single(loss), at_least_single(error)
    return Metrics(
        loss + _nan_unless(jnp.isfinite(error), loss.dtype),
        error + _nan_unless(jnp.isfinite(loss), error.dtype),
    )


def count_classes(loss_fn: LossFn, outputs: Any) -> int | None:
    """Return how many classes a loss chooses from; None if its targets are no labels.

    Args:
      loss_fn: of the training.
      outputs: abstract, of the network.
    """
    is_matrix = len(getattr(outputs, "shape", ())) == 2
    return outputs.shape[-1] if loss_fn is cross_entropy and is_matrix else None


def training_outputs(
    variables: Mapping[str, Any],
    x: Float[Array, "batch ..."],
    *,
    model: nn.Module,
    rngs: dict[str, chex.PRNGKey],
) -> tuple[Any, Mapping[str, Any]]:
    """Return the outputs of a model in training mode, and what it writes."""
    kept = [name for name in variables if name != PARAMS]
    return model.apply(variables, x, train=True, mutable=[*kept, PENALTIES], rngs=rngs)


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
    outputs, written = training_outputs(variables, x, model=model, rngs=rngs)
    collections = {name: v for name, v in written.items() if name != PENALTIES}
    metrics = jax.tree.map(jnp.mean, measure(loss_fn, outputs, y))
    penalty = sum(jax.tree.leaves(written.get(PENALTIES, {})))
    return metrics.loss + penalty, (collections, metrics)
