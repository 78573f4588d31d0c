"""The one convolution that every layer calls, on real channels.

Spatial axes lie between batch and channels (NWC, NHWC, NDHWC), kernels are
(*taps, in, out), and the operation is the cross-correlation of the field:
out(p) = sum_y f(p + y) K(y).

There are two forms. The direct one is `jax.lax.conv_general_dilated`; `winograd` takes
a fraction of the multiplications, all of them in matrix products, but only at stride
one. On CPUs it is the faster one, and the only one that stays fast when kernels are
vmapped or gradients taken inside a loop (docs/speed.md has the measurements).
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Inexact

from eqjax.ops import winograd
from eqjax.ops.windows import Pairs

FORMS = ("auto", "direct", "winograd")
_WORTHWHILE = 2e7  # operations of a convolution below which compiling costs more
_form = jax.make_user_context("auto")  # a part of the key of `jax.jit`

_LAYOUTS = {
    1: ("NWC", "WIO", "NWC"),
    2: ("NHWC", "HWIO", "NHWC"),
    3: ("NDHWC", "DHWIO", "NDHWC"),
}


def prefer(form: str) -> contextlib.AbstractContextManager[None]:
    """Choose the form of the convolutions inside a `with` statement.

    Args:
      form: "direct", "winograd" wherever it applies, or "auto": the latter where the
        default device is a CPU, for convolutions that are worth it. It applies at
        stride one, without dilation and feature groups, to at most 7 taps per axis, in
        float32 and float64 where no precision is asked for; elsewhere the direct form
        stands in.

    The choice, and the default device, are a part of what `jax.jit` tells programs
    apart by. A program that `jax.export` makes for another platform is right in any
    form, and fast on accelerators in the direct one: export it under
    `prefer("direct")`. Programs of symbolic shapes always have that one.
    """
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
    return _form(form)


def convolve(
    x: Inexact[Array, "batch *space c_in"],
    kernel: Inexact[Array, "*taps c_in_per_group c_out"],
    *,
    strides: Sequence[int],
    padding: Pairs,
    dilation: Sequence[int],
    circular: bool = False,
    feature_group_count: int = 1,
    precision: lax.PrecisionLike = None,
) -> Inexact[Array, "batch *space_out c_out"]:
    """Correlate x with a kernel, in the form that `prefer` chooses.

    All derivatives exist, of any order and in both modes.

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
    direct = functools.partial(
        lax.conv_general_dilated,
        window_strides=tuple(strides),
        padding=padding,
        rhs_dilation=tuple(dilation),
        dimension_numbers=_LAYOUTS[x.ndim - 2],
        feature_group_count=feature_group_count,
        precision=precision,
    )
    plain = {*strides, *dilation, feature_group_count} == {1}
    form = _form.value if plain and _winograd_applies(x, kernel, padding) else "direct"
    if form == "direct" or precision is not None:
        return direct(x, kernel)
    filtered = functools.partial(winograd.convolve, padding=padding)
    if form == "winograd" or (_on_cpu() and _worthwhile(x, kernel, padding)):
        return filtered(x, kernel)
    return direct(x, kernel)


def convolve_transpose(
    x: Inexact[Array, "batch *space c_in"],
    kernel: Inexact[Array, "*taps c_in c_out"],
    *,
    strides: Sequence[int],
    padding: Pairs,
    dilation: Sequence[int],
    precision: lax.PrecisionLike = None,
) -> Inexact[Array, "batch *space_out c_out"]:
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


def _on_cpu() -> bool:
    device = jax.config.values["jax_default_device"]  # a part of jit's key
    if device is None:
        return jax.default_backend() == "cpu"
    return getattr(device, "platform", device) == "cpu"


def _winograd_applies(x: Array, kernel: Array, padding: Pairs) -> bool:
    *taps, _, _ = kernel.shape
    return (
        x.dtype in (jnp.float32, jnp.float64)
        and all(isinstance(n, int) for n in x.shape)  # not symbolic, in `jax.export`
        and max(taps) <= winograd.LARGEST_TAPS
        and min(x.shape[0], *_output_size(x, kernel, padding)) > 0
    )


def _worthwhile(x: Array, kernel: Array, padding: Pairs) -> bool:
    *taps, c_in, c_out = kernel.shape
    points = x.shape[0] * math.prod(_output_size(x, kernel, padding))
    operations = 2 * points * math.prod(taps) * c_in * c_out
    return math.prod(taps) > 1 and operations >= _WORTHWHILE


def _output_size(x: Array, kernel: Array, padding: Pairs) -> list[int]:
    axes = zip(x.shape[1:-1], padding, kernel.shape, strict=False)
    return [n + sum(pads) - taps + 1 for n, pads, taps in axes]
