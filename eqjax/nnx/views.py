"""An NNX model seen as a linen one.

Its variables by path, its layers with a group by path, and a function of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from flax.traverse_util import flatten_dict

from eqjax.constraints.collections import PARAMS
from eqjax.kernels.tied import Tie
from eqjax.layers.base import TiedModule
from eqjax.morphism.matching import Path, TiedModel
from eqjax.nnx.base import KINDS, TiedLayer

Model = TypeVar("Model", bound=nnx.Module)
OTHERS = "others"  # collection of variables whose kind linen has no name for
COLLECTIONS = {kind: name for name, kind in KINDS.items()}


class Box:
    """Something that Flax is not to look into; itself and nothing else."""

    def __init__(self, held: Any):
        self.held = held


class LinenView(nn.Module):
    """An NNX model as a linen one, for functions that take these.

    Attributes:
      box: holds the model.
    """

    box: Box

    def init(self, *_: Any, **__: Any) -> dict[str, Any]:
        """Return the model's own variables, whatever the arguments."""
        return variables_of(self.box.held)

    def apply(
        self,
        variables: Mapping[str, Any],
        *args: Any,
        mutable: Any = False,
        rngs: Any = None,
        method: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Call the model with other variables; updates of its own are dropped."""
        del rngs, method
        model = with_variables(self.box.held, variables)
        result = model(*args, **kwargs)
        return result if mutable is False else (result, {})

    def tied_model(self) -> TiedModel:
        """Return what the morphism needs to know of the model."""
        variables = variables_of(self.box.held)
        shapes = {
            path: jax.ShapeDtypeStruct(jnp.shape(v), jnp.result_type(v))
            for path, v in flatten_dict(variables).items()
        }
        found: dict[Path, TiedModule] = {}
        ties: dict[Path, Tie] = {}
        stacked: dict[Path, int] = {}
        for path, layer in tied_layers(self.box.held).items():
            assert isinstance(layer.linen, TiedModule)
            found[path] = layer.linen
            for name, tie in layer.linen.ties.items():
                at = (PARAMS, *path, name)
                ties[at] = tie
                stacked[at] = len(shapes[at].shape) - (3 if tie.maps else 2)
        return TiedModel(shapes, found, ties, stacked)


def tied_layers(model: nnx.Module) -> dict[Path, TiedLayer]:
    """Return the layers of a model with a group, by their paths."""
    return {
        tuple(map(str, path)): module
        for path, module in nnx.iter_modules(model)
        if isinstance(module, TiedLayer) and isinstance(module.linen, TiedModule)
    }


def variables_of(model: nnx.Module) -> dict[str, Any]:
    """Return the variables of a model as those of a linen model, by collection.

    >>> import eqjax as eq
    >>> from eqjax.nnx import LiftingConv
    >>> layer = LiftingConv(1, 2, 3, group=eq.dihedral(4), rngs=nnx.Rngs(0))
    >>> jax.tree.map(jnp.shape, variables_of(layer))
    {'params': {'bias': (1, 2), 'kernel': (9, 1, 2)}}
    """
    found: dict[str, Any] = {}
    tied = tied_layers(model)
    for path, layer in tied.items():
        for kind, own in layer.variables().items():
            inner = found.setdefault(kind, {})
            for name in path[:-1]:
                inner = inner.setdefault(name, {})
            if path:
                inner[path[-1]] = own
            else:
                inner.update(own)
    for kind, path, variable in _other_variables(model, tied):
        inner = found.setdefault(kind, {})
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
        inner[path[-1]] = variable[...]
    return found


def with_variables(model: Model, variables: Mapping[str, Any]) -> Model:
    """Return a copy of a model with other variables, nested as `variables_of` does.

    Layers with a group also take what `variables` has of a collection `probes`.
    """
    copy = nnx.clone(model)
    tied = tied_layers(copy)
    for path, layer in tied.items():
        layer.take(layer.linen, _below(variables, path))
    for kind, path, variable in _other_variables(copy, tied):
        value: Any = variables[kind]
        for name in path:
            value = value[name]
        variable[...] = value
    return copy


def linen_view(model: nnx.Module) -> LinenView:
    """Return a model as a linen one."""
    return LinenView(Box(model))


def _other_variables(model: nnx.Module, tied: Mapping[Path, TiedLayer]):
    """Yield collection, path and variable of what belongs to no layer with a group."""
    for place, variable in nnx.iter_graph(model):
        path = tuple(map(str, place))
        inside = any(path[: len(p)] == p for p in tied)
        if isinstance(variable, nnx.Variable) and not inside:
            kind = COLLECTIONS.get(type(variable), OTHERS)
            yield kind, path, variable


def _below(variables: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the part of every collection that belongs to a path."""
    found = {}
    for kind, tree in variables.items():
        for name in path:
            tree = tree.get(name, {})
        if tree:
            found[kind] = tree
    return found
