"""Dropout of whole channels as an NNX module."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from eqjax import layers


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
