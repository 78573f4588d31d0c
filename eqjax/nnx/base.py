"""What layers of eqjax are as NNX modules.

Each holds a layer of `eqjax.layers` as its settings, and its variables as attributes of
its own; what it computes is what that layer computes. There are no shared references,
so that modules are plain pytrees too (NNX's tree mode).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from flax.traverse_util import flatten_dict

from eqjax.constraints.collections import (
    BATCH_STATS,
    INITIAL_NORMS,
    MIXTURE,
    PARAMS,
    PENALTIES,
    PROBES,
)
from eqjax.groups.group import Group


class MixtureLogits(nnx.Variable):
    """Logits of a mixed layer, which an optimizer of their own may train."""


class InitialNorm(nnx.Variable):
    """The norm that a kernel of a mixed layer is held at; not trained."""


class Penalty(nnx.Variable):
    """What the last call of a layer asks to be added to the loss."""


class Probe(nnx.Variable):
    """What is added to a full array, to differentiate by it."""


KINDS: dict[str, type[nnx.Variable]] = {
    PARAMS: nnx.Param,
    BATCH_STATS: nnx.BatchStat,
    MIXTURE: MixtureLogits,
    INITIAL_NORMS: InitialNorm,
    PROBES: Probe,
}


class TiedLayer(nnx.Module):
    """A layer with parameters tied along the orbits of a group.

    Attributes:
      linen: the layer of `eqjax.layers` that it computes, with all its settings; its
        group and constraint among them.
      shape: of the smallest input, a batch of one.
      places: for each variable its name here, and its path among those of `linen`.
    """

    def __init__(self, linen: nn.Module, shape: tuple[int, ...], rngs: nnx.Rngs):
        self.linen = linen
        self.shape = shape
        key = {"params": rngs.params()}
        x = jnp.zeros(shape, getattr(linen, "param_dtype", None))
        made = jax.jit(lambda key, x: linen.init_with_output(key, x))(key, x)[1]
        flat = flatten_dict(nn.meta.unbox(dict(made)))
        penalized = [p for p in flat if p[0] == PENALTIES]
        places = []
        for path, value in flat.items():
            if path[0] != PENALTIES:
                name = _name(path)
                setattr(self, name, KINDS[path[0]](value))
                places.append((name, path))
        self.places = tuple(places)
        sown = jax.eval_shape(
            lambda v, x: linen.apply(v, x, mutable=[PENALTIES, BATCH_STATS])[1], made, x
        )
        self.penalized = bool(penalized or sown.get(PENALTIES))
        if self.penalized:
            self.penalty = Penalty(jnp.zeros(()))

    @property
    def group(self) -> Group:
        """The group that the layer is tied to."""
        return self.linen.group

    def variables(self) -> dict[str, Any]:
        """Return the variables as those of `linen`, by collection."""
        found: dict[str, Any] = {}
        for name, path in self.places:
            _put(found, path, getattr(self, name)[...])
        for name, value in vars(self).items():
            if isinstance(value, Probe):
                _put(found, (PROBES, name.removeprefix("probe_")), value[...])
        return found

    def take(self, linen: nn.Module, variables: Mapping[str, Any]) -> None:
        """Become another layer, with variables of its own, of any shapes."""
        flat = flatten_dict(dict(variables))
        for name, path in self.places:
            if path not in flat:
                delattr(self, name)
        self.linen = linen
        places = []
        for path, value in flat.items():
            name = _name(path)
            setattr(self, name, KINDS[path[0]](value))
            if path[0] != PROBES:
                places.append((name, path))
        self.places = tuple(places)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Compute what the layer of `eqjax.layers` does; see there for shapes."""
        return self._apply(x)

    def _apply(self, x: jax.Array, *arguments: Any, written: Sequence[str] = ()) -> Any:
        mutable = [*written, *([PENALTIES] if self.penalized else [])]
        if not mutable:
            return self.linen.apply(self.variables(), x, *arguments)
        y, updates = self.linen.apply(self.variables(), x, *arguments, mutable=mutable)
        flat = flatten_dict(dict(updates))
        for name, path in self.places:
            if path in flat:
                getattr(self, name)[...] = flat[path]
        if self.penalized:
            own = jax.tree.leaves(updates.get(PENALTIES, {}))  # none once it is plain
            self.penalty[...] = sum(own, jnp.zeros(()))
        return y


def _name(path: tuple[str, ...]) -> str:
    return f"probe_{path[-1]}" if path[0] == PROBES else _attribute(path)


def _attribute(path: tuple[str, ...]) -> str:
    """Return what a variable is called: norms of mixed layers share kernels' names."""
    return f"{path[-1]}_norm" if path[0] == INITIAL_NORMS else path[-1]


def _put(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    *inner, name = path
    for word in inner:
        tree = tree.setdefault(word, {})
    tree[name] = value
