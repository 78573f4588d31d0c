"""A model as a plain network: each layer with a group becomes a layer of Flax.

The code of the model runs as it is. At the moment a layer with a group is called, a
layer of `flax.linen` takes its place, under the same path, on the same number of real
channels: fiber elements and channels merged, elements outermost. So its parameters are
those of a plain network, and nothing is tied any more.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import unflatten_dict

from eqjax.constraints.collections import BATCH_STATS, PARAMS
from eqjax.exchange.channels import real_arrays, split_of
from eqjax.exchange.folding import apply_fold, find_folds
from eqjax.layers import base, conv, norms
from eqjax.morphism.carrying import under_stacked_axes
from eqjax.morphism.matching import Path, flat_variables, show, tied_model
from eqjax.morphism.regrouping import Code
from eqjax.ops.precision import mean

Flat = dict[Path, Any]


class Plain(nn.Module):
    """A model whose layers with a group are layers of Flax, under the same paths.

    Called as the model is. Batch norms keep their running statistics; trained on, each
    real channel has statistics of its own, as plain networks have.

    Attributes:
      code: the model.
      folded: paths of norms, each with that of the convolution that has taken it over.
    """

    code: Code
    folded: tuple[tuple[Path, Path], ...] = ()

    def setup(self):
        """Bind the model where this module is, without a level of its own."""
        bound = self.code.model.clone(parent=self.scope)
        object.__setattr__(self, "_bound", bound)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model."""
        depth = len(self.path)
        gone = {norm for norm, _ in self.folded}
        biased = {before for _, before in self.folded}

        def replace(call, args, kwargs, context):
            layer = context.module
            if context.method_name != "__call__" or layer.scope is None:
                return call(*args, **kwargs)
            path = layer.path[depth:]
            if path in gone:
                return args[0]
            if not isinstance(layer, base.TiedModule):
                return call(*args, **kwargs)
            return plain_call(layer, args, kwargs, biased=path in biased)

        with nn.intercept_methods(replace):
            return self._bound(*args, **kwargs)


def to_plain(
    variables: Mapping[str, Any],
    *,
    model: nn.Module,
    inputs: Any,
    call_kwargs: Mapping[str, Any] | None = None,
    fold_norms: bool = False,
) -> tuple[dict[str, Any], Plain]:
    """Turn every layer with a group into a layer of Flax of the same real width.

    Args:
      variables: of the model, concrete.
      model: any linen model that holds eqjax layers, of any constraints.
      inputs: an input of the model, or a tuple of call arguments; shapes are enough.
      call_kwargs: keyword arguments of the model's call.
      fold_norms: let every convolution take over the batch norm that reads its output,
        with the running statistics; the network is then for prediction alone.

    Returns:
      The variables of the plain network, nested as those of the model, and the network.

    Raises:
      ValueError: the variables are not those of the model, or a layer has no plain
        counterpart.

    >>> import eqjax as eq
    >>> groups = eq.Architecture.uniform(eq.dihedral(4), 2)
    >>> model = eq.exact(groups, features=(2,), pool_after=())
    >>> x = jnp.ones((1, 8, 8, 1))
    >>> variables = jax.jit(model.init)(jax.random.key(0), x)
    >>> plain, network = to_plain(variables, model=model, inputs=x)
    >>> variables["params"]["conv1"]["kernel"].shape  # orbits, channels in and out
    (25, 1, 2)
    >>> plain["params"]["conv1"]["kernel"].shape
    (5, 5, 1, 16)
    >>> network.apply(plain, x).shape
    (1, 10)
    """
    traced = tied_model(model, inputs, call_kwargs)
    flat = flat_variables(variables)
    for path in traced.shapes:
        if path not in flat:
            raise ValueError(f"variables of the model lack {show(path)}")
    found = {p: v for p, v in flat.items() if not traced.holds(p)}
    for path, layer in traced.layers.items():
        stacked = traced.stacked_axes(path)
        own = under_stacked_axes(layer.read, stacked)(traced.own(path, flat))
        arrays = under_stacked_axes(
            lambda full, at=layer: real_arrays(at, full), stacked
        )
        found.update({(PARAMS, *path, name): a for name, a in arrays(own).items()})
        statistics = _statistics(layer, path, flat)
        found.update({(BATCH_STATS, *path, name): a for name, a in statistics.items()})
    folds = find_folds(flat, model, inputs, call_kwargs) if fold_norms else ()
    for fold in folds:
        apply_fold(found, traced, fold)
    paths = tuple((fold.norm, fold.convolution) for fold in folds)
    return unflatten_dict(found), Plain(Code(model), paths)


def plain_call(
    layer: base.TiedModule, args: tuple, kwargs: Mapping[str, Any], *, biased: bool
) -> jax.Array:
    """Call, in the place of a bound layer, the layer of Flax that computes the same.

    Args:
      layer: bound; the parameters are declared in its scope.
      args: of its call.
      kwargs: of its call.
      biased: add a bias whatever the layer has.
    """
    x, *others = args
    if isinstance(layer, conv.GroupConv):
        return _plain_conv(layer, x, use_bias=layer.use_bias or biased)
    if isinstance(layer, norms.FiberNorm):
        layer._check_field(x)
        split = split_of(layer)
        y = conv.merge_fiber(x, split)
        y = _plain_norm(layer)(y, *others, **kwargs)
        return conv.split_fiber(y, x.shape[-2], split)
    raise ValueError(
        f"{show(layer.path)} is a {type(layer).__name__}, which has no plain "
        "counterpart; convolutions and norms of eqjax have one"
    )


def _plain_conv(layer: conv.GroupConv, x: jax.Array, *, use_bias: bool) -> jax.Array:
    x, restore = _field(layer, x)
    layer._check_field(x)
    split, (_, fiber_out) = layer.feature_group_count, layer.fibers
    window = layer._window_settings(x.shape[1:-2])
    settings: dict[str, Any] = {
        "features": fiber_out.size * layer.features,
        "kernel_size": layer.taps,
        "strides": window["strides"],
        "padding": "CIRCULAR" if layer.padding == "CIRCULAR" else window["padding"],
        "kernel_dilation": window["dilation"],
        "use_bias": use_bias,
        "dtype": layer.dtype,
        "param_dtype": layer.param_dtype,
        "precision": layer.precision,
        "parent": layer.scope,
    }
    if isinstance(layer, conv.GroupConvTranspose):
        settings["strides"] = layer._spacing()[0]
        make: Any = nn.ConvTranspose
    else:
        settings["feature_group_count"] = split
        make = nn.Conv
    y = make(**settings)(conv.merge_fiber(x, split))
    return restore(conv.split_fiber(y, fiber_out.size, split))


def _field(
    layer: conv.GroupConv, x: jax.Array
) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
    """Return what a convolution reads, and what makes its output that of the layer."""
    if isinstance(layer, conv.LiftingConv):
        return x[..., None, :], lambda y: y
    if isinstance(layer, conv.InvariantHead):
        space = tuple(range(1, 1 + layer.group.dimension))
        averaged = mean(x, space, keepdims=True)
        return averaged, lambda y: y.reshape(x.shape[0], layer.features)
    return x, lambda y: y


def _plain_norm(layer: norms.FiberNorm) -> Callable[..., jax.Array]:
    settings: dict[str, Any] = {
        "epsilon": layer.epsilon,
        "dtype": layer.dtype,
        "param_dtype": layer.param_dtype,
        "use_scale": layer.use_scale,
        "use_fast_variance": False,
        "parent": layer.scope,
    }
    if isinstance(layer, norms.RMSNorm):
        make = BiasedRMSNorm if layer.use_bias else nn.RMSNorm
        return make(**settings)
    settings["use_bias"] = layer.use_bias
    if isinstance(layer, norms.LayerNorm):
        return nn.LayerNorm(**settings)
    if isinstance(layer, norms.GroupNorm):
        return nn.GroupNorm(num_groups=layer.num_groups, **settings)
    assert isinstance(layer, norms.BatchNorm)
    return nn.BatchNorm(
        layer.use_running_average,
        momentum=layer.momentum,
        axis_name=layer.axis_name,
        **settings,
    )


class BiasedRMSNorm(nn.Module):
    """`flax.linen.RMSNorm` with an offset, which that has not.

    Its parameters are in one place, as those of a norm of Flax are.
    """

    epsilon: float
    dtype: Any
    param_dtype: Any
    use_scale: bool
    use_fast_variance: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalize, rescale and shift (batch, *space, channels)."""
        settings = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        y = nn.RMSNorm(**{**settings, "name": None, "parent": self.scope})(x)
        shape = x.shape[-1:]
        bias = self.param("bias", nn.initializers.zeros_init(), shape, self.param_dtype)
        return y + jnp.asarray(bias, y.dtype)


def _statistics(layer: base.TiedModule, path: Path, flat: Flat) -> dict[str, jax.Array]:
    """Return the running statistics of a norm, for every real channel."""
    if not isinstance(layer, norms.BatchNorm):
        return {}
    found = {}
    for name in ("mean", "var"):
        value = jnp.asarray(flat[BATCH_STATS, *path, "statistics", name])
        if layer.pooled:
            value = jnp.repeat(value[..., None, :], layer.field_fiber.size, -2)
        found[name] = value.reshape(*value.shape[:-2], math.prod(value.shape[-2:]))
    return found
