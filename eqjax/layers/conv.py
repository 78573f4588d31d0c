"""Convolutions whose kernel is tied along the orbits of a group, as linen modules.

A field is an array (batch, *space, fiber, channels). Every hidden field has the regular
fiber of the ambient group, whatever subgroup a layer is constrained to. A layer given
`group=H` commutes with the left action of every element of H:

    (u . f)(p, a) = f(u^-1 p, u^-1 a).

The fields of the modules and their order follow `flax.linen.Conv`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from eqjax import kernels
from eqjax.fields.fiber import regular, trivial
from eqjax.groups.checks import check_array, check_whole
from eqjax.groups.group import Group
from eqjax.kernels.bases import Representation
from eqjax.kernels.tied import Initializer, Parametrization
from eqjax.layers.convolving import Basis, Convolving
from eqjax.ops.convolution import convolve, convolve_transpose
from eqjax.ops.precision import mean
from eqjax.ops.windows import (
    Padding,
    Pairs,
    Window,
    resolve_padding,
    sizes,
)


class GroupConv(Convolving):
    """Convolve a field over the ambient group, commuting with a subgroup.

    The real width is |G| times `features`, with G the ambient group: over D4, 16
    features are 128 real channels, whatever subgroup the layer commutes with. Takes
    (batch, *space, |G|, channels), returns (batch, *space_out, |G|, features).

    out(p, g) = sum_{y, h} f(p + y, h) K(y, h, g), with K constant on the orbits of
    `group` on taps x input fiber x output fiber (Cohen and Welling 2016 for the
    regular fibers of the whole group).

    Attributes:
      features: channels per output fiber element.
      kernel_size: taps per spatial axis, or one integer for all axes.
      strides: window strides, one integer or one per axis.
      padding: "SAME", "VALID", "CIRCULAR", an integer, or one integer or (low, high)
        pair per axis. `Window.symmetry` tells which elements a choice commutes with.
      kernel_dilation: spacing of the taps.
      feature_group_count: channels (not fiber elements) are split into so many
        independent groups; equal to the input channels for a depthwise convolution.
      use_bias: add a bias, tied along the orbits of `group` on the output fiber.
      dtype: of the computation; inferred from inputs and parameters if None.
      param_dtype: of the parameters.
      precision: as in `jax.lax.conv_general_dilated`.
      kernel_init: initializer of the full kernel as a dense convolution sees it, so
        the fan-in is that of the full kernel.
      bias_init: initializer of the full bias, (fiber_out, features).
      group: the subgroup that the layer commutes with.
      fiber_in: fiber of the input; regular if None. An `IrrepsFiber` for values that
        the group turns, as vectors.
      fiber_out: fiber of the output; regular if None.
      parametrization: "tied" or "orthonormal", see `eqjax.kernels`.
      constraint: how kernel and bias arise from the parameters; see
        `eqjax.constraints`.
      basis: what kernels are made of: "pixels", single taps, which right angles move
        onto each other; or `eq.CircularHarmonics`, which turn by any angle and are
        sampled on the taps. If None, that is so where the ambient group needs it.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> layer = GroupConv(16, 3, group=D4)
    >>> x = jnp.ones((2, 28, 28, 8, 4))
    >>> y, _ = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
    >>> y.shape
    (2, 28, 28, 8, 16)
    """

    morphable: ClassVar[frozenset[str]] = Convolving.morphable | {
        "features",
        "precision",
        "kernel_init",
    }

    features: int
    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] = 1
    padding: Padding = "SAME"
    kernel_dilation: int | Sequence[int] = 1
    feature_group_count: int = 1
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32
    precision: lax.PrecisionLike = None
    kernel_init: Initializer = nn.initializers.lecun_normal()
    bias_init: Initializer = nn.initializers.zeros_init()
    group: Group = dataclasses.field(kw_only=True)
    fiber_in: Representation | None = dataclasses.field(default=None, kw_only=True)
    fiber_out: Representation | None = dataclasses.field(default=None, kw_only=True)
    parametrization: Parametrization = dataclasses.field(default="tied", kw_only=True)
    basis: Basis = dataclasses.field(default=None, kw_only=True)  # type: ignore[misc]

    @property
    def fibers(self) -> tuple[Representation, Representation]:
        """The input and the output fiber."""
        fiber_in, fiber_out = self.fiber_in, self.fiber_out
        return fiber_in or regular(self.group), fiber_out or regular(self.group)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolve.

        Args:
          x: (batch, *space, fiber_in, channels).

        Returns:
          (batch, *space_out, fiber_out, features).
        """
        self._check_field(x)
        split = self.feature_group_count
        check_whole("feature_group_count", split, None)
        if split < 1 or x.shape[-1] % split or self.features % split:
            raise ValueError(
                f"feature_group_count {split} must divide both the {x.shape[-1]} input "
                f"channels and the {self.features} features"
            )
        kernel, bias, x = self._parameters(x, x.shape[-1] // split, self.features)
        y = convolve(
            merge_fiber(x, split),
            kernels.convolution_layout(kernel, split),
            circular=self.padding == "CIRCULAR",
            feature_group_count=split,
            precision=self.precision,
            **self._window_settings(x.shape[1:-2]),
        )
        y = split_fiber(y, self.fibers[1].size, split)
        return y if bias is None else y + bias

    def _check_field(self, x: jax.Array) -> None:
        d, fiber = self.group.dimension, self.fibers[0]
        check_whole("features", self.features)
        check_array("x", x)
        if x.ndim != d + 3 or x.shape[-2] != fiber.size:
            hint = "; images go through LiftingConv" if x.ndim == d + 2 else ""
            raise ValueError(
                f"{type(self).__name__} over {self.group!r} takes a field of shape "
                f"(batch, {d} spatial axes, {fiber.size}, channels), got {x.shape}"
                f"{hint}"
            )


class LiftingConv(GroupConv):
    """Convolve an image into a field over the ambient group.

    The first layer of a network: a `GroupConv` that reads the trivial fiber. Takes
    (batch, *space, channels), returns (batch, *space_out, |G|, features): the real
    width is |G| times `features`.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> layer = LiftingConv(16, 3, group=D4)
    >>> x = jnp.ones((2, 28, 28, 3))
    >>> y, _ = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
    >>> y.shape
    (2, 28, 28, 8, 16)
    """

    @property
    def fibers(self) -> tuple[Representation, Representation]:
        """The trivial fiber of the image and the output fiber."""
        _check_default("LiftingConv reads the trivial fiber", "fiber_in", self.fiber_in)
        return trivial(self.group), self.fiber_out or regular(self.group)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolve an image (batch, *space, channels) into a field."""
        check_array("x", x)
        d = self.group.dimension
        if x.ndim != d + 2:
            hint = "; fields go through GroupConv" if x.ndim == d + 3 else ""
            raise ValueError(
                f"LiftingConv over {self.group!r} takes an image of shape "
                f"(batch, {d} spatial axes, channels), got {x.shape}{hint}"
            )
        _check_channels_last(x)
        return super().__call__(x[..., None, :])


class GroupConvTranspose(GroupConv):
    """Convolve a field after spreading its points `strides` apart, to up-sample.

    Kernel, ties and fields are those of `GroupConv`: takes (batch, *space, |G|,
    channels), returns (batch, *space_out, |G|, features), and the real width is |G|
    times `features`. Padding is that of the output:
    "SAME" returns strides * n points per axis, "VALID" every position that a tap
    reaches, and integers or (low, high) pairs cut so many points off the latter.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> layer = GroupConvTranspose(16, 2, strides=2, group=D4)
    >>> x = jnp.ones((2, 14, 14, 8, 4))
    >>> y, _ = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
    >>> y.shape
    (2, 28, 28, 8, 16)
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolve (batch, *space, fiber_in, channels) onto a finer grid."""
        self._check_field(x)
        if self.feature_group_count != 1:
            raise ValueError("GroupConvTranspose has no feature groups; use 1")
        kernel, bias, x = self._parameters(x, x.shape[-1], self.features)
        settings = self._window_settings(x.shape[1:-2])
        settings["strides"] = self._spacing()[0]
        y = convolve_transpose(
            merge_fiber(x),
            kernels.convolution_layout(kernel),
            precision=self.precision,
            **settings,
        )
        y = split_fiber(y, self.fibers[1].size)
        return y if bias is None else y + bias

    def window(self, space: int | Sequence[Any]) -> Window:
        """Return the stride-one window that slides over the spread grid."""
        space = sizes(space, self.group.dimension)
        strides, dilation = self._spacing()
        extent = [d * (k - 1) for k, d in zip(self.taps, dilation, strict=True)]
        spread = tuple((n - 1) * s + 1 for n, s in zip(space, strides, strict=True))
        padding = self._spread_padding(strides, extent)
        return Window(spread, self.taps, (1,) * len(spread), dilation, padding)

    def _spread_padding(self, strides: Sequence[int], extent: Sequence[int]) -> Pairs:
        if self.padding == "SAME":
            total = [e + s - 1 for e, s in zip(extent, strides, strict=True)]
            return tuple((t - t // 2, t // 2) for t in total)
        if self.padding == "CIRCULAR":
            raise ValueError(
                "GroupConvTranspose pads with zeros: SAME, VALID, integers"
            )
        ones = (1,) * len(extent)
        cut = resolve_padding(self.padding, ones, ones, ones, ones)
        return tuple((e - lo, e - hi) for e, (lo, hi) in zip(extent, cut, strict=True))


class InvariantHead(GroupConv):
    """Average a field over space and read out numbers that `group` leaves alone.

    A 1x1 convolution from the regular to the trivial fiber after the spatial mean.
    Takes (batch, *space, |G|, channels), returns (batch, features), which are as many
    numbers as `features` says.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> layer = InvariantHead(10, group=D4)
    >>> x = jnp.ones((2, 7, 7, 8, 4))
    >>> y, _ = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
    >>> y.shape
    (2, 10)
    """

    kernel_size: int | Sequence[int] = 1

    @property
    def fibers(self) -> tuple[Representation, Representation]:
        """The input fiber and the trivial one."""
        _check_default("InvariantHead writes one value", "fiber_out", self.fiber_out)
        return self.fiber_in or regular(self.group), trivial(self.group)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return (batch, features) for a field (batch, *space, fiber, channels)."""
        self._check_field(x)
        space = tuple(range(1, 1 + self.group.dimension))
        if 0 in x.shape[1:]:
            raise ValueError(f"there is nothing to average in a field of {x.shape}")
        y = super().__call__(mean(x, space, keepdims=True))
        return y.reshape(x.shape[0], self.features)


def _check_channels_last(x: jax.Array) -> None:
    """Refuse (batch, 3, 32, 32): no image is 3 pixels high and has 32 channels."""
    first, *others = x.shape[1:]
    known = len(others) > 1 and all(isinstance(n, int) for n in others)
    like_sides = known and min(others) >= 8 and 2 * min(others) > max(others)
    if first in (1, 3, 4) and like_sides and others[-1] not in (8, 16):
        raise ValueError(
            f"expected channels last, (batch, *space, channels), got {x.shape}, which "
            "has them behind the batch; jnp.moveaxis(x, 1, -1) moves them"
        )


def _check_default(reason: str, name: str, value: Any) -> None:
    if value is not None:
        raise ValueError(f"{reason}; {name} must be None, got {value}")


def merge_fiber(x: jax.Array, split: int = 1) -> jax.Array:
    """Turn (..., fiber, channels) into real channels in the order of the kernel."""
    *lead, fiber, channels = x.shape
    if split > 1:
        x = x.reshape(*lead, fiber, split, channels // split).swapaxes(-3, -2)
    return x.reshape(*lead, fiber * channels)


def split_fiber(y: jax.Array, fiber: int, split: int = 1) -> jax.Array:
    """Undo `merge_fiber`."""
    *lead, real = y.shape
    if split > 1:
        y = y.reshape(*lead, split, fiber, real // fiber // split).swapaxes(-3, -2)
    return y.reshape(*lead, fiber, real // fiber)
