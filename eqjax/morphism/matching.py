"""Find the tied parameters of two models and match them, path by path.

A model is traced abstractly, so that any linen module will do, and layers are found
wherever they sit: in submodules, under `nn.scan`, `nn.vmap` or `nn.remat`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax
import flax.linen as nn
import jax
from flax.traverse_util import flatten_dict

from eqjax.constraints.collections import PARAMS
from eqjax.groups.closed import comparable
from eqjax.groups.group import difference
from eqjax.kernels.tied import Tie
from eqjax.layers.base import TiedModule
from eqjax.training.checks import check_model, check_variables

Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class TiedModel:
    """What a morphism needs to know of a model.

    Attributes:
      shapes: the abstract value of every variable, by path from its collection on.
      layers: the tied layers, by path of the module, in the order of their calls.
      ties: the tie of every tied parameter, by path.
      stacked: how many axes `nn.scan` or `nn.vmap` put before the tied one, by path.
    """

    shapes: dict[Path, Any]
    layers: dict[Path, TiedModule]
    ties: dict[Path, Tie]
    stacked: dict[Path, int]

    def stacked_axes(self, path: Path) -> int:
        """Return how many axes stand before those of a layer's own variables."""
        own = [axes for p, axes in self.stacked.items() if p[1:-1] == path]
        return max(own, default=0)

    def holds(self, variable: Path) -> bool:
        """Tell whether a variable, by its path, belongs to one of the tied layers."""
        return any(variable[1 : 1 + len(path)] == path for path in self.layers)

    def own(self, path: Path, flat: Mapping[Path, Any]) -> dict[tuple[str, str], Any]:
        """Return the variables of a layer itself, by collection and name."""
        return {(p[0], p[-1]): v for p, v in flat.items() if p[1:-1] == path}


@dataclasses.dataclass(frozen=True)
class Move:
    """A parameter that goes from one tie to another, under stacked leading axes."""

    source: Tie
    target: Tie
    stacked: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """Two models that differ in groups, parametrization and constraints alone.

    Attributes:
      source: the one to start from.
      target: the one to go to.
      moves: the parameters whose tie changes, by path.
      rewrites: the layers whose constraint changes, by path: their full arrays are read
        and written again.
    """

    source: TiedModel
    target: TiedModel
    moves: dict[Path, Move]
    rewrites: tuple[Path, ...]

    def kept(self, model: TiedModel) -> dict[Path, Any]:
        """Return the shapes of the variables of either model outside the rewrites."""
        return {p: s for p, s in model.shapes.items() if p[1:-1] not in self.rewrites}


def match(
    source: nn.Module,
    target: nn.Module,
    inputs: Any,
    call_kwargs: Mapping[str, Any] | None = None,
) -> Plan:
    """Match two models.

    Args:
      source: any linen model that holds tied layers.
      target: the same model with other groups.
      inputs: an input of both, or a tuple of call arguments; arrays may be abstract.
      call_kwargs: keyword arguments of both calls, such as {"train": False}.

    Raises:
      ValueError: the models differ otherwise; the message names the path.
    """
    for name, model in (("source", source), ("target", target)):
        if not hasattr(model, "tied_model"):  # as the views of NNX models have
            check_model(name, model)
    a = tied_model(source, inputs, call_kwargs)
    b = tied_model(target, inputs, call_kwargs)
    _check_same_paths("tied layer", a.layers, b.layers)
    for path, layer in a.layers.items():
        _check_layers(path, layer, b.layers[path])
    rewrites = [p for p, layer in a.layers.items() if _differ(layer, b.layers[p])]
    plan = Plan(a, b, {}, tuple(rewrites))
    kept = plan.kept(a)
    _check_same_paths("variable", kept, plan.kept(b))
    for path, shape in kept.items():
        if path not in a.ties:
            check_shape(path, b.shapes[path], shape)
            continue
        tie, other = a.ties[path], b.ties[path]
        _check_widths(path, a, b)
        same_orbits = tie.table.same_as(other.table)
        if not same_orbits or tie.parametrization != other.parametrization:
            plan.moves[path] = Move(tie, other, a.stacked[path])
    return plan


def _differ(source: TiedModule, target: TiedModule) -> bool:
    """Tell whether a layer's parts do not move one by one."""
    if source.constraint != target.constraint:
        return True
    return not source.constraint.partwise and source.group != target.group


def tied_model(
    model: nn.Module, inputs: Any, call_kwargs: Mapping[str, Any] | None = None
) -> TiedModel:
    """Trace a model and return its variables' shapes, tied layers and ties.

    A model that knows them, as the view of an NNX model does, is asked.
    """
    if (own := getattr(model, "tied_model", None)) is not None:
        return own()
    check_model("model", model)
    arguments = inputs if isinstance(inputs, tuple) else (inputs,)
    abstract = tuple(
        jax.ShapeDtypeStruct(x.shape, x.dtype) if hasattr(x, "shape") else x
        for x in arguments
    )
    keywords = tuple(sorted((call_kwargs or {}).items()))
    try:
        hash((model, abstract, keywords))
    except TypeError:  # a list or a dict among the model's fields
        return _trace(model, abstract, keywords)
    return _trace_once(model, abstract, keywords)


def _trace(
    model: nn.Module, arguments: tuple, keywords: tuple[tuple[str, Any], ...]
) -> TiedModel:
    layers: dict[Path, TiedModule] = {}
    ties: dict[Path, Tie] = {}
    inner: dict[Path, tuple[int, ...]] = {}

    def record(call, args, kwargs, context):
        result = call(*args, **kwargs)
        module = context.module
        if isinstance(module, TiedModule) and context.method_name == "__call__":
            layers[module.path] = module.clone(parent=None)
            for name, tie in module.ties.items():
                path = (PARAMS, *module.path, name)
                ties[path] = tie
                inner[path] = nn.meta.unbox(module.get_variable(PARAMS, name)).shape
        return result

    def initialize(arrays):
        key = jax.random.key(0)
        remaining = iter(arrays)
        full = [next(remaining) if hasattr(x, "shape") else x for x in arguments]
        with nn.intercept_methods(record):
            rngs = {"params": key, "dropout": key}
            return model.init(rngs, *full, **dict(keywords))

    arrays = [x for x in arguments if hasattr(x, "shape")]
    variables = jax.eval_shape(initialize, arrays)
    shapes = flat_variables(variables)
    stacked = {}
    for path, own in inner.items():
        stacked[path] = len(shapes[path].shape) - len(own)
        if shapes[path].shape[stacked[path] :] != own:
            raise ValueError(
                f"{show(path)} has shape {shapes[path].shape} for one of {own} inside "
                "nn.scan or nn.vmap; stack members along axis 0 (variable_axes)"
            )
    return TiedModel(shapes, layers, ties, stacked)


_trace_once = functools.lru_cache(maxsize=1024)(_trace)


def flat_variables(variables: Mapping[str, Any]) -> dict[Path, Any]:
    """Return variables by path from their collection on, taken out of their boxes."""
    check_variables("variables", variables)
    return flatten_dict(flax.core.unfreeze(nn.meta.unbox(dict(variables))))


def check_held(model: TiedModel, flat: Mapping[Path, Any]) -> None:
    """Raise unless variables are all those of the source of a morphism.

    Raises:
      ValueError: one lacks, is left over or has another shape; it is named.
    """
    for path in flat:
        if path[0] == PARAMS and path not in model.shapes:
            raise ValueError(f"the source model has no variable {show(path)}")
    for path, shape in model.shapes.items():
        if path not in flat:
            raise ValueError(f"variables of the source model lack {show(path)}")
        check_shape(path, flat[path], shape)


def check_shape(path: Path, leaf: Any, expected: Any) -> None:
    """Raise unless a leaf has the shape expected at a path."""
    if leaf.shape != expected.shape:
        raise ValueError(
            f"{show(path)} has shape {leaf.shape}, expected {expected.shape}"
        )


def show(path: Path) -> str:
    """Return a path as people write it."""
    return "/".join(path) or "the model itself"


def _check_same_paths(what: str, source: dict, target: dict) -> None:
    for path in [*source, *target]:
        for side, present in (("source", source), ("target", target)):
            if path not in present:
                raise ValueError(f"the {side} model has no {what} {show(path)}")


def _check_layers(path: Path, source: TiedModule, target: TiedModule) -> None:
    if type(source) is not type(target):
        raise ValueError(
            f"{show(path)} is a {type(source).__name__} in the source model and a "
            f"{type(target).__name__} in the target"
        )
    if not comparable(source.group, target.group):
        raise ValueError(
            f"{show(path)} lives over {source.group.ambient!r} in the source model and "
            f"over {target.group.ambient!r} in the target"
            f"{difference(source.group.ambient, target.group.ambient)}"
        )
    for field in dataclasses.fields(source):
        mine, theirs = getattr(source, field.name), getattr(target, field.name)
        if field.name not in source.morphable and mine != theirs:
            raise ValueError(
                f"{show(path)} has {field.name}={mine} in the source model and "
                f"{field.name}={theirs} in the target; a morphism changes groups alone"
            )


def _check_widths(path: Path, a: TiedModel, b: TiedModel) -> None:
    """Check all axes of a tied parameter but the one that counts its orbits."""
    widths = []
    for model in (a, b):
        shape = list(model.shapes[path].shape)
        del shape[model.stacked[path]]
        widths.append(tuple(shape))
    if widths[0] != widths[1]:
        raise ValueError(
            f"{show(path)} has widths {widths[0]} in the source model and {widths[1]} "
            "in the target; a morphism changes groups alone"
        )
