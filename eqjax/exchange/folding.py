"""Batch norms that the convolution before them takes over, for prediction.

With the running statistics, a batch norm multiplies and shifts every real channel; so
does a convolution with another kernel and bias.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import unflatten_dict

from eqjax.constraints.collections import BATCH_STATS, PARAMS
from eqjax.layers.conv import GroupConv, merge_fiber
from eqjax.layers.norms import BatchNorm
from eqjax.morphism.carrying import under_stacked_axes
from eqjax.morphism.matching import Path, TiedModel, show


@dataclasses.dataclass(frozen=True)
class Fold:
    """A batch norm and the convolution whose output it reads.

    Attributes:
      norm: path of the norm.
      convolution: path of the convolution.
      layer: the norm.
    """

    norm: Path
    convolution: Path
    layer: nn.Module


def find_folds(
    flat: Mapping[Path, Any],
    model: nn.Module,
    inputs: Any,
    call_kwargs: Mapping[str, Any] | None,
) -> tuple[Fold, ...]:
    """Return the batch norms that read what a convolution has just returned.

    A pair of layers that is not always called as one is left alone. Whether something
    else reads the output of the convolution cannot be seen here; who uses the result
    compares it with the model.

    Raises:
      ValueError: a batch norm measures the batch.
    """
    arguments = inputs if isinstance(inputs, tuple) else (inputs,)
    outputs: dict[int, tuple[Path, Any]] = {}  # with the array, so that it stays
    calls: collections.Counter[Path] = collections.Counter()
    running: set[Path] = set()
    found: list[Fold] = []

    def record(call, args, kwargs, context):
        layer = context.module
        own = context.method_name == "__call__" and layer.scope is not None
        kind = isinstance(layer, GroupConv | BatchNorm | nn.BatchNorm)
        if not own or not kind or layer.path in running:
            return call(*args, **kwargs)  # running: called by a class that inherits it
        source = outputs.get(id(args[0])) if args else None
        if source is not None and not isinstance(layer, GroupConv):
            _check_running(layer, args, kwargs)
        running.add(layer.path)
        result = call(*args, **kwargs)
        running.remove(layer.path)
        calls[layer.path] += 1
        if isinstance(layer, GroupConv):
            outputs[id(result)] = layer.path, result
        elif source is not None:
            found.append(Fold(layer.path, source[0], layer.clone(parent=None)))
        return result

    def apply(variables, *arguments):
        with nn.intercept_methods(record):
            return model.apply(variables, *arguments, **(call_kwargs or {}))

    jax.eval_shape(apply, unflatten_dict(dict(flat)), *arguments)
    pairs = collections.Counter((fold.norm, fold.convolution) for fold in found)
    unique = {fold.norm: fold for fold in found}
    return tuple(
        fold
        for fold in unique.values()
        if pairs[fold.norm, fold.convolution]
        == calls[fold.norm]
        == calls[fold.convolution]
    )


def apply_fold(found: dict[Path, Any], traced: TiedModel, fold: Fold) -> None:
    """Give a convolution of real channels the norm behind it, whose variables go."""
    layer = traced.layers[fold.convolution]
    assert isinstance(layer, GroupConv)
    fiber, split = layer.fibers[1].size, layer.feature_group_count

    def by_channel(values: jax.Array) -> jax.Array:
        """Return (real channels,) in the order of the convolution."""
        shape = (fiber, layer.features)
        if values.size == layer.features:  # one for all fiber elements
            return merge_fiber(jnp.broadcast_to(values, shape), split)
        return merge_fiber(values.reshape(shape), split)

    def folded(kernel, bias, mean, var, scale, offset):
        factor = by_channel(jax.lax.rsqrt(var + fold.layer.epsilon) * scale)
        return kernel * factor, (bias - by_channel(mean)) * factor + by_channel(offset)

    mean, var = (found.pop((BATCH_STATS, *fold.norm, n)) for n in ("mean", "var"))
    kernel = found[PARAMS, *fold.convolution, "kernel"]
    real = (*kernel.shape[: traced.stacked_axes(fold.convolution)], kernel.shape[-1])
    bias = found.get((PARAMS, *fold.convolution, "bias"), jnp.zeros(real, kernel.dtype))
    scale = found.pop((PARAMS, *fold.norm, "scale"), jnp.ones_like(var))
    offset = found.pop((PARAMS, *fold.norm, "bias"), jnp.zeros_like(mean))
    stacked = traced.stacked_axes(fold.convolution)
    kernel, bias = under_stacked_axes(folded, stacked)(
        kernel, bias, mean, var, scale, offset
    )
    found[PARAMS, *fold.convolution, "kernel"] = kernel
    found[PARAMS, *fold.convolution, "bias"] = bias


def _check_running(layer: Any, args: tuple, kwargs: Mapping[str, Any]) -> None:
    given = kwargs.get("use_running_average", args[1] if len(args) > 1 else None)
    running = nn.merge_param("running", layer.use_running_average, given)
    if not running:
        raise ValueError(
            f"{show(layer.path)} measures every batch; fold norms of a model that is "
            "called for prediction, such as call_kwargs={'train': False}"
        )
