"""The nearest change that makes a layer keep what it should, found by trying it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from eqjax import layers
from eqjax.analysis.compilations import run_once
from eqjax.analysis.equivariance import equivariance_error
from eqjax.analysis.random_values import random_inputs, random_variables
from eqjax.analysis.report import SymmetryRow
from eqjax.groups.group import Group
from eqjax.layers.base import TiedModule

# The layer of ours for a layer of Flax on fields.
OURS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv: layers.GroupConv,
    nn.ConvTranspose: layers.GroupConvTranspose,
    nn.Dense: layers.GroupConv,
    nn.DenseGeneral: layers.GroupConv,
    nn.BatchNorm: layers.BatchNorm,
    nn.LayerNorm: layers.LayerNorm,
    nn.GroupNorm: layers.GroupNorm,
    nn.RMSNorm: layers.RMSNorm,
    nn.Dropout: layers.FieldDropout,
}
KEPT = 1e-3  # relative error of a repair that works, in single precision


def explain(
    row: SymmetryRow, layer: nn.Module, inputs: Sequence[Any], ambient: Group
) -> SymmetryRow:
    """Add why a layer loses elements, and the nearest change that keeps them.

    Args:
      row: of the layer.
      layer: the module, unbound.
      inputs: the arrays that it was called with; only shapes matter.
      ambient: a group of the network; its ambient group counts.
    """
    ambient = ambient.ambient
    if isinstance(layer, TiedModule):
        if layer.group.ambient != ambient:
            return _of_another_group(row, layer, ambient)
        if isinstance(layer, layers.ElementBatchNorm):
            cause = "each element has statistics of its own"
            return dataclasses.replace(row, cause=cause, repair="eq.BatchNorm")
        if isinstance(layer, layers.GroupConv):
            return _of_a_window(row, layer, inputs[0])
        return row
    if (kind := _ours(type(layer))) is not None:
        return _left_over(row, layer, kind, inputs[0], ambient)
    return dataclasses.replace(row, cause=f"{row.layer} is no layer of eqjax")


def _of_another_group(row, layer, ambient: Group) -> SymmetryRow:
    own = layer.group.ambient
    numbered = " with its elements in another order" if own.name == ambient.name else ""
    fitting = [H.name for H in ambient.subgroups if H.family == layer.group.family]
    name = fitting[0] if fitting else ambient.name
    return dataclasses.replace(
        row,
        cause=f"it lives over another ambient group, {own.name}{numbered}, than the "
        f"network, {ambient.name}",
        repair=f"group={ambient.name}.subgroup({name!r}) of the network's group",
    )


def _of_a_window(row: SymmetryRow, layer: layers.GroupConv, x: Any) -> SymmetryRow:
    d = layer.group.dimension
    space = tuple(x.shape[1 : d + 1])
    window = layer.window(space)
    cause = (
        f"a window of {_by(window.taps)}, strides {_by(window.strides)}, on a grid of "
        f"{_by(space)}"
    )
    tried = []
    if (changes := _nearest(layer, space, row.promised)) is not None:
        changed = layer.clone(**changes)
        if _works(changed, x.shape, x.dtype, row.promised):
            tried.append(", ".join(f"{k}={v!r}" for k, v in changes.items()))
    for step in (1, -1):
        other = tuple(n + step for n in space)
        shape = (x.shape[0], *other, *x.shape[d + 1 :])
        fits = layer.window(other).symmetry(row.promised) == row.promised
        if fits and _works(layer, shape, x.dtype, row.promised):
            tried.append(f"a grid of {_by(other)}")
            break
    return dataclasses.replace(row, cause=cause, repair=" or ".join(tried))


def _nearest(layer, space: tuple[int, ...], group: Group) -> dict[str, Any] | None:
    """Return the fewest and smallest changes of fields with the window kept whole."""
    size = layer.window(space).output_size
    for changes in sorted(_candidates(layer), key=lambda c: _distance(layer, c)):
        window = layer.clone(**changes).window(space)
        if window.output_size == size and window.symmetry(group) == group:
            return changes
    return None


def _candidates(layer: layers.GroupConv) -> Iterator[dict[str, Any]]:
    taps = max(layer.taps)
    paddings = [layer.padding, *range(taps + 1)]
    for size, padding in itertools.product(range(max(1, taps - 2), taps + 3), paddings):
        changes: dict[str, Any] = {}
        if (size,) * len(layer.taps) != layer.taps:
            changes["kernel_size"] = size
        if padding != layer.padding:
            changes["padding"] = padding
        yield changes


def _distance(layer: layers.GroupConv, changes: dict[str, Any]) -> tuple:
    size = changes.get("kernel_size", max(layer.taps))
    return len(changes), abs(size - max(layer.taps)), -size


def _left_over(row, layer, kind: type, x: Any, ambient: Group) -> SymmetryRow:
    """Say which layer of ours stands for one of Flax, where it works here."""
    d = ambient.dimension
    image = np.ndim(x) == d + 2
    cause = f"a layer of Flax on {'an image' if image else 'a field'}"
    if kind is layers.GroupConv and image:
        kind = layers.LiftingConv
    ours = _like(layer, kind, ambient)
    if isinstance(ours, layers.GroupConv) and np.ndim(x) > d + 1:
        changes = _nearest(ours, tuple(x.shape[1 : d + 1]), ambient)
        ours = ours.clone(**(changes or {}))
    repair = f"eq.{kind.__name__}({_settings(ours)})"
    if not _works(ours, x.shape, x.dtype, ambient):
        return dataclasses.replace(row, cause=cause)
    return dataclasses.replace(row, cause=cause, repair=repair)


def _like(layer: nn.Module, kind: type, ambient: Group) -> Any:
    """Return a layer of ours with the settings of one of Flax."""
    d = ambient.dimension
    if kind is layers.FieldDropout:
        return kind(layer.rate, deterministic=False)
    settings: dict[str, Any] = {"group": ambient}
    if issubclass(kind, layers.GroupConv):
        settings |= {"features": layer.features, "kernel_size": 1}
        for name in ("kernel_size", "strides", "padding", "kernel_dilation"):
            value = getattr(layer, name, None)
            if isinstance(value, Sequence) and not isinstance(value, str):
                value = tuple(value)[-d:] if len(value) >= d else tuple(value) * d
                value = value[0] if len(set(value)) == 1 else value
            if value is not None:
                settings[name] = value
    if kind is layers.BatchNorm:
        settings["use_running_average"] = True
    if kind is layers.GroupNorm and layer.num_groups is not None:
        settings["num_groups"] = layer.num_groups
    return kind(**settings)


def _settings(layer: nn.Module) -> str:
    shown = []
    defaults = {f.name: f.default for f in dataclasses.fields(layer)}
    for name, default in defaults.items():
        value = getattr(layer, name)
        if name in ("parent", "name", "use_running_average") or value == default:
            continue
        shown.append(
            f"{name}={value.name if isinstance(value, Group) else repr(value)}"
        )
    return ", ".join(shown)


def _ours(kind: type) -> type[nn.Module] | None:
    return next((OURS[k] for k in kind.__mro__ if k in OURS), None)


def _works(layer: nn.Module, shape: tuple[int, ...], dtype: Any, group: Group) -> bool:
    """Measure whether a layer with random variables commutes with a group."""
    dtype = jnp.promote_types(dtype, jnp.float32)
    given = random_inputs(jax.ShapeDtypeStruct(shape, dtype))
    variables = random_variables(layer, given, {})

    def error(variables, x):
        rngs = {"dropout": jax.random.key(0)}
        apply: Any = lambda x: layer.apply(variables, x, rngs=rngs)  # noqa: E731
        return equivariance_error(apply, x, group=group)

    return bool(run_once(error, variables, *given.arrays) < KEPT)


def _by(numbers: Sequence[int]) -> str:
    return "x".join(map(str, numbers))
