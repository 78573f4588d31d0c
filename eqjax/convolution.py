"""The one convolution that every layer calls, on real channels.

Spatial axes lie between batch and channels (NWC, NHWC, NDHWC), kernels are
(*taps, in, out), and the operation is the cross-correlation of the field:
out(p) = sum_y f(p + y) K(y).
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from eqjax.windows import Pairs

_LAYOUTS = {
    1: ("NWC", "WIO", "NWC"),
    2: ("NHWC", "HWIO", "NHWC"),
    3: ("NDHWC", "DHWIO", "NDHWC"),
}


def convolve(
    x: Float[Array, "batch *space c_in"],
    kernel: Float[Array, "*taps c_in_per_group c_out"],
    *,
    strides: Sequence[int],
    padding: Pairs,
    dilation: Sequence[int],
    circular: bool = False,
    feature_group_count: int = 1,
    precision: lax.PrecisionLike = None,
) -> Float[Array, "batch *space_out c_out"]:
    """Correlate x with a kernel.

    Args:
      x: (batch, *space, c_in).
      kernel: (*taps, c_in / feature_group_count, c_out).
      strides: one per spatial axis.
      padding: (low, high) per spatial axis.
      dilation: spacing of the taps per spatial axis.
      circular: pad with the opposite border instead of zeros.
      feature_group_count: channels are split into so many independent groups.
      precision: as in `jax.lax.conv_general_dilated`.

    Returns:
      (batch, *space_out, c_out).
    """
    if circular:
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)), mode="wrap")
        padding = ((0, 0),) * len(padding)
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=tuple(strides),
        padding=padding,
        rhs_dilation=tuple(dilation),
        dimension_numbers=_LAYOUTS[x.ndim - 2],
        feature_group_count=feature_group_count,
        precision=precision,
    )


def convolve_transpose(
    x: Float[Array, "batch *space c_in"],
    kernel: Float[Array, "*taps c_in c_out"],
    *,
    strides: Sequence[int],
    padding: Pairs,
    dilation: Sequence[int],
    precision: lax.PrecisionLike = None,
) -> Float[Array, "batch *space_out c_out"]:
    """Correlate a kernel with x after spreading its points `strides` apart.

    Args:
      x: (batch, *space, c_in).
      kernel: (*taps, c_in, c_out).
      strides: spacing of the input points on the output grid.
      padding: (low, high) per spatial axis of the spread input.
      dilation: spacing of the taps.
      precision: as in `jax.lax.conv_general_dilated`.

    Returns:
      (batch, *space_out, c_out).
    """
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1,) * len(strides),
        padding=padding,
        lhs_dilation=tuple(strides),
        rhs_dilation=tuple(dilation),
        dimension_numbers=_LAYOUTS[x.ndim - 2],
        precision=precision,
    )
