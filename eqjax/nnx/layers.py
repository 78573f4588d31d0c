"""The layers of eqjax as NNX modules.

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

from eqjax import layers
from eqjax.constraints.collections import (
    BATCH_STATS,
    INITIAL_NORMS,
    MIXTURE,
    PARAMS,
    PENALTIES,
    PROBES,
)
from eqjax.groups.group import Group
from eqjax.layers.base import TiedModule
from eqjax.layers.conv import GroupConv as LinenConv
from eqjax.ops.windows import per_axis


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
            self.penalty[...] = sum(jax.tree.leaves(updates[PENALTIES]))
        return y


class GroupConv(TiedLayer):
    """As `eqjax.GroupConv`: convolve a field, commuting with a subgroup.

    Takes (batch, *space, |G|, in_features), returns (batch, *space_out, |G|,
    out_features); the real width is |G| times the features.

    Args:
      in_features: channels per fiber element of the input.
      out_features: channels per fiber element of the output.
      kernel_size: taps per spatial axis, or one integer for all axes.
      group: the subgroup that the layer commutes with.
      rngs: the stream "params".
      **settings: all other fields of `eqjax.GroupConv`: strides, padding, constraint,
        and so on.

    >>> import eqjax as eq
    >>> layer = GroupConv(4, 16, 3, group=eq.dihedral(4), rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 6, 6, 8, 4))).shape, layer.kernel.shape
    ((2, 6, 6, 8, 16), (72, 4, 16))
    """

    make: type[LinenConv] = layers.GroupConv

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        *,
        group: Group,
        rngs: nnx.Rngs,
        **settings: Any,
    ):
        linen = self.make(out_features, _hashed(kernel_size), group=group, **settings)
        super().__init__(linen, _smallest_input(linen, in_features), rngs)


class LiftingConv(GroupConv):
    """As `eqjax.LiftingConv`: convolve an image into a field; see `GroupConv`.

    Takes (batch, *space, in_features), returns (batch, *space_out, |G|, out_features).

    >>> import eqjax as eq
    >>> layer = LiftingConv(3, 16, 3, group=eq.dihedral(4), rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 28, 28, 3))).shape
    (2, 28, 28, 8, 16)
    """

    make = layers.LiftingConv


class GroupConvTranspose(GroupConv):
    """As `eqjax.GroupConvTranspose`: convolve onto a finer grid; see `GroupConv`.

    >>> import eqjax as eq
    >>> settings = {"strides": 2, "group": eq.dihedral(4), "rngs": nnx.Rngs(0)}
    >>> GroupConvTranspose(4, 4, 2, **settings)(jnp.ones((2, 6, 6, 8, 4))).shape
    (2, 12, 12, 8, 4)
    """

    make = layers.GroupConvTranspose


class InvariantHead(TiedLayer):
    """As `eqjax.InvariantHead`: from a field to numbers that a group leaves alone.

    Takes (batch, *space, |G|, in_features), returns (batch, out_features).

    Args:
      in_features: channels per fiber element.
      out_features: how many numbers.
      group: that leaves them alone.
      rngs: the stream "params".
      **settings: all other fields of `eqjax.InvariantHead`.

    >>> import eqjax as eq
    >>> layer = InvariantHead(4, 10, group=eq.dihedral(4), rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 7, 7, 8, 4))).shape
    (2, 10)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        group: Group,
        rngs: nnx.Rngs,
        **settings: Any,
    ):
        linen = layers.InvariantHead(out_features, group=group, **settings)
        super().__init__(linen, _smallest_input(linen, in_features), rngs)


class _Norm(TiedLayer):
    make: type[Any]

    def __init__(
        self, num_features: int, *, group: Group, rngs: nnx.Rngs, **settings: Any
    ):
        linen = self.make(group=group, **settings)
        ones = (1,) * group.dimension
        shape = (1, *ones, linen.field_fiber.size, num_features)
        super().__init__(linen, shape, rngs)


class BatchNorm(_Norm):
    """As `eqjax.BatchNorm`: statistics pooled over batch, space and fiber.

    `model.train()` and `model.eval()` (or `nnx.view`) switch between those of the batch
    and the running ones, as they do for `nnx.BatchNorm`.

    Args:
      num_features: channels of the field.
      group: along whose orbits scale and offset are tied.
      use_running_average: use the running statistics; also an argument of the call.
      rngs: as of all modules; nothing is drawn.
      **settings: all other fields of `eqjax.BatchNorm`.

    >>> import eqjax as eq
    >>> layer = BatchNorm(4, group=eq.dihedral(4), rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 6, 6, 8, 4))).shape, layer.mean.shape
    ((2, 6, 6, 8, 4), (4,))
    """

    make: type[layers.BatchNorm] = layers.BatchNorm

    def __init__(
        self,
        num_features: int,
        *,
        group: Group,
        rngs: nnx.Rngs,
        use_running_average: bool = False,
        **settings: Any,
    ):
        settings = {**settings, "use_running_average": None}
        self.use_running_average = use_running_average
        ones = (1,) * group.dimension
        linen = self.make(group=group, **{**settings, "use_running_average": True})
        shape = (1, *ones, linen.field_fiber.size, num_features)
        TiedLayer.__init__(self, linen, shape, rngs)
        self.linen = self.make(group=group, **settings)

    def set_view(self, use_running_average: bool | None = None) -> None:
        """Switch, as `nnx.view` asks.

        Args:
          use_running_average: use the running statistics.
        """
        if use_running_average is not None:
            self.use_running_average = use_running_average

    def __call__(
        self, x: jax.Array, use_running_average: bool | None = None
    ) -> jax.Array:
        """Normalize a field (batch, *space, fiber, channels)."""
        running = self.use_running_average
        if use_running_average is not None:
            running = use_running_average
        return self._apply(x, running, written=() if running else [BATCH_STATS])


class ElementBatchNorm(BatchNorm):
    """As `eqjax.ElementBatchNorm`, which is not equivariant; see `BatchNorm`.

    >>> import eqjax as eq
    >>> layer = ElementBatchNorm(4, group=eq.dihedral(4), rngs=nnx.Rngs(0))
    >>> layer.mean.shape
    (8, 4)
    """

    make = layers.ElementBatchNorm


class LayerNorm(_Norm):
    """As `eqjax.LayerNorm`; arguments num_features, group, rngs and its other fields.

    >>> import eqjax as eq
    >>> layer = LayerNorm(4, group=eq.dihedral(4), rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 6, 6, 8, 4))).shape
    (2, 6, 6, 8, 4)
    """

    make = layers.LayerNorm


class RMSNorm(_Norm):
    """As `eqjax.RMSNorm`; arguments num_features, group, rngs and its other fields.

    >>> import eqjax as eq
    >>> layer = RMSNorm(4, group=eq.dihedral(4), rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 6, 6, 8, 4))).shape
    (2, 6, 6, 8, 4)
    """

    make = layers.RMSNorm


class GroupNorm(_Norm):
    """As `eqjax.GroupNorm`; arguments num_features, group, rngs and its other fields.

    >>> import eqjax as eq
    >>> layer = GroupNorm(4, num_groups=2, group=eq.dihedral(4), rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 6, 6, 8, 4))).shape
    (2, 6, 6, 8, 4)
    """

    make = layers.GroupNorm


class FieldDropout(nnx.Module):
    """As `eqjax.FieldDropout`: drop whole channels of a field.

    Args:
      rate: probability of dropping a channel.
      deterministic: keep everything; `model.eval()` sets it.
      rngs: the stream "dropout", which the layer forks.

    >>> layer = FieldDropout(0.5, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 6, 6, 8, 4))).shape
    (2, 6, 6, 8, 4)
    """

    def __init__(self, rate: float, *, rngs: nnx.Rngs, deterministic: bool = False):
        self.rate, self.deterministic = rate, deterministic
        self.stream = rngs.dropout.fork()

    def set_view(self, deterministic: bool | None = None) -> None:
        """Switch, as `nnx.view` asks.

        Args:
          deterministic: keep everything.
        """
        if deterministic is not None:
            self.deterministic = deterministic

    def __call__(self, x: jax.Array, deterministic: bool | None = None) -> jax.Array:
        """Drop channels of a field (batch, *space, fiber, channels)."""
        still = self.deterministic if deterministic is None else deterministic
        rngs = {} if still or not self.rate else {"dropout": self.stream()}
        y = layers.FieldDropout(self.rate).apply({}, x, still, rngs=rngs)
        return jnp.asarray(y)


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


def _hashed(kernel_size: int | Sequence[int]) -> int | tuple[int, ...]:
    return tuple(kernel_size) if isinstance(kernel_size, Sequence) else kernel_size


def _smallest_input(linen: LinenConv, channels: int) -> tuple[int, ...]:
    """Return the shape of an input that a convolution fits into."""
    assert isinstance(linen, TiedModule)
    dilation = per_axis(linen.kernel_dilation, linen.group.dimension, "kernel_dilation")
    space = [d * (k - 1) + 1 for k, d in zip(linen.taps, dilation, strict=True)]
    fiber = () if isinstance(linen, layers.LiftingConv) else (linen.fibers[0].size,)
    return (1, *space, *fiber, channels)
