"""Checks of samples, labels and what trains on them, before anything is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


def check_labels(y: Any, samples: int, classes: int) -> None:
    """Raise unless there is one class number for each of so many samples.

    Of labels that are traced, only shape and dtype can be checked.

    Raises:
      ValueError: the message names the first label outside [0, classes).
    """
    if np.shape(y) != (samples,):
        raise ValueError(
            f"expected one label for each of {samples} samples, shape ({samples},), "
            f"got {np.shape(y)}; of one-hot labels take argmax(-1)"
        )
    dtype = jnp.result_type(y)
    if not jnp.issubdtype(dtype, jnp.integer):
        raise ValueError(
            f"labels are class numbers of an integer dtype, got {dtype}; convert them, "
            "as by y.astype(np.int32)"
        )
    if isinstance(y, jax.core.Tracer) or not getattr(y, "is_fully_addressable", True):
        return
    labels = np.asarray(y)
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(outside):
        first = outside[0]
        more = f", and {len(outside) - 1} more" * (len(outside) > 1)
        raise ValueError(
            f"label {labels[first]} of sample {first} is outside 0..{classes - 1}: the "
            f"network has {classes} outputs, one per class{more}"
        )


def check_samples(x: Any, y: Any) -> None:
    """Raise unless there are samples, a target for each, and images are real numbers.

    Args:
      x: (samples, ...), anything with a length.
      y: (samples, ...), or a tree of such arrays.
    """
    targets = len(jax.tree.leaves(y)[0])
    if len(x) == 0 or len(x) != targets:
        raise ValueError(
            f"expected at least one sample and as many x as y, got {len(x)} and "
            f"{targets}"
        )
    check_images(x)


def check_images(x: Any) -> None:
    """Raise if these are images, (batch, *space, channels), of integers."""
    dtype, axes = getattr(x, "dtype", None), len(getattr(x, "shape", ()))
    if dtype is not None and axes > 2 and not jnp.issubdtype(dtype, jnp.inexact):
        raise ValueError(
            f"images must be floating, got {dtype}; convert them, as by "
            "x.astype(np.float32) / 255"
        )


def check_batches(
    batches: Iterable[tuple[Any, Any]], classes_of: Callable[[Any], int | None]
) -> Iterator[tuple[Any, Any]]:
    """Yield batches (x, y), each after its check.

    Args:
      batches: pairs (x, y).
      classes_of: x -> the number of classes, asked for the first batch alone; None
        where targets are no class numbers.
    """
    classes = None
    for number, (x, y) in enumerate(batches):
        check_samples(x, y)
        if number == 0:
            classes = classes_of(x)
        if classes is not None:
            check_labels(y, len(x), classes)
        yield x, y


def check_model(name: str, value: Any) -> None:
    """Raise TypeError unless an argument is a linen module."""
    if not isinstance(value, nn.Module):
        hint = "; call it first" if callable(value) else ""
        raise TypeError(
            f"{name} must be a linen module, as eq.exact(...) returns, got "
            f"{value!r:.80}{hint}"
        )


def check_variables(name: str, value: Any) -> None:
    """Raise TypeError unless an argument can hold the variables of a model."""
    if not isinstance(value, Mapping):
        raise TypeError(
            f"{name} must be a dict of collections, as model.init(key, x) returns, got "
            f"a {type(value).__name__}"
        )


def check_optimizer(name: str, value: Any) -> None:
    """Raise TypeError unless an argument is a transformation of optax."""
    if not (callable(getattr(value, "init", None)) and hasattr(value, "update")):
        hint = "; call it first" if callable(value) else ""
        raise TypeError(
            f"{name} must be a transformation of optax, such as optax.adam(1e-3), got "
            f"{value!r:.80}{hint}"
        )


def check_pair(name: str, value: Any) -> None:
    """Raise TypeError unless an argument is a pair of samples and targets."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(
            f"{name} must be a pair (samples, targets), got a {type(value).__name__}"
        )
