"""Networks that take their groups from an architecture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import flax.linen as nn
import jax

from eqjax.constraints.base import Constraint, Tied
from eqjax.fields.fiber import quotient
from eqjax.groups.checks import check_choice, check_group, check_whole, whole_numbers
from eqjax.groups.group import Group
from eqjax.kernels.tied import PARAMETRIZATIONS, Parametrization
from eqjax.layers.blurring import blur_pool, blurring
from eqjax.layers.conv import GroupConv, InvariantHead, LiftingConv
from eqjax.layers.norms import BatchNorm, ElementBatchNorm
from eqjax.layers.pooling import avg_pool
from eqjax.models.architecture import Architecture, check_architecture
from eqjax.models.stages import MOMENTUM, WithGroups, check_constraint, halving
from eqjax.ops.precision import accurate, check_dtype, mean
from eqjax.ops.windows import Window, per_axis, window

FEATURES = (16, 16, 16, 16, 32, 32, 32, 32)
POOL_AFTER = (3, 5, 7)
Norm = Literal["channel", "element"]
Pooling = Literal["exact", "3x3", "blur"]
Head = Literal["invariant", "dense"]


class EquivariantCNN(WithGroups, nn.Module):
    """The backbone of Maile et al. (2023): convolutions over one ambient group.

    Convolution, norm and ReLU per layer, average pooling after some, the mean over
    space, and a head of two layers. With the defaults it is exact: pooling windows fit
    the size they meet, and a tied head reads out invariants, so that the logits are
    invariant to the group of the last layer. `paper` builds the authors' variant.

    Takes images (batch, height, width, channels), returns logits (batch, classes).

    Attributes:
      architecture: one group per convolution, and with an invariant head one for it.
      features: channels per fiber element of every convolution.
      kernel_size: taps per axis of every convolution, one integer for all or one for
        each.
      pool_after: numbers of the convolutions, from 1, that a pooling follows.
      head_features: width of the hidden layer of the head.
      classes: number of logits.
      norm: "channel" pools statistics over the fiber, "element" keeps them apart.
      pooling: "exact" halves every axis by itself, even sizes by windows of 2 points
        and odd ones by 3; "3x3" uses 3 with padding 1 on all, which breaks the symmetry
        on even sizes; "blur" is as exact as the first and smoother, for groups with
        finer angles (`eq.blur_pool`).
      head: "invariant" is tied, "dense" reads all fiber elements freely.
      parametrization: of all tied parameters.
      constraint: how the kernels of the layers with a group arise from parameters, one
        for all or one for each; norms are always tied to the layer's group.
      stabilizer: hidden fields have a value for every coset of this subgroup of the
        ambient group, |G| / |K| of them; for every element if None.
      dtype: of the computation.

    >>> import jax.numpy as jnp
    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> groups = Architecture.parse(D4, "D4 D4 C4")
    >>> model = EquivariantCNN(groups, features=(8, 16), pool_after=(1,), classes=3)
    >>> x = jnp.ones((2, 28, 28, 1))
    >>> logits, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), x)
    >>> logits.shape, model.symmetry((28, 28))
    ((2, 3), Group(C4 < D4))
    """

    architecture: Architecture
    features: tuple[int, ...] = FEATURES
    kernel_size: int | Sequence[int] = 5
    pool_after: tuple[int, ...] = POOL_AFTER
    head_features: int = 64
    classes: int = 10
    norm: Norm = "channel"
    pooling: Pooling = "exact"
    head: Head = "invariant"
    parametrization: Parametrization = "tied"
    constraint: Constraint | Sequence[Constraint] = Tied()
    stabilizer: Group | None = None
    dtype: Any = None

    def __post_init__(self):
        """Check the settings against each other."""
        check_architecture("architecture", self.architecture)
        for name, least in (("features", 1), ("pool_after", None)):  # as tuples: hash
            numbers = whole_numbers(name, getattr(self, name), least)
            object.__setattr__(self, name, numbers)
        for name in ("head_features", "classes"):
            check_whole(name, getattr(self, name))
        check_constraint(self.constraint)
        check_dtype("dtype", self.dtype)
        if self.stabilizer is not None:
            check_group("stabilizer", self.stabilizer)
        if isinstance(self.kernel_size, Sequence):
            object.__setattr__(self, "kernel_size", tuple(self.kernel_size))
        super().__post_init__()
        for name, value, known in (
            ("norm", self.norm, ("channel", "element")),
            ("pooling", self.pooling, ("exact", "3x3", "blur")),
            ("head", self.head, ("invariant", "dense")),
            ("parametrization", self.parametrization, PARAMETRIZATIONS),
        ):
            check_choice(name, value, known)
        if not set(self.pool_after) <= set(range(1, len(self.features) + 1)):
            raise ValueError(
                f"pool_after must name convolutions 1 to {len(self.features)}, got "
                f"{self.pool_after}"
            )
        for each in self.kernel_sizes:
            per_axis(each, self.architecture.ambient.dimension, "kernel_size")
        if len(self.kernel_sizes) != len(self.features):
            raise ValueError(
                f"kernel_size must be one integer, or one for each of the "
                f"{len(self.features)} convolutions, got {self.kernel_size}"
            )
        expected = self.searchable_layers(self.features, self.head)
        if len(self.architecture) != expected:
            raise ValueError(
                f"{len(self.features)} convolutions and {self.head!r} head need "
                f"{expected} groups, got {len(self.architecture)}: {self.architecture}"
            )
        if isinstance(self.constraint, Sequence):
            object.__setattr__(self, "constraint", tuple(self.constraint))
            if len(self.constraint) != expected:
                raise ValueError(
                    f"constraint must be one, or one for each of the {expected} layers "
                    f"with a group, got {len(self.constraint)}"
                )

    @staticmethod
    def searchable_layers(features: Sequence[int], head: str = "invariant") -> int:
        """Return how many groups a network of these widths needs."""
        return len(features) + (head == "invariant")

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Return logits (batch, classes) for images (batch, height, width, channels).

        Args:
          x: images.
          train: normalize by the batch and update the running statistics, which needs
            `mutable=["batch_stats"]` in `apply`.
        """
        groups, constraints = self.architecture.groups, self.constraints
        tie = {"parametrization": self.parametrization, "dtype": self.dtype}
        make_norm = BatchNorm if self.norm == "channel" else ElementBatchNorm
        fiber = None if self.stabilizer is None else quotient(self.stabilizer)
        for layer, features in enumerate(self.features):
            make_conv = GroupConv if layer else LiftingConv
            conv = make_conv(
                features,
                self.kernel_sizes[layer],
                use_bias=False,
                group=groups[layer],
                fiber_in=fiber if layer else None,
                fiber_out=fiber,
                constraint=constraints[layer],
                name=f"conv{layer + 1}",
                **tie,
            )
            norm = make_norm(
                group=groups[layer],
                fiber=fiber,
                momentum=MOMENTUM,
                name=f"norm{layer + 1}",
                **tie,
            )
            x = nn.relu(norm(conv(x), not train))
            if layer + 1 in self.pool_after:
                x = self._pooled(x)
        if self.head == "invariant":
            head = InvariantHead(
                self.head_features,
                group=groups[-1],
                fiber_in=fiber,
                constraint=constraints[-1],
                name="head",
                **tie,
            )
            x = head(x)
        else:
            x = mean(x, range(1, x.ndim - 2))
            x = x.reshape(x.shape[0], x.shape[-2] * x.shape[-1])
            x = nn.Dense(self.head_features, dtype=self.dtype, name="head")(x)
        head_norm = nn.BatchNorm(
            not train, momentum=MOMENTUM, dtype=self.dtype, name="head_norm"
        )
        x = head_norm(x)
        logits = nn.Dense(self.classes, dtype=self.dtype, name="logits")(nn.elu(x))
        return accurate(logits)

    @property
    def kernel_sizes(self) -> tuple[int, ...]:
        """Taps per axis of each convolution."""
        if isinstance(self.kernel_size, Sequence):
            return tuple(self.kernel_size)
        return (self.kernel_size,) * len(self.features)

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The name of every layer with a group, in the order of the architecture."""
        convs = tuple(f"conv{layer + 1}" for layer in range(len(self.features)))
        return (*convs, "head") if self.head == "invariant" else convs

    @property
    def layer_settings(self) -> dict[str, Sequence[Any]]:
        """Channels per fiber element, taps per axis, and where poolings follow."""
        head = [""] * (self.head == "invariant")
        convs = range(1, len(self.features) + 1)
        return {
            "channels per element": [*self.features, *head],
            "taps": [*self.kernel_sizes, *head],
            "then": [*("pooling" * (n in self.pool_after) for n in convs), *head],
        }

    def symmetry(self, space: int | Sequence[int]) -> Group:
        """Return the group to which the logits stay invariant however it is trained.

        Args:
          space: height and width of the images, or one integer for all axes.
        """
        if self.norm == "element" or self.head == "dense":
            return self.architecture.ambient.smallest
        return super().symmetry(space)

    def windows(self, space: tuple[int, ...]) -> list[Window]:
        """Return the windows of all convolutions and poolings, in their order."""
        windows = []
        for layer in range(len(self.features)):
            windows.append(window(space, self.kernel_sizes[layer], 1, "SAME"))
            if layer + 1 in self.pool_after:
                windows.append(self._pooling_window(space))
            space = windows[-1].output_size
        return windows

    def _pooled(self, x: jax.Array) -> jax.Array:
        if self.pooling == "blur":
            return blur_pool(x)
        pool = self._pooling_window(x.shape[1:-2])
        return avg_pool(x, pool.taps, pool.strides, pool.padding)

    def _pooling_window(self, space: tuple[int, ...]) -> Window:
        if self.pooling == "blur":
            return blurring(space)
        return halving(space, fitted=self.pooling == "exact")


def exact(
    architecture: Architecture,
    *,
    features: Sequence[int] = FEATURES,
    kernel_size: int | Sequence[int] = 5,
    pool_after: Sequence[int] = POOL_AFTER,
    head_features: int = 64,
    classes: int = 10,
    norm: Norm = "channel",
    pooling: Pooling = "exact",
    head: Head = "invariant",
    parametrization: Parametrization = "tied",
    constraint: Constraint | Sequence[Constraint] = Tied(),  # noqa: B008
    stabilizer: Group | None = None,
    dtype: Any = None,
    name: str | None = None,
) -> EquivariantCNN:
    """Build the backbone with its symmetry exact on its input size.

    Args:
      architecture: one group per convolution and one for the head.
      features: as all that follow, an attribute of `EquivariantCNN`; its length is the
        number of convolutions.
      kernel_size: of every convolution, one for all or one for each.
      pool_after: numbers of the convolutions, from 1, that a pooling follows.
      head_features: width of the hidden layer of the head.
      classes: number of logits.
      norm: statistics per "channel" or per "element".
      pooling: "exact", "3x3" or "blur".
      head: "invariant" or "dense".
      parametrization: "tied" or "orthonormal".
      constraint: one for all layers with a group, or one for each.
      stabilizer: of the fibers of hidden fields; the trivial group if None.
      dtype: of the computation.
      name: of the module.

    >>> from eqjax.groups import dihedral
    >>> groups = Architecture.parse(dihedral(4), "D4 D4 C4")
    >>> model = exact(groups, features=(8, 16), pool_after=(1,), classes=3)
    >>> model.symmetry((28, 28))
    Group(C4 < D4)
    """
    return EquivariantCNN(
        architecture=architecture,
        features=features,  # type: ignore[arg-type]  # made a tuple there
        kernel_size=kernel_size,
        pool_after=pool_after,  # type: ignore[arg-type]
        head_features=head_features,
        classes=classes,
        norm=norm,
        pooling=pooling,
        head=head,
        parametrization=parametrization,
        constraint=constraint,
        stabilizer=stabilizer,
        dtype=dtype,
        name=name,
    )


def paper(
    architecture: Architecture,
    *,
    features: Sequence[int] = FEATURES,
    kernel_size: int | Sequence[int] = 5,
    pool_after: Sequence[int] = POOL_AFTER,
    head_features: int = 64,
    classes: int = 10,
    norm: Norm = "element",
    pooling: Pooling = "3x3",
    head: Head = "dense",
    parametrization: Parametrization = "tied",
    constraint: Constraint | Sequence[Constraint] = Tied(),  # noqa: B008
    stabilizer: Group | None = None,
    dtype: Any = None,
    name: str | None = None,
) -> EquivariantCNN:
    """Build the backbone as the authors' code has it.

    Norm per real channel, 3x3 pooling on every size, and a dense head that reads all
    fiber elements: only the convolutions are equivariant, and the logits never are
    invariant.

    Args:
      architecture: one group per convolution.
      features: as all that follow, see `exact`.
      kernel_size: see `exact`.
      pool_after: see `exact`.
      head_features: see `exact`.
      classes: see `exact`.
      norm: see `exact`.
      pooling: see `exact`.
      head: see `exact`.
      parametrization: see `exact`.
      constraint: see `exact`.
      stabilizer: see `exact`.
      dtype: see `exact`.
      name: see `exact`.

    >>> from eqjax.groups import dihedral
    >>> paper(Architecture.uniform(dihedral(4), 8)).symmetry((28, 28))
    Group(C1 < D4)
    """
    return exact(
        architecture,
        features=features,
        kernel_size=kernel_size,
        pool_after=pool_after,
        head_features=head_features,
        classes=classes,
        norm=norm,
        pooling=pooling,
        head=head,
        parametrization=parametrization,
        constraint=constraint,
        stabilizer=stabilizer,
        dtype=dtype,
        name=name,
    )


# Real channels of each convolution of E(2)-CNN's network for RotMNIST: over C8, 24 48
# 48 96 96 64 per element.
E2CNN_CHANNELS = (192, 384, 384, 768, 768, 512)
E2CNN_TAPS = (7, 5, 5, 5, 5, 5)


def e2cnn(
    architecture: Architecture,
    *,
    width: float = 1.0,
    classes: int = 10,
    constraint: Constraint | Sequence[Constraint] = Tied(),  # noqa: B008
    dtype: Any = None,
    name: str | None = None,
) -> EquivariantCNN:
    """Build a network of the size of E(2)-CNN's for rotated digits, over any group.

    Six convolutions, one of 7x7 and five of 5x5 taps, anti-aliased pooling after every
    second one, and a head of 64 invariants (Weiler and Cesa 2019). It is as wide in
    real channels whatever the group: per group element it has fewer over a larger one.
    Images of an odd size, as 29, have a centre that finer angles turn about.

    Args:
      architecture: one group per convolution and one for the head: "C16", or D16 to
        begin with and C16 from some layer on.
      width: times the real channels of the original; 1/8 trains on a CPU.
      classes: number of logits.
      constraint: as of `exact`.
      dtype: of the computation.
      name: of the module.

    >>> import eqjax as eq
    >>> groups = Architecture.parse(eq.dihedral(16), "D16 " * 5 + "C16 C16")
    >>> e2cnn(groups).features, e2cnn(groups, width=1 / 8).features
    ((6, 12, 12, 24, 24, 16), (1, 2, 2, 3, 3, 2))
    """
    order = architecture.ambient.order
    return exact(
        architecture,
        features=[max(1, round(width * n / order)) for n in E2CNN_CHANNELS],
        kernel_size=E2CNN_TAPS,
        pool_after=(2, 4, 6),
        head_features=64,
        classes=classes,
        pooling="blur",
        constraint=constraint,
        dtype=dtype,
        name=name,
    )
