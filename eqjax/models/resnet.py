"""Residual networks with a group for every stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax

from eqjax.constraints.base import Constraint, Tied
from eqjax.layers.conv import GroupConv, InvariantHead, LiftingConv
from eqjax.layers.norms import BatchNorm
from eqjax.models.architecture import Architecture
from eqjax.models.stages import StagedModel, halve, norm_settings
from eqjax.ops.precision import accurate

Order = Literal["post", "pre"]


class ResidualBlock(nn.Module):
    """Two convolutions with norms, and the input added to what they make of it.

    Attributes:
      features: channels per fiber element.
      kernel_size: taps per axis, odd.
      tie: group, constraint and dtype.
      order: norm and ReLU behind each convolution (He et al. 2016a) or before (2016b).
    """

    features: int
    kernel_size: int
    tie: Mapping[str, Any]
    order: Order = "post"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Return a field of the same size, (batch, *space, fiber, features)."""

        def norm(x, name):
            return BatchNorm(name=name, **norm_settings(self.tie))(x, not train)

        def conv(x, taps, name):
            kind = {"use_bias": False, "name": name, **self.tie}
            return GroupConv(self.features, taps, **kind)(x)

        y = nn.relu(norm(x, "norm1")) if self.order == "pre" else x
        short = x
        if x.shape[-1] != self.features:
            short = conv(y, 1, "short")
            if self.order == "post":
                short = norm(short, "short_norm")
        y = conv(y, self.kernel_size, "conv1")
        if self.order == "post":
            y = nn.relu(norm(y, "norm1"))
            y = norm(conv(y, self.kernel_size, "conv2"), "norm2")
            return nn.relu(short + y)
        y = nn.relu(norm(y, "norm2"))
        return short + conv(y, self.kernel_size, "conv2")


class ResidualStage(nn.Module):
    """Blocks of one width; see `ResidualBlock`."""

    blocks: int
    features: int
    kernel_size: int
    tie: Mapping[str, Any]
    order: Order = "post"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Return a field of the same size, (batch, *space, fiber, features)."""
        for block in range(self.blocks):
            x = ResidualBlock(
                self.features,
                self.kernel_size,
                self.tie,
                self.order,
                name=f"block{block + 1}",
            )(x, train=train)
        return x


class Stem(nn.Module):
    """From an image to a field: a convolution, and with a norm, norm and ReLU."""

    features: int
    kernel_size: int
    tie: Mapping[str, Any]
    with_norm: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Return a field (batch, *space, fiber, features)."""
        kind = {"use_bias": False, "name": "conv", **self.tie}
        x = LiftingConv(self.features, self.kernel_size, **kind)(x)
        if not self.with_norm:
            return x
        norm = BatchNorm(name="norm", **norm_settings(self.tie))
        return nn.relu(norm(x, not train))


class EquivariantResNet(StagedModel):
    """A residual network whose stages have a group each; exact on every size.

    A stem, stages of residual blocks, and an invariant head. Before every stage but the
    first, the field is averaged over windows that halve it and fit its size. Takes
    images (batch, *space, channels), returns logits (batch, classes).

    Attributes:
      architecture: a group for the stem, for every stage, and for the head.
      features: channels per fiber element of every stage; the stem has the first.
      blocks: how many blocks a stage has, one integer for all or one for each.
      kernel_size: taps per axis, odd.
      classes: number of logits.
      order: norms and ReLUs behind the convolutions, "post", or before them, "pre".
      constraint: one for all stages, or one for each entry of the architecture.
      dtype: of the computation.

    >>> import jax.numpy as jnp
    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> model = EquivariantResNet(eq.Architecture.parse(D4, "D4 D4 C4 C4"),
    ...     features=(2, 4), classes=3)
    >>> x = jnp.ones((2, 15, 15, 1))
    >>> logits, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), x)
    >>> logits.shape, model.symmetry(15)
    ((2, 3), Group(C4 < D4))
    """

    blocks: int | Sequence[int] = 1
    classes: int = 10
    order: Order = "post"

    def __post_init__(self) -> None:
        """Check the settings against each other."""
        if not isinstance(self.blocks, int):
            object.__setattr__(self, "blocks", tuple(self.blocks))
        if len(self.blocks_per_stage) != len(self.features):
            raise ValueError(
                f"blocks must be one number, or one for each of {len(self.features)} "
                f"stages, got {self.blocks}"
            )
        if self.order not in ("post", "pre"):
            raise ValueError(f"order must be 'post' or 'pre', got {self.order!r}")
        super().__post_init__()

    @property
    def blocks_per_stage(self) -> tuple[int, ...]:
        """How many blocks every stage has."""
        if isinstance(self.blocks, int):
            return (self.blocks,) * len(self.features)
        return tuple(self.blocks)

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Stem, stages and head."""
        stages = (f"stage{n + 1}" for n in range(len(self.features)))
        return ("stem", *stages, "head")

    @property
    def layer_settings(self) -> dict[str, Sequence[Any]]:
        """Channels per fiber element, and blocks of every stage."""
        return {
            "channels per element": (self.features[0], *self.features, ""),
            "blocks": ("", *self.blocks_per_stage, ""),
        }

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Return logits (batch, classes) for images (batch, *space, channels).

        Args:
          x: images.
          train: normalize by the batch and update the running statistics, which needs
            `mutable=["batch_stats"]` in `apply`.
        """
        post, width = self.order == "post", self.features[0]
        stem = Stem(width, self.kernel_size, self.settings(0), post, name="stem")
        x = stem(x, train=train)
        for n, (features, blocks) in enumerate(
            zip(self.features, self.blocks_per_stage, strict=True), 1
        ):
            stage = ResidualStage(
                blocks,
                features,
                self.kernel_size,
                self.settings(n),
                self.order,
                name=f"stage{n}",
            )
            x = stage(halve(x) if n > 1 else x, train=train)
        head = Head(self.classes, self.settings(n + 1), not post, name="head")
        return accurate(head(x, train=train))


class Head(nn.Module):
    """The invariant read-out, behind norm and ReLU where blocks end without."""

    classes: int
    tie: Mapping[str, Any]
    with_norm: bool

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Return logits (batch, classes)."""
        if self.with_norm:
            norm = BatchNorm(name="norm", **norm_settings(self.tie))
            x = nn.relu(norm(x, not train))
        return InvariantHead(self.classes, name="read", **self.tie)(x)


def resnet(
    architecture: Architecture,
    *,
    features: Sequence[int] = (8, 16, 32),
    blocks: int | Sequence[int] = 1,
    kernel_size: int = 3,
    classes: int = 10,
    constraint: Constraint | Sequence[Constraint] = Tied(),  # noqa: B008
    dtype: Any = None,
) -> EquivariantResNet:
    """Build a residual network with norms behind convolutions (He et al. 2016a).

    Args:
      architecture: a group for the stem, for every stage, and for the head.
      features: as all that follow, an attribute of `EquivariantResNet`.
      blocks: of a stage.
      kernel_size: of the blocks.
      classes: number of logits.
      constraint: one for all, or one for each entry of the architecture.
      dtype: of the computation.

    >>> import eqjax as eq
    >>> model = resnet(eq.Architecture.uniform(eq.dihedral(4), 5), classes=3)
    >>> model.layer_names
    ('stem', 'stage1', 'stage2', 'stage3', 'head')
    """
    return EquivariantResNet(
        architecture,
        constraint,
        features=tuple(features),
        blocks=blocks,
        kernel_size=kernel_size,
        classes=classes,
        dtype=dtype,
    )


def wide_resnet(
    architecture: Architecture,
    *,
    widen: int = 2,
    features: Sequence[int] = (4, 8, 16),
    blocks: int | Sequence[int] = 1,
    kernel_size: int = 3,
    classes: int = 10,
    constraint: Constraint | Sequence[Constraint] = Tied(),  # noqa: B008
    dtype: Any = None,
) -> EquivariantResNet:
    """Build a wide residual network (Zagoruyko and Komodakis 2016).

    Norms and ReLUs stand before the convolutions (He et al. 2016b).

    Args:
      architecture: a group for the stem, for every stage, and for the head.
      widen: factor of all widths.
      features: before that factor.
      blocks: of a stage.
      kernel_size: of the blocks.
      classes: number of logits.
      constraint: one for all, or one for each entry of the architecture.
      dtype: of the computation.

    >>> import eqjax as eq
    >>> wide_resnet(eq.Architecture.uniform(eq.dihedral(4), 5), widen=4).features
    (16, 32, 64)
    """
    return EquivariantResNet(
        architecture,
        constraint,
        features=tuple(widen * n for n in features),
        blocks=blocks,
        kernel_size=kernel_size,
        classes=classes,
        order="pre",
        dtype=dtype,
    )
