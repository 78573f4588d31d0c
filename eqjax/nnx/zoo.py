"""The networks of stages of `eqjax.models`, as NNX modules.

Paths, variables and outputs are those of the linen networks, so that `variables_of` and
`with_variables` carry weights between both.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from eqjax.fields.fiber import trivial
from eqjax.layers.pooling import upsample
from eqjax.models.resnet import EquivariantResNet
from eqjax.models.stages import halve, norm_settings
from eqjax.models.unet import EquivariantUNet
from eqjax.nnx.conv import GroupConv, InvariantHead, LiftingConv
from eqjax.nnx.norms import BatchNorm
from eqjax.ops.precision import accurate


class _Block(nnx.Module):
    """A residual block; see `eqjax.models.resnet.ResidualBlock`."""

    def __init__(self, inside, features, taps, tie, order, rngs):
        self.post = order == "post"
        self.norm1 = _norm(features if self.post else inside, tie, rngs)
        self.norm2 = _norm(features, tie, rngs)
        kind = {"use_bias": False, "rngs": rngs, **tie}
        self.conv1 = GroupConv(inside, features, taps, **kind)
        self.conv2 = GroupConv(features, features, taps, **kind)
        self.shortened = inside != features
        if self.shortened:
            self.short = GroupConv(inside, features, 1, **kind)
            if self.post:
                self.short_norm = _norm(features, tie, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x if self.post else nnx.relu(self.norm1(x))
        short = x
        if self.shortened:
            short = self.short(y)
            short = self.short_norm(short) if self.post else short
        if self.post:
            y = nnx.relu(self.norm1(self.conv1(y)))
            return nnx.relu(short + self.norm2(self.conv2(y)))
        return short + self.conv2(nnx.relu(self.norm2(self.conv1(y))))


class _Stage(nnx.Module):
    """Blocks of one width."""

    def __init__(self, blocks, inside, features, taps, tie, order, rngs):
        self.count = blocks
        for n in range(blocks):
            before = inside if n == 0 else features
            block = _Block(before, features, taps, tie, order, rngs)
            setattr(self, f"block{n + 1}", block)

    def __call__(self, x: jax.Array) -> jax.Array:
        for n in range(self.count):
            x = getattr(self, f"block{n + 1}")(x)
        return x


class _Stem(nnx.Module):
    def __init__(self, inside, features, taps, tie, rngs, *, with_norm):
        kind = {"use_bias": False, "rngs": rngs, **tie}
        self.conv = LiftingConv(inside, features, taps, **kind)
        self.with_norm = with_norm
        if with_norm:
            self.norm = _norm(features, tie, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.conv(x)
        return nnx.relu(self.norm(x)) if self.with_norm else x


class _Head(nnx.Module):
    def __init__(self, inside, classes, tie, rngs, *, with_norm):
        self.with_norm = with_norm
        if with_norm:
            self.norm = _norm(inside, tie, rngs)
        self.read = InvariantHead(inside, classes, rngs=rngs, **tie)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.read(nnx.relu(self.norm(x)) if self.with_norm else x)


class ResNet(nnx.Module):
    """`eqjax.EquivariantResNet` as an NNX module; see there.

    Args:
      in_features: channels of the images.
      linen: the linen network, such as `eqjax.resnet(architecture)`, for all settings.
      rngs: the stream "params".

    >>> import eqjax as eq
    >>> linen = eq.resnet(eq.Architecture.uniform(eq.dihedral(4), 4), features=(1, 2))
    >>> model = ResNet(1, linen, rngs=nnx.Rngs(0))
    >>> model(jnp.ones((2, 8, 8, 1))).shape
    (2, 10)
    """

    def __init__(self, in_features: int, linen: EquivariantResNet, *, rngs: nnx.Rngs):
        post, taps = linen.order == "post", linen.kernel_size
        width = linen.features[0]
        ties = [linen.settings(n) for n in range(len(linen.layer_names))]
        self.stem = _Stem(in_features, width, taps, ties[0], rngs, with_norm=post)
        self.depth = len(linen.features)
        stages = zip(linen.features, linen.blocks_per_stage, strict=True)
        for n, (features, blocks) in enumerate(stages, 1):
            stage = _Stage(blocks, width, features, taps, ties[n], linen.order, rngs)
            setattr(self, f"stage{n}", stage)
            width = features
        self.head = _Head(width, linen.classes, ties[-1], rngs, with_norm=not post)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return logits (batch, classes) for images (batch, *space, channels)."""
        x = self.stem(x)
        for n in range(1, self.depth + 1):
            x = getattr(self, f"stage{n}")(halve(x) if n > 1 else x)
        return accurate(self.head(x))


class _DoubleConv(nnx.Module):
    def __init__(self, inside, features, taps, tie, rngs, *, lifts):
        kind = {"use_bias": False, "rngs": rngs, **tie}
        make = LiftingConv if lifts else GroupConv
        self.conv1 = make(inside, features, taps, **kind)
        self.norm1 = _norm(features, tie, rngs)
        self.conv2 = GroupConv(features, features, taps, **kind)
        self.norm2 = _norm(features, tie, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.norm1(self.conv1(x)))
        return nnx.relu(self.norm2(self.conv2(x)))


class UNet(nnx.Module):
    """`eqjax.EquivariantUNet` as an NNX module; see there.

    Args:
      in_features: channels of the images.
      linen: the linen network, such as `eqjax.unet(architecture)`, for all settings.
      rngs: the stream "params".

    >>> import eqjax as eq
    >>> linen = eq.unet(eq.Architecture.uniform(eq.dihedral(4), 4), features=(1, 2))
    >>> model = UNet(1, linen, rngs=nnx.Rngs(0))
    >>> model(jnp.ones((2, 8, 8, 1))).shape
    (2, 8, 8, 2)
    """

    def __init__(self, in_features: int, linen: EquivariantUNet, *, rngs: nnx.Rngs):
        self.linen = linen
        depth, taps = len(linen.features), linen.kernel_size
        for entry, name in enumerate(linen.layer_names[:-1]):
            down = entry < depth
            level = entry if down else 2 * depth - 2 - entry
            features = linen.features[level]
            before = linen.features[level - 1] if level else in_features
            inside = before if down else features + linen.features[level + 1]
            stage = _DoubleConv(
                inside, features, taps, linen.settings(entry), rngs, lifts=entry == 0
            )
            setattr(self, name, stage)
        self.head = GroupConv(
            linen.features[0],
            linen.classes,
            1,
            fiber_out=trivial(linen.architecture.ambient),
            rngs=rngs,
            **linen.settings(len(linen.layer_names) - 1),
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return logits (batch, *space, classes) for images (batch, *space, channels).

        Raises:
          ValueError: sides that are no multiples of 2 for every halving.
        """
        self.linen.check_size(x.shape[1:-1])
        depth, beside = len(self.linen.features), []
        for n in range(depth):
            x = getattr(self, f"down{n + 1}")(halve(x) if n else x)
            beside.append(x)
        for n in range(depth - 2, -1, -1):
            x = jnp.concatenate([upsample(x, 2), beside[n]], -1)
            x = getattr(self, f"up{n + 1}")(x)
        return accurate(self.head(x)[..., 0, :])


def _norm(features: int, tie: dict[str, Any], rngs: nnx.Rngs) -> BatchNorm:
    return BatchNorm(features, rngs=rngs, **norm_settings(tie))
