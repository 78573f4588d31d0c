"""Normalization of fields: statistics pooled over the fiber, tied scale and offset.

Statistics are those of the whole fiber under every group, so they stay what they are
when a layer is relaxed. Scale and offset are tied along the orbits of the group on the
fiber. All but batch statistics are computed by Flax's own layers.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import canonicalize_dtype

from eqjax.constraints.base import Tied
from eqjax.constraints.collections import BATCH_STATS
from eqjax.fields.fiber import Fiber, regular
from eqjax.groups.checks import check_array, check_number, check_whole
from eqjax.groups.closed import Symmetry
from eqjax.groups.group import Group
from eqjax.kernels.orbits import fiber_table
from eqjax.kernels.tied import Initializer, Parametrization, Tie
from eqjax.layers.base import TiedModule
from eqjax.ops.precision import accurate, squared


class FiberNorm(TiedModule, kw_only=True):
    """What the norms share: a tied scale and offset along the fiber.

    Takes and returns a field (batch, *space, fiber, channels).

    Attributes:
      epsilon: added to the variance.
      dtype: of the result; inferred from input and parameters if None.
      param_dtype: of scale and offset.
      use_bias: add an offset.
      use_scale: multiply by a scale.
      bias_init: initializer of the full offset, (fiber, channels).
      scale_init: initializer of the full scale, (fiber, channels).
      group: the subgroup along whose orbits scale and offset are tied.
      fiber: of the field; regular if None.
      parametrization: "tied" or "orthonormal".
    """

    morphable: ClassVar[frozenset[str]] = TiedModule.morphable | {
        "use_scale",
        "scale_init",
        "use_running_average",
    }

    epsilon: float = 1e-6
    dtype: Any = None
    param_dtype: Any = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = nn.initializers.zeros_init()
    scale_init: Initializer = nn.initializers.ones_init()
    group: Group
    fiber: Fiber | None = None
    parametrization: Parametrization = "tied"

    def __post_init__(self) -> None:
        """Reject relaxations: a scale starts at one, it is not a sum of drawn parts."""
        super().__post_init__()
        if self.constraint != Tied():
            raise ValueError(
                f"scale and bias of {type(self).__name__} are always Tied, got "
                f"constraint={self.constraint!r}"
            )
        if not isinstance(self.fiber, Fiber | None):
            raise TypeError(
                f"fiber must be a Fiber, such as eq.quotient(group), got {self.fiber!r}"
            )
        check_number("epsilon", self.epsilon)
        if not self.epsilon >= 0:
            raise ValueError(f"epsilon must be at least 0, got {self.epsilon}")

    def ties_of(self, group: Symmetry) -> dict[str, Tie]:
        """Return the ties of scale and bias to a group."""
        tie = Tie(fiber_table(group, self.field_fiber), self.parametrization)
        names = ["scale"] * self.use_scale + ["bias"] * self.use_bias
        return dict.fromkeys(names, tie)

    @property
    def field_fiber(self) -> Fiber:
        """The fiber of the field that is normalized."""
        return self.fiber or regular(self.group)

    def _normalizer_settings(self) -> dict[str, Any]:
        return {
            "epsilon": self.epsilon,
            "dtype": self.dtype,
            "use_bias": False,
            "use_scale": False,
            "use_fast_variance": False,  # which cancels where means are large
        }

    def _rescale(
        self, x: jax.Array, mean: Any = 0, inverse_deviation: Any = 1
    ) -> jax.Array:
        """Return (x - mean) * inverse_deviation * scale + bias."""
        rest = x.shape[-1:]
        inits = {"scale": (self.scale_init, rest), "bias": (self.bias_init, rest)}
        full = self.full_arrays(inits, self.param_dtype)
        scale, bias = full.get("scale"), full.get("bias")
        dtype = canonicalize_dtype(x, scale, bias, dtype=self.dtype)
        # Fiber and channels as one axis are the faster one to work on.
        real = x.shape[-2] * x.shape[-1]
        merge = lambda v: jnp.broadcast_to(v, x.shape[-2:]).reshape(real)  # noqa: E731
        y = x.reshape(*x.shape[:-2], real) - merge(mean)
        factor = inverse_deviation if scale is None else inverse_deviation * scale
        y = y * merge(factor)
        if bias is not None:
            y = y + merge(bias)
        return y.astype(dtype).reshape(x.shape)

    def _check_field(self, x: jax.Array) -> None:
        check_array("x", x)
        d, size = self.group.dimension, self.field_fiber.size
        if x.ndim != d + 3 or x.shape[-2] != size:
            raise ValueError(
                f"{type(self).__name__} over {self.group!r} takes a field of shape "
                f"(batch, {d} spatial axes, {size}, channels), got {x.shape}"
            )


class BatchNorm(FiberNorm):
    """Normalize every channel by its statistics over batch, space and fiber.

    Running statistics, (channels,) each, live in the collection `batch_stats`. As
    `flax.linen.BatchNorm` without its fast variance, except that it pools over the
    fiber. An empty batch leaves the running statistics as they are.

    Attributes:
      use_running_average: use the running statistics; here or in the call.
      momentum: of the running statistics.
      axis_name: device axis over which statistics are pooled, see `jax.pmap`.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> layer = BatchNorm(group=D4, use_running_average=False)
    >>> x = jnp.ones((2, 6, 6, 8, 4))
    >>> y, _ = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
    >>> y.shape
    (2, 6, 6, 8, 4)
    """

    use_running_average: bool | None = None
    momentum: float = 0.99
    epsilon: float = dataclasses.field(default=1e-5, kw_only=True)
    axis_name: str | None = None

    pooled: ClassVar[bool] = True  # statistics of the fiber elements together

    def __post_init__(self) -> None:
        """Reject a momentum that averages nothing."""
        super().__post_init__()
        check_number("momentum", self.momentum)
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"momentum must be in [0, 1], got {self.momentum}")

    @nn.compact
    def __call__(
        self, x: jax.Array, use_running_average: bool | None = None
    ) -> jax.Array:
        """Normalize a field (batch, *space, fiber, channels)."""
        self._check_field(x)
        statistics = _Statistics(
            self.momentum, self.axis_name, self.pooled, name="statistics"
        )
        running = nn.merge_param(
            "use_running_average", self.use_running_average, use_running_average
        )
        mean, var = statistics(x, running)
        return self._rescale(x, mean, jax.lax.rsqrt(var + self.epsilon))


class _Statistics(nn.Module):
    """Mean and variance of a batch of fields, and their running averages.

    Attributes:
      momentum: of the running averages.
      axis_name: device axis over which to pool.
      pooled: over the fiber; else each fiber element has its own.
    """

    momentum: float
    axis_name: str | None
    pooled: bool

    @nn.compact
    def __call__(
        self, x: jax.Array, use_running_average: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Return mean and variance, (channels,) or (fiber, channels) each."""
        shape = x.shape[-1:] if self.pooled else x.shape[-2:]
        kind = jnp.promote_types(x.dtype, jnp.float32)
        real_kind = jnp.finfo(kind).dtype
        running_mean = self.variable(BATCH_STATS, "mean", jnp.zeros, shape, kind)
        running_var = self.variable(BATCH_STATS, "var", jnp.ones, shape, real_kind)
        if use_running_average:
            return running_mean.value, running_var.value
        if 0 in x.shape:  # nothing to measure, and nothing to normalize
            return running_mean.value, running_var.value
        points = math.prod(x.shape[:-2])
        # Fiber and channels as one axis are the faster one to reduce over.
        real = accurate(x).reshape(points, x.shape[-2] * x.shape[-1])

        def average(values: jax.Array) -> jax.Array:
            found = values.mean(0).reshape(x.shape[-2:])
            found = found.mean(0) if self.pooled else found
            if self.axis_name is None or self.is_initializing():
                return found
            return jax.lax.pmean(found, self.axis_name)

        mean = average(real)
        spread = jnp.broadcast_to(mean, x.shape[-2:]).reshape(real.shape[1:])
        var = average(squared(real - spread))
        if not self.is_initializing():
            for running, now in ((running_mean, mean), (running_var, var)):
                kept = self.momentum * running.value
                running.value = kept + (1 - self.momentum) * now
        return mean, var


class ElementBatchNorm(BatchNorm):
    """Normalize every channel of every fiber element by itself, as plain networks do.

    Breaks equivariance as soon as the statistics of fiber elements differ, which takes
    a few training steps. For like-for-like comparison with networks that do so; scale
    and offset are free, whatever the group.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> layer = ElementBatchNorm(group=D4, use_running_average=True)
    >>> x = jnp.ones((2, 6, 6, 8, 4))
    >>> y, _ = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
    >>> y.shape
    (2, 6, 6, 8, 4)
    """

    pooled: ClassVar[bool] = False

    def ties_of(self, group: Symmetry) -> dict[str, Tie]:
        """Scale and offset are not tied at all."""
        return super().ties_of(group.smallest)


class LayerNorm(FiberNorm):
    """Normalize every point of every sample over its fiber and channels.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> layer = LayerNorm(group=D4)
    >>> x = jnp.ones((2, 6, 6, 8, 4))
    >>> y, _ = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
    >>> y.shape
    (2, 6, 6, 8, 4)
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalize a field (batch, *space, fiber, channels)."""
        self._check_field(x)
        normalize = nn.LayerNorm(reduction_axes=(-2, -1), **self._normalizer_settings())
        return self._rescale(normalize(x))


class RMSNorm(FiberNorm):
    """Divide every point of every sample by its root mean square over the fiber.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> layer = RMSNorm(group=D4)
    >>> x = jnp.ones((2, 6, 6, 8, 4))
    >>> y, _ = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
    >>> y.shape
    (2, 6, 6, 8, 4)
    """

    use_bias: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalize a field (batch, *space, fiber, channels)."""
        self._check_field(x)
        settings = self._normalizer_settings()
        settings.pop("use_bias")
        return self._rescale(nn.RMSNorm(reduction_axes=(-2, -1), **settings)(x))


class GroupNorm(FiberNorm):
    """Normalize groups of channels of every sample over space and fiber.

    Attributes:
      num_groups: groups that the channels (not the fiber elements) are split into.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> layer = GroupNorm(num_groups=2, group=D4)
    >>> x = jnp.ones((2, 6, 6, 8, 4))
    >>> y, _ = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
    >>> y.shape
    (2, 6, 6, 8, 4)
    """

    num_groups: int = 32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalize a field (batch, *space, fiber, channels)."""
        self._check_field(x)
        check_whole("num_groups", self.num_groups, None)
        if self.num_groups < 1 or x.shape[-1] % self.num_groups:
            raise ValueError(
                f"num_groups must divide the {x.shape[-1]} channels, got "
                f"{self.num_groups}"
            )
        normalize = nn.GroupNorm(
            num_groups=self.num_groups, **self._normalizer_settings()
        )
        return self._rescale(normalize(x))
