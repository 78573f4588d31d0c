"""Larger networks that compute the same: wider, deeper, with larger kernels.

Network morphisms (Wei et al. 2016; Chen et al. 2016, Net2Net) for layers with a group.
A kernel with zeros around it is as symmetric as before, and so are zeros for channels
that were not there, and the identity. So a network may grow and be relaxed in turns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from eqjax import kernels
from eqjax.constraints.collections import BATCH_STATS
from eqjax.fields.keys import check_key
from eqjax.layers.base import TiedModule
from eqjax.layers.conv import GroupConv
from eqjax.layers.convolving import Convolving
from eqjax.layers.norms import BatchNorm
from eqjax.morphism.matching import (
    Path,
    TiedModel,
    check_held,
    flat_variables,
    show,
    tied_model,
)
from eqjax.morphism.regrouping import as_path
from eqjax.training.checks import check_model

Flat = dict[Path, Any]


def grow(
    variables: Mapping[str, Any],
    *,
    source: nn.Module,
    target: nn.Module,
    inputs: Any,
    key: jax.Array,
    paths: Mapping[str | Path, str | Path] | None = None,
    call_kwargs: Mapping[str, Any] | None = None,
    tolerance: float = 1e-4,
) -> dict[str, Any]:
    """Carry variables to a larger model that computes the same for now.

    New output channels are drawn, and whatever reads them has zeros for them; larger
    kernels have zeros around what was there; a convolution that the source has not is
    the identity, and a batch norm that it has not is one that undoes itself: its scale
    and offset are the running statistics, of these inputs. A ReLU behind them changes
    nothing, as it has been applied before. The optimizer begins anew.

    Args:
      variables: of the source, concrete.
      source: any linen model that holds eqjax layers.
      target: the larger one.
      inputs: samples (n, ...), or a tuple of call arguments, concrete: both models are
        compared on them.
      key: of what is drawn.
      paths: of layers of the target, each with its path in the source, where that is
        another: {"conv4": "conv3"} where a new conv3 has been put in.
      call_kwargs: keyword arguments of both calls, such as {"train": False}.
      tolerance: largest deviation of an output, relative to the largest, or to 1.

    Returns:
      The variables of the target.

    Raises:
      ValueError: a layer becomes smaller, or the target does not compute the same: a
        norm over channels, say, sees those that are new.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> small = eq.exact(eq.Architecture.uniform(D4, 3), features=(2, 2), pool_after=())
    >>> large = eq.exact(
    ...     eq.Architecture.uniform(D4, 4), features=(4, 4, 4), kernel_size=7,
    ...     pool_after=())
    >>> x = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    >>> variables = small.init(jax.random.key(1), x)
    >>> grown = grow(
    ...     variables, source=small, target=large, inputs=x, key=jax.random.key(2))
    >>> bool(jnp.allclose(large.apply(grown, x), small.apply(variables, x), atol=1e-4))
    True
    """
    arguments = inputs if isinstance(inputs, tuple) else (inputs,)
    keywords = dict(call_kwargs or {})
    check_key("key", key)
    check_model("source", source)
    check_model("target", target)
    old = tied_model(source, inputs, keywords)
    new = tied_model(target, inputs, keywords)
    if any(old.stacked.values()) or any(new.stacked.values()):
        raise ValueError("layers under nn.scan or nn.vmap do not grow")
    origins = {as_path(t): as_path(s) for t, s in (paths or {}).items()}
    _check_paths(origins, old, new)
    moved = set(origins.values())

    def origin_of(path: Path) -> Path | None:
        """Return the path in the source, unless its layer has gone elsewhere."""
        return origins.get(path, None if path in moved else path)

    flat = flat_variables(variables)
    check_held(old, flat)
    init = jax.jit(lambda k, a: target.init(k, *a, **keywords))
    found: Flat = flat_variables(init(key, arguments))
    added = {}
    for path, layer in new.layers.items():
        origin = origin_of(path)
        if origin is not None and origin in old.layers:
            before = old.layers[origin].read(old.own(origin, flat))
            _check_functions(path, old.layers[origin], layer)
            full = _placed_arrays(path, before, layer.read(new.own(path, found)))
            if isinstance(layer, BatchNorm):
                _place_statistics(found, path, flat, origin)
        else:
            added[path] = layer
            full = _identity(layer, layer.read(new.own(path, found)))
        _store(found, path, layer, full)
    for path, value in found.items():
        origin = origin_of(path[1:-1])
        if origin is None or new.holds(path):
            continue
        if (at := (path[0], *origin, path[-1])) in flat:
            found[path] = _placed(path, flat[at], value)
    _settle(found, target, arguments, keywords, added)
    grown = unflatten_dict(found)
    _check_same(source, variables, target, grown, arguments, keywords, tolerance)
    return grown


def _check_paths(origins: Mapping[Path, Path], old: TiedModel, new: TiedModel) -> None:
    for target, source in origins.items():
        for side, path, shapes in (
            ("target", target, new.shapes),
            ("source", source, old.shapes),
        ):
            if not any(p[1 : 1 + len(path)] == path for p in shapes):
                raise ValueError(f"the {side} model has no layer {show(path)}")


def _check_functions(path: Path, before: TiedModule, layer: TiedModule) -> None:
    """Raise where kernels are of harmonics that are sampled on other taps."""
    functions = [
        (own.harmonics, own.taps if own.harmonics else ())
        for own in (before, layer)
        if isinstance(own, Convolving)
    ]
    if len(set(functions)) > 1:
        raise ValueError(
            f"{show(path)} has kernels of circular harmonics, which do not grow: those "
            "of more taps are other functions; grow its features, or put it behind "
            "another layer"
        )


def _placed_arrays(
    path: Path, before: Mapping[str, Any], fresh: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the full arrays of a layer that hold those of a smaller one."""
    found = {}
    for name, full in fresh.items():
        if name not in before:
            raise ValueError(f"{show(path)} has no {name} in the source model")
        own = before[name]
        if name == "kernel":
            grown = np.subtract(full.shape[:-4], own.shape[:-4])
            if np.any(grown < 0) or np.any(grown % 2):
                raise ValueError(
                    f"{show(path)} has taps {own.shape[:-4]} in the source model and "
                    f"{full.shape[:-4]} in the target; kernels grow by even numbers"
                )
            around = [(int(n) // 2, int(n) // 2) for n in grown]
            own = jnp.pad(own, [*around, *[(0, 0)] * 4])
        found[name] = _placed(path, own, full)
    return found


def _placed(path: Path, own: Any, fresh: Any) -> jax.Array:
    """Return an array that holds another at the first channels of its last axes."""
    own, fresh = jnp.asarray(own), jnp.asarray(fresh)
    if own.shape == fresh.shape:
        return own
    vector = own.ndim == 1 or own.shape[:-1] == fresh.shape[:-1]
    axes = 1 if vector else 2
    same = own.shape[:-axes] == fresh.shape[:-axes] and own.ndim == fresh.ndim
    if not same or np.any(np.subtract(fresh.shape, own.shape) < 0):
        raise ValueError(
            f"{show(path)} has shape {own.shape} in the source model and {fresh.shape} "
            "in the target, which cannot hold it"
        )
    out = own.shape[-1]
    if vector:
        return fresh.at[..., :out].set(own)
    read = own.shape[-2]
    return fresh.at[..., read:, :out].set(0).at[..., :read, :out].set(own)


def _identity(layer: TiedModule, fresh: Mapping[str, Any]) -> dict[str, Any]:
    """Return the full arrays that make a layer the identity."""
    found = {name: jnp.zeros_like(full) for name, full in fresh.items()}
    if isinstance(layer, GroupConv):
        layer.check_identity()
        *_, fiber_in, fiber_out, c_in, c_out = fresh["kernel"].shape
        shape = (*layer.taps, fiber_in, fiber_out, c_in, c_out)
        kernel = jnp.asarray(kernels.identity_kernel(shape), fresh["kernel"].dtype)
        found["kernel"] = layer.fitted(kernel)
    elif isinstance(layer, BatchNorm):
        found["scale"] = jnp.full_like(fresh["scale"], (1 + layer.epsilon) ** 0.5)
    else:
        raise ValueError(f"a new {type(layer).__name__} cannot be the identity")
    return found


def _store(found: Flat, path: Path, layer: TiedModule, full: Mapping[str, Any]) -> None:
    for (kind, name), value in layer.write(full).items():
        found[kind, *path, name] = value


def _place_statistics(found: Flat, path: Path, flat: Flat, origin: Path) -> None:
    for name in ("mean", "var"):
        at = (BATCH_STATS, *path, "statistics", name)
        own = flat[BATCH_STATS, *origin, "statistics", name]
        found[at] = _placed(at, own, found[at])


def _settle(
    found: Flat,
    target: nn.Module,
    arguments: tuple[Any, ...],
    keywords: Mapping[str, Any],
    added: Mapping[Path, TiedModule],
) -> None:
    """Give new batch norms the statistics of what they read, and let them undo it."""
    new = {p: n for p, n in added.items() if isinstance(n, BatchNorm)}
    if not new:
        return

    def read(variables: Mapping[str, Any], arguments: tuple[Any, ...]):
        seen = {}

        def record(call, args, kwargs, context):
            if context.method_name == "__call__" and context.module.path in new:
                x = jnp.asarray(args[0], jnp.float32)
                pooled = new[context.module.path].pooled
                axes = tuple(range(x.ndim - (1 if pooled else 2)))
                seen[context.module.path] = x.mean(axes), x.var(axes)
            return call(*args, **kwargs)

        with nn.intercept_methods(record):
            target.apply(variables, *arguments, **keywords)
        return seen

    for path, (mean, var) in jax.jit(read)(unflatten_dict(found), arguments).items():
        layer = new[path]
        fiber = layer.field_fiber.size
        for name, value in (("mean", mean), ("var", var)):
            found[BATCH_STATS, *path, "statistics", name] = value
        full = {"scale": jnp.sqrt(var + layer.epsilon), "bias": mean}
        shape = (fiber, mean.shape[-1])
        wide = {name: jnp.broadcast_to(value, shape) for name, value in full.items()}
        _store(found, path, layer, wide)


def _check_same(source, variables, target, grown, arguments, keywords, tolerance):
    before = jax.jit(lambda v, a: source.apply(v, *a, **keywords))(variables, arguments)
    after = jax.jit(lambda v, a: target.apply(v, *a, **keywords))(grown, arguments)
    if jax.tree.map(jnp.shape, before) != jax.tree.map(jnp.shape, after):
        raise ValueError("the target's outputs have another shape than the source's")
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        gap = float(jnp.abs(a - b).max() / jnp.maximum(1, jnp.abs(a).max()))
        if not gap <= tolerance:
            raise ValueError(
                f"the target's outputs are {gap:.1e} from the source's, more than "
                f"{tolerance:.0e}: what reads new channels, or follows a new layer, "
                "does not leave the others alone"
            )
