"""Whole plain networks into models of eqjax, path by path."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import flax
import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from eqjax.constraints.collections import BATCH_STATS, PARAMS
from eqjax.exchange.channels import fields_last, full_arrays_of, real_arrays
from eqjax.exchange.importing import Layout
from eqjax.groups.checks import check_choice
from eqjax.groups.group import Group
from eqjax.groups.html import Shaded
from eqjax.groups.text import Echoed, Rows
from eqjax.layers.base import TiedModule
from eqjax.layers.conv import GroupConv
from eqjax.layers.norms import BatchNorm, FiberNorm
from eqjax.morphism.carrying import under_stacked_axes
from eqjax.morphism.matching import Path, TiedModel, show, tied_model
from eqjax.training.checks import check_variables

# What other libraries call the arrays of a layer.
NAMES = {
    "kernel": ("kernel", "weight", "filter"),
    "scale": ("scale", "weight"),
    "bias": ("bias", "expanded_bias"),
    "mean": ("mean", "running_mean"),
    "var": ("var", "running_var"),
}


@dataclasses.dataclass(frozen=True)
class TransplantedLayer:
    """A layer with a group, and how much of the plain one it could not take.

    Attributes:
      path: of the layer in the model.
      source: of the plain layer.
      group: of the layer.
      remainder: norm of what is left over that of the plain arrays.
    """

    path: Path
    source: str
    group: Group
    remainder: float


@dataclasses.dataclass(frozen=True, repr=False)
class TransplantReport(Echoed):
    """One entry per layer with a group, in the order of calls; prints as a table."""

    layers: tuple[TransplantedLayer, ...]

    def parts(self) -> Sequence[str | Rows]:
        """Return a table with a row per layer."""
        rows = [["layer", "from", "group", "left out"]]
        for row in self.layers:
            left = Shaded(f"{100 * row.remainder:.2g} %", row.remainder)
            rows.append([show(row.path), row.source, row.group.name, left])
        return (Rows(rows),)


def from_plain(
    plain: Mapping[str, Any],
    *,
    model: nn.Module,
    inputs: Any,
    call_kwargs: Mapping[str, Any] | None = None,
    paths: Mapping[str, str] | None = None,
    layout: Layout = "HWIO",
) -> tuple[dict[str, Any], TransplantReport]:
    """Give a model of eqjax the weights of a plain network of the same real width.

    Every convolution and norm with a group takes what is nearest to the plain one: its
    orbit means if it is tied; all of it with a constraint that keeps a free part, such
    as `eq.ResidualPathway()`. Numbers of a norm that belong to one channel for all
    elements are averaged over the fiber. Other layers take their arrays as they are.

    Args:
      plain: variables of a linen model, nested; or arrays by name, such as a state dict
        of PyTorch turned to numpy ("block1.conv.weight"). Kernels may be called weight,
        statistics running_mean and running_var.
      model: with layers of eqjax, over the real channels of the plain network.
      inputs: an input of the model; shapes are enough.
      call_kwargs: keyword arguments of its call.
      paths: layers of the model, by name or by a pattern with "*", that have another
        path in the plain network: {"conv*": "features/Conv_*"}, asterisks in turn.
      layout: of all kernels, as in `from_conv`; norms and biases follow it.

    Returns:
      The variables of the model, and a report of what each layer left out.

    Raises:
      ValueError: the plain network lacks an array, and the message names the nearest;
        or an array has another shape, and the message has both.

    >>> import jax
    >>> import eqjax as eq
    >>> groups = eq.Architecture.uniform(eq.dihedral(4), 2)
    >>> model = eq.exact(groups, features=(2,), pool_after=(), classes=3)
    >>> x = jnp.ones((1, 8, 8, 1))
    >>> variables = model.init(jax.random.key(0), x)
    >>> plain, network = eq.export(model, variables, format="linen", inputs=x)
    >>> again, report = from_plain(plain, model=model, inputs=x)
    >>> report
    layer  from   group  left out
    conv1  conv1  D4     0 %
    norm1  norm1  D4     0 %
    head   head   D4     0 %
    """
    check_variables("plain", plain)
    check_choice("layout", layout, get_args(Layout))
    traced = tied_model(model, inputs, call_kwargs)
    source = _Source(plain, layout, paths or {})
    found: dict[Path, Any] = {}
    rows = []
    for path, layer in traced.layers.items():
        own, remainder = _transplanted(path, layer, traced, source)
        found.update(own)
        at = source.name(path)
        rows.append(TransplantedLayer(path, at, layer.group, remainder))
    for path, shape in traced.shapes.items():
        if not traced.holds(path):
            array = source.array(path[1:-1], path[-1])
            if array.shape != shape.shape:
                raise ValueError(
                    f"{source.name(path[1:-1])}/{path[-1]} has shape {array.shape} in "
                    f"the plain network, {show(path)} has {shape.shape}"
                )
            found[path] = jnp.asarray(array, shape.dtype)
    return unflatten_dict(found), TransplantReport(tuple(rows))


class _Source:
    """The arrays of a plain network, by slashed names without collections."""

    def __init__(self, plain: Mapping[str, Any], layout: Layout, paths: Mapping):
        nested = flax.core.unfreeze(nn.meta.unbox(dict(plain)))
        flat = {"/".join(p): v for p, v in flatten_dict(nested).items()}
        self.arrays = {}
        for name, value in flat.items():
            parts = name.replace(".", "/").split("/")
            if parts[0] in (PARAMS, BATCH_STATS):
                parts = parts[1:]
            self.arrays["/".join(parts)] = value
        self.layout, self.paths = layout, paths

    def name(self, path: Path) -> str:
        """Return what a layer of the model is called in the plain network."""
        own = "/".join(path)
        for pattern, target in self.paths.items():
            parts = map(re.escape, pattern.split("*"))
            match = re.fullmatch("(.*?)".join(parts), own)
            if match:
                for piece in match.groups():
                    target = target.replace("*", piece, 1)
                return target.replace(".", "/")
        return own

    def array(self, path: Path, name: str) -> np.ndarray:
        """Return an array of a layer, kernels with their channels last."""
        at = self.name(path)
        known = [f"{at}/{word}".lstrip("/") for word in NAMES.get(name, (name,))]
        for each in known:
            if each in self.arrays:
                array = np.asarray(self.arrays[each])
                if name == "kernel" and self.layout != "HWIO" and array.ndim > 1:
                    array = np.moveaxis(array, (1, 0), (-2, -1))
                return array
        near = difflib.get_close_matches(known[0], self.arrays, 1, 0)
        raise ValueError(
            f"the plain network has no {' or '.join(known)}, for {show(path)}; "
            f"nearest: {', '.join(near) or 'it is empty'}; paths= tells other names"
        )


def _transplanted(
    path: Path, layer: TiedModule, traced: TiedModel, source: _Source
) -> tuple[dict[Path, Any], float]:
    """Return a layer's variables, and how much is left out."""
    stacked = traced.stacked_axes(path)
    real = {}
    for name in layer.ties_of(layer.group):
        array = source.array(path, name)
        if (
            name == "kernel" and array.ndim == 2 + stacked
        ):  # a dense layer behind a mean
            ones = (1,) * layer.group.dimension
            array = array.reshape(*array.shape[:stacked], *ones, *array.shape[stacked:])
        shape = _real_shape(path, name, layer, traced)
        if array.shape != shape:
            raise ValueError(
                f"{name} of {source.name(path)} has shape {array.shape} in the plain "
                f"network; {show(path)} in the model asks for {shape}"
            )
        real[name] = _elements_first(array, name, layer, source.layout)
    kinds = {n: traced.shapes[(PARAMS, *path, _first(layer, n))].dtype for n in real}
    arrays = {n: jnp.asarray(a, kinds[n]) for n, a in real.items()}
    full = under_stacked_axes(lambda a: full_arrays_of(layer, a), stacked)(arrays)
    written = under_stacked_axes(layer.write, stacked)(full)
    again = under_stacked_axes(layer.read, stacked)(written)
    back = under_stacked_axes(lambda a: real_arrays(layer, a), stacked)(again)
    left = sum(float(jnp.sum((arrays[n] - back[n]) ** 2)) for n in arrays)
    size = sum(float(jnp.sum(arrays[n] ** 2)) for n in arrays)
    found = {(kind, *path, name): value for (kind, name), value in written.items()}
    if isinstance(layer, BatchNorm):
        fiber = layer.field_fiber.size
        for name in ("mean", "var"):
            at = (BATCH_STATS, *path, "statistics", name)
            array = _elements_first(
                source.array(path, name), name, layer, source.layout
            )
            kind = traced.shapes[at]
            wide = jnp.asarray(array, kind.dtype)
            wide = wide.reshape(*wide.shape[:-1], fiber, -1)
            found[at] = (wide.mean(-2) if layer.pooled else wide).reshape(kind.shape)
    return found, (left / size) ** 0.5 if size else 0.0


def _first(layer: TiedModule, name: str) -> str:
    """Return the name of the first parameter that a full array is made of."""
    return name + next(iter(layer.part_ties[name]))


def _real_shape(
    path: Path, name: str, layer: TiedModule, traced: TiedModel
) -> tuple[int, ...]:
    """Return the shape that an array of a plain layer has to have."""
    own = traced.shapes[(PARAMS, *path, _first(layer, name))].shape
    stacked = traced.stacked_axes(path)
    *_, source, target = (1, *layer.ties_of(layer.group)[name].table.shape)
    widths = own[stacked + 1 :]
    if name != "kernel":
        return (*own[:stacked], target * widths[0])
    assert isinstance(layer, GroupConv)
    return (*own[:stacked], *layer.taps, source * widths[0], target * widths[1])


def _elements_first(
    array: np.ndarray, name: str, layer: TiedModule, layout: Layout
) -> np.ndarray:
    """Return an array of real channels with fiber elements outermost."""
    if layout != "escnn":
        return array
    if isinstance(layer, FiberNorm):
        return array[..., fields_last(array.shape[-1], layer.field_fiber.size)]
    assert isinstance(layer, GroupConv)
    source, target = layer.fibers
    array = array[..., fields_last(array.shape[-1], target.size)]
    if name == "kernel":
        array = array[..., fields_last(array.shape[-2], source.size), :]
    return array
