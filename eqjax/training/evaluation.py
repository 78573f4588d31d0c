"""Evaluation over all samples of a data set, of one model or of many."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from eqjax.training.checks import check_labels, check_samples
from eqjax.training.losses import (
    LossFn,
    Metrics,
    count_classes,
    cross_entropy,
    measure,
)

_SAMPLES = 500  # of a batch, fewer where they have more points than these
_GRID_POINTS = 28 * 28


def batch_slices(x: Any, y: Any, batch_size: int) -> Iterator[slice]:
    """Yield the positions of the samples of every batch; the last may be smaller.

    Args:
      x: (samples, ...), anything with a length.
      y: (samples, ...), the same.
      batch_size: samples per batch.

    Raises:
      ValueError: there are no samples, or not as many targets, or none in a batch.
    """
    check_samples(x, y)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    return (slice(i, i + batch_size) for i in range(0, len(y), batch_size))


def over_samples(sums: list[Metrics], samples: int) -> Metrics:
    """Return the mean over samples.

    Args:
      sums: over the samples of every batch, a number each; sums of errors are whole
        numbers, so that equal errors stay equal numbers.
      samples: of all batches.
    """
    return jax.tree.map(lambda *values: jnp.stack(values).sum() / samples, *sums)


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Return the mean of some samples, and its standard error.

    Args:
      values: (samples,), such as differences of losses, sample by sample.

    Returns:
      Both numbers; the error of a single sample is NaN.

    >>> mean_and_error(np.array([1.0, 3.0]))
    (2.0, 1.0)
    """
    count = len(values)
    error = float(values.std(ddof=1) / count**0.5) if count > 1 else math.nan
    return float(values.mean()), error


@partial(jax.jit, static_argnames=("model",))
def _outputs(variables, x, *, model: nn.Module) -> Any:
    return model.apply(variables, x)


@partial(jax.jit, static_argnames=("model", "loss_fn"))
def _sum_over_batch(variables, x, y, *, model: nn.Module, loss_fn: LossFn) -> Metrics:
    outputs: Any = model.apply(variables, x)
    return jax.tree.map(jnp.sum, measure(loss_fn, outputs, y))


def evaluate(
    variables: Mapping[str, Any],
    x: Any,
    y: Any,
    *,
    model: nn.Module,
    batch_size: int | None = None,
    loss_fn: LossFn = cross_entropy,
) -> Metrics:
    """Return the metrics of a model in evaluation mode over all samples.

    The last batch may be smaller; every sample weighs the same.

    Args:
      variables: of the model.
      x: array (samples, ...), or anything of that length whose slices are arrays.
      y: targets, such as class numbers (samples,).
      model: called as model(x).
      batch_size: samples at once; by default 500, or as many as have the points of 500
        images of 28 x 28, if that is less.
      loss_fn: (outputs, y) -> a loss per sample, or `Metrics`; see `losses`. One made
        anew, as by `lambda`, is compiled anew.

    Returns:
      The means of loss and error; not finite if those of any sample are not.

    Raises:
      ValueError: there are no samples or not as many targets, a label is not one of the
        model's classes, or batch_size is below 1.
    """
    parts = _checked_parts(variables, x, y, model, batch_size, loss_fn)
    settings = {"model": model, "loss_fn": loss_fn}
    sums = [_sum_over_batch(variables, x[part], y[part], **settings) for part in parts]
    return over_samples(sums, len(y))


def predict(
    variables: Mapping[str, Any],
    x: Any,
    *,
    model: nn.Module,
    batch_size: int | None = None,
) -> np.ndarray:
    """Return the outputs of a model in evaluation mode for all samples, on the host.

    Args:
      variables: of the model.
      x: array (samples, ...), or anything of that length whose slices are arrays.
      model: called as model(x); returns an array (samples, ...).
      batch_size: as in `evaluate`.

    Returns:
      (samples, ...), the outputs.

    Raises:
      ValueError: there are no samples, or batch_size is below 1.
    """
    batch_size = _usual_batch(x) if batch_size is None else batch_size
    parts = batch_slices(x, x, batch_size)
    outputs = [_outputs(variables, x[part], model=model) for part in parts]
    return np.concatenate(jax.device_get(outputs))


@partial(jax.jit, static_argnames=("model", "loss_fn"))
def _losses(variables, x, y, *, model: nn.Module, loss_fn: LossFn) -> Any:
    outputs: Any = model.apply(variables, x)
    return measure(loss_fn, outputs, y).loss


def sample_losses(
    variables: Mapping[str, Any],
    x: Any,
    y: Any,
    *,
    model: nn.Module,
    batch_size: int | None = None,
    loss_fn: LossFn = cross_entropy,
) -> np.ndarray:
    """Return the loss of every sample in evaluation mode, on the host.

    Two networks on the same samples are compared by these, in pairs.

    Args:
      variables: of the model.
      x: array (samples, ...), or anything of that length whose slices are arrays.
      y: targets, such as class numbers (samples,).
      model: called as model(x).
      batch_size: as in `evaluate`.
      loss_fn: as in `evaluate`.

    Returns:
      (samples,), in nats for cross-entropy.

    Raises:
      ValueError: as `evaluate`.
    """
    parts = _checked_parts(variables, x, y, model, batch_size, loss_fn)
    settings = {"model": model, "loss_fn": loss_fn}
    losses = [_losses(variables, x[part], y[part], **settings) for part in parts]
    return np.concatenate(jax.device_get(losses))


def _checked_parts(
    variables: Mapping[str, Any],
    x: Any,
    y: Any,
    model: nn.Module,
    batch_size: int | None,
    loss_fn: LossFn,
) -> Iterator[slice]:
    """Yield the positions of every batch, of samples that fit the model."""
    batch_size = _usual_batch(x) if batch_size is None else batch_size
    parts = batch_slices(x, y, batch_size)
    first = _outputs.eval_shape(variables, x[:batch_size], model=model)
    if (classes := count_classes(loss_fn, first)) is not None:
        check_labels(y, len(x), classes)
    return parts


def _usual_batch(x: Any) -> int:
    points = max(_GRID_POINTS, math.prod(np.shape(x[:1])[1:-1]))
    return max(1, _SAMPLES * _GRID_POINTS // points)
