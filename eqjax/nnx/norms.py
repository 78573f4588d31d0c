"""The norms of eqjax as NNX modules."""

from __future__ import annotations

from typing import Any

import jax
from flax import nnx

from eqjax import layers
from eqjax.constraints.collections import BATCH_STATS
from eqjax.groups.group import Group
from eqjax.nnx.base import TiedLayer


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

    >>> import jax.numpy as jnp
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

    >>> import jax.numpy as jnp
    >>> import eqjax as eq
    >>> layer = ElementBatchNorm(4, group=eq.dihedral(4), rngs=nnx.Rngs(0))
    >>> layer.mean.shape
    (8, 4)
    """

    make = layers.ElementBatchNorm


class LayerNorm(_Norm):
    """As `eqjax.LayerNorm`; arguments num_features, group, rngs and its other fields.

    >>> import jax.numpy as jnp
    >>> import eqjax as eq
    >>> layer = LayerNorm(4, group=eq.dihedral(4), rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 6, 6, 8, 4))).shape
    (2, 6, 6, 8, 4)
    """

    make = layers.LayerNorm


class RMSNorm(_Norm):
    """As `eqjax.RMSNorm`; arguments num_features, group, rngs and its other fields.

    >>> import jax.numpy as jnp
    >>> import eqjax as eq
    >>> layer = RMSNorm(4, group=eq.dihedral(4), rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 6, 6, 8, 4))).shape
    (2, 6, 6, 8, 4)
    """

    make = layers.RMSNorm


class GroupNorm(_Norm):
    """As `eqjax.GroupNorm`; arguments num_features, group, rngs and its other fields.

    >>> import jax.numpy as jnp
    >>> import eqjax as eq
    >>> layer = GroupNorm(4, num_groups=2, group=eq.dihedral(4), rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 6, 6, 8, 4))).shape
    (2, 6, 6, 8, 4)
    """

    make = layers.GroupNorm
