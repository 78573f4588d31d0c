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

    A pair of layers that is not always called as one is left alone, and so is one where
    something else reads the output of the convolution, as the shortcut of a residual
    block does: there, what is added behind the convolution and kept from the norm
    changes the output.

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
    folds = [
        fold
        for fold in unique.values()
        if pairs[fold.norm, fold.convolution]
        == calls[fold.norm]
        == calls[fold.convolution]
    ]
    alone = _read_by_norms_alone(folds, flat, model, arguments, call_kwargs or {})
    return tuple(fold for fold, is_alone in zip(folds, alone, strict=True) if is_alone)


def _read_by_norms_alone(
    folds: list[Fold],
    flat: Mapping[Path, Any],
    model: nn.Module,
    arguments: tuple,
    call_kwargs: Mapping[str, Any],
) -> list[bool]:
    """Tell of every pair whether only the norm reads the convolution."""
    places = {fold.convolution: n for n, fold in enumerate(folds)}
    norms = {fold.norm for fold in folds}

    @jax.jit
    def outputs(variables, added, *arguments):
        kept: dict[int, tuple[Any, Any]] = {}  # what was added to, by what came out
        running: set[Path] = set()

        def add(call, args, kwargs, context):
            path = context.module.path
            if context.method_name != "__call__" or path in running:
                return call(*args, **kwargs)
            if path in norms and args and id(args[0]) in kept:
                args = (kept[id(args[0])][0], *args[1:])
            if path not in places:
                return call(*args, **kwargs)
            running.add(path)
            result = call(*args, **kwargs)
            running.remove(path)
            more = result + added[places[path]].astype(result.dtype)
            kept[id(more)] = result, more
            return more

        with nn.intercept_methods(add):
            return model.apply(variables, *arguments, **call_kwargs)

    key = jax.random.key(0)
    drawn = [
        jax.random.normal(key, (1, *x.shape[1:]), x.dtype)
        if hasattr(x, "shape") and jnp.issubdtype(x.dtype, jnp.inexact)
        else x
        for x in arguments
    ]
    variables = unflatten_dict(dict(flat))
    zero = jnp.zeros(len(folds))
    plain = outputs(variables, zero, *drawn)

    def same(added: jax.Array) -> bool:
        found = jax.tree.leaves(outputs(variables, added, *drawn))
        pairs = zip(found, jax.tree.leaves(plain), strict=True)
        return all(bool(jnp.array_equal(a, b)) for a, b in pairs)

    return [same(zero.at[n].set(1.0)) for n in range(len(folds))]


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
