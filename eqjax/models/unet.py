"""A U-Net whose output transforms with its input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from eqjax.constraints.base import Constraint, Tied
from eqjax.fields.fiber import trivial
from eqjax.layers.conv import GroupConv, LiftingConv
from eqjax.layers.norms import BatchNorm
from eqjax.layers.pooling import upsample
from eqjax.models.architecture import Architecture
from eqjax.models.stages import StagedModel, halve, norm_settings
from eqjax.ops.precision import accurate
from eqjax.ops.windows import Window


class DoubleConv(nn.Module):
    """Two convolutions, each with norm and ReLU.

    Attributes:
      features: channels per fiber element.
      kernel_size: taps per axis, odd.
      tie: group, constraint and dtype.
      lifts: takes an image.
    """

    features: int
    kernel_size: int
    tie: Mapping[str, Any]
    lifts: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Return a field of the same size, (batch, *space, fiber, features)."""
        for n in (1, 2):
            make = LiftingConv if self.lifts and n == 1 else GroupConv
            kind = {"use_bias": False, "name": f"conv{n}", **self.tie}
            x = make(self.features, self.kernel_size, **kind)(x)
            norm = BatchNorm(name=f"norm{n}", **norm_settings(self.tie))
            x = nn.relu(norm(x, not train))
        return x


class EquivariantUNet(StagedModel):
    """A U-Net (Ronneberger et al. 2015) whose stages have a group each.

    Down by averages over 2 points per axis, up by repeating points, with the fields of
    the way down beside those of the way up. Takes images (batch, *space, channels),
    returns logits (batch, *space, classes) that move with the image: for u of the
    symmetry, f(u . x) = u . f(x).

    Attributes:
      architecture: a group for every stage down, the deepest one last, for every stage
        up, and for the head: twice as many as features.
      features: channels per fiber element of every stage down.
      kernel_size: taps per axis, odd.
      classes: logits of a point.
      constraint: one for all stages, or one for each entry of the architecture.
      dtype: of the computation.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> model = EquivariantUNet(eq.Architecture.uniform(D4, 4), features=(2, 4))
    >>> model.layer_names
    ('down1', 'down2', 'up1', 'head')
    >>> x = jnp.ones((2, 8, 8, 1))
    >>> logits, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), x)
    >>> logits.shape
    (2, 8, 8, 2)
    """

    features: tuple[int, ...] = (4, 8, 16)
    classes: int = 2

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Stages down, stages up in the order of calls, and the head."""
        depth = len(self.features)
        down = (f"down{n}" for n in range(1, depth + 1))
        up = (f"up{n}" for n in range(depth - 1, 0, -1))
        return (*down, *up, "head")

    @property
    def layer_settings(self) -> dict[str, Sequence[Any]]:
        """Channels per fiber element of every stage."""
        up = self.features[-2::-1]
        return {"channels per element": (*self.features, *up, "")}

    def windows(self, space: tuple[int, ...]) -> list[Window]:
        """Return the windows of the way down."""
        self.check_size(space)
        return super().windows(space)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Return logits (batch, *space, classes) for images (batch, *space, channels).

        Args:
          x: images, each side a multiple of 2 to the number of halvings.
          train: normalize by the batch and update the running statistics, which needs
            `mutable=["batch_stats"]` in `apply`.

        Raises:
          ValueError: images of another size.
        """
        self.check_size(x.shape[1:-1])
        depth = len(self.features)

        def stage(entry: int, features: int) -> DoubleConv:
            return DoubleConv(
                features,
                self.kernel_size,
                self.settings(entry),
                entry == 0,
                name=self.layer_names[entry],
            )

        beside = []
        for n, features in enumerate(self.features):
            x = stage(n, features)(halve(x) if n else x, train=train)
            beside.append(x)
        for n in range(depth - 2, -1, -1):
            x = jnp.concatenate([upsample(x, 2), beside[n]], -1)
            entry = 2 * depth - 2 - n
            x = stage(entry, self.features[n])(x, train=train)
        head = GroupConv(
            self.classes,
            1,
            fiber_out=trivial(self.architecture.ambient),
            name="head",
            **self.settings(len(self.architecture) - 1),
        )
        return accurate(head(x)[..., 0, :])

    def check_size(self, space: Sequence[Any]) -> None:
        """Raise ValueError unless every side can be halved as often as it is."""
        factor = 2 ** (len(self.features) - 1)
        known = [n for n in space if isinstance(n, int)]
        if any(n % factor or n == 0 for n in known):
            near = tuple(max(1, round(n / factor)) * factor for n in known)
            raise ValueError(
                f"a U-Net of {len(self.features)} stages down takes sides that are "
                f"multiples of {factor}, got {tuple(space)}; nearest: {near}"
            )


def unet(
    architecture: Architecture,
    *,
    features: Sequence[int] = (4, 8, 16),
    kernel_size: int = 3,
    classes: int = 2,
    constraint: Constraint | Sequence[Constraint] = Tied(),  # noqa: B008
    dtype: Any = None,
) -> EquivariantUNet:
    """Build a U-Net for segmentation.

    Args:
      architecture: a group for every stage down, for every stage up, and for the head.
      features: as all that follow, an attribute of `EquivariantUNet`.
      kernel_size: of all convolutions but the head.
      classes: logits of a point.
      constraint: one for all, or one for each entry of the architecture.
      dtype: of the computation.

    >>> import eqjax as eq
    >>> model = unet(eq.Architecture.uniform(eq.dihedral(4), 6), classes=3)
    >>> model.layer_names
    ('down1', 'down2', 'down3', 'up2', 'up1', 'head')
    """
    return EquivariantUNet(
        architecture,
        constraint,
        features=tuple(features),
        kernel_size=kernel_size,
        classes=classes,
        dtype=dtype,
    )
