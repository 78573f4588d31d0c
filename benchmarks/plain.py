"""Plain convolutions and networks of the same real width, to compare with.

They go through the same convolution as eqjax, so that a ratio shows what the tying of
kernels costs; its two forms are compared elsewhere. By choice they are those of Flax.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from eqjax.ops.convolution import convolve
from eqjax.ops.windows import resolve_padding


class PlainConv(nn.Module):
    """A convolution (batch, *space, channels) with a free kernel and SAME padding.

    Attributes:
      features: real output channels.
      kernel_size: taps per axis.
    """

    features: int
    kernel_size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolve."""
        space = x.shape[1:-1]
        taps, ones = (self.kernel_size,) * len(space), (1,) * len(space)
        shape = (*taps, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        x, kernel = promote_dtype(x, kernel)
        padding = resolve_padding("SAME", space, taps, ones, ones)
        return convolve(x, kernel, strides=ones, padding=padding, dilation=ones)


class PlainCNN(nn.Module):
    """`eqjax.EquivariantCNN` without any symmetry, of the same real width.

    Attributes:
      features: real channels of every convolution.
      kernel_size: taps per axis.
      pool_after: numbers of the convolutions that a pooling follows.
      of_flax: convolve by `flax.linen.Conv`, as anybody's network does.
    """

    features: tuple[int, ...]
    kernel_size: int = 5
    pool_after: tuple[int, ...] = (3, 5, 7)
    of_flax: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Return logits (batch, 10) for images (batch, height, width, channels)."""
        for layer, features in enumerate(self.features):
            taps = self.kernel_size
            if self.of_flax:
                x = nn.Conv(features, (taps, taps), use_bias=False)(x)
            else:
                x = PlainConv(features, taps)(x)
            x = nn.relu(nn.BatchNorm(not train, momentum=0.9)(x))
            if layer + 1 in self.pool_after:
                even = all(n % 2 == 0 for n in x.shape[1:-1])
                x = nn.avg_pool(x, (2, 2), (2, 2)) if even else _pool_odd(x)
        x = nn.Dense(64)(jnp.mean(x, (1, 2)))
        x = nn.elu(nn.BatchNorm(not train, momentum=0.9)(x))
        return nn.Dense(10)(x)


def _pool_odd(x: jax.Array) -> jax.Array:
    return nn.avg_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
