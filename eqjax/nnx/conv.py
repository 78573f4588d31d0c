"""The convolutions of eqjax, and its head, as NNX modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flax import nnx

from eqjax import layers
from eqjax.groups.group import Group
from eqjax.layers.base import TiedModule
from eqjax.layers.conv import GroupConv as LinenConv
from eqjax.nnx.base import TiedLayer
from eqjax.ops.windows import per_axis


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

    >>> import jax.numpy as jnp
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

    >>> import jax.numpy as jnp
    >>> import eqjax as eq
    >>> layer = LiftingConv(3, 16, 3, group=eq.dihedral(4), rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 28, 28, 3))).shape
    (2, 28, 28, 8, 16)
    """

    make = layers.LiftingConv


class GroupConvTranspose(GroupConv):
    """As `eqjax.GroupConvTranspose`: convolve onto a finer grid; see `GroupConv`.

    >>> import jax.numpy as jnp
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

    >>> import jax.numpy as jnp
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


def _hashed(kernel_size: int | Sequence[int]) -> int | tuple[int, ...]:
    return tuple(kernel_size) if isinstance(kernel_size, Sequence) else kernel_size


def _smallest_input(linen: LinenConv, channels: int) -> tuple[int, ...]:
    """Return the shape of an input that a convolution fits into."""
    assert isinstance(linen, TiedModule)
    dilation = per_axis(linen.kernel_dilation, linen.group.dimension, "kernel_dilation")
    space = [d * (k - 1) + 1 for k, d in zip(linen.taps, dilation, strict=True)]
    fiber = () if isinstance(linen, layers.LiftingConv) else (linen.fibers[0].size,)
    return (1, *space, *fiber, channels)
