"""The one convolution that every layer calls, on real channels.

Spatial axes lie between batch and channels (NWC, NHWC, NDHWC), kernels are
(*taps, in, out), and the operation is the cross-correlation of the field:
out(p) = sum_y f(p + y) K(y).

The direct form is `jax.lax.conv_general_dilated`. At stride one, `winograd` takes a
fraction of the multiplications, all of them in matrix products. Strided, dilated and
transposed convolutions come down to it `phases` by phase, groups of channels one by
one; single taps are one matrix product, and single channels a sum over taps. On CPUs
these forms are the faster ones, and the only ones that stay fast when kernels are
vmapped or gradients taken inside a loop (docs/speed.md has the measurements).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Inexact

from eqjax.ops import phases, winograd
from eqjax.ops.windows import Pairs

FORMS = ("auto", "direct", "winograd")
_WORTHWHILE = 2e7  # operations of a convolution below which compiling costs more
_FEW = 0.5  # of the multiplications, which pays for the transforms
_FEWEST_CHANNELS = 8  # of a matrix product that is worth its transforms
_form = jax.make_user_context("auto")  # a part of the key of `jax.jit`

_LAYOUTS = {
    1: ("NWC", "WIO", "NWC"),
    2: ("NHWC", "HWIO", "NHWC"),
    3: ("NDHWC", "DHWIO", "NDHWC"),
}


def prefer(form: str) -> contextlib.AbstractContextManager[None]:
    """Choose the form of the convolutions inside a `with` statement.

    Args:
      form: "direct", "winograd" for all other forms wherever they apply, or "auto":
        these where the default device is a CPU, for convolutions that are worth it.
        They take at most 7 taps per axis, one kind of spacing (strides, dilation or
        none), float32 and float64, and no precision; elsewhere the direct form stands
        in.

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
    ones = (1,) * len(padding)
    strides, dilation = tuple(strides), tuple(dilation)
    taps = kernel.shape[:-2]
    reach = [t * (r - 1) + 1 for r, t in zip(taps, dilation, strict=True)]
    size = phases.strided_size(x.shape[1:-1], reach, strides, padding)
    if precision is None and _has_other_forms(x, kernel, size):
        if feature_group_count > 1:
            settings = {"strides": strides, "padding": padding, "dilation": dilation}
            return _grouped(x, kernel, feature_group_count, settings)
        if dilation == ones:
            parts = phases.strided_parts(size, taps, strides)
            worth = strides == ones or _strides_pay(taps)
            if worth and _pays(x, kernel, size, parts):
                return phases.strided(
                    x, kernel, _at_stride_one, strides=strides, padding=padding
                )
        elif strides == ones and _mergeable():
            parts = phases.dilated_parts(size, taps, dilation)
            if _pays(x, kernel, size, parts):
                return phases.dilated(
                    x, kernel, _at_stride_one, padding=padding, dilation=dilation
                )
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=strides,
        padding=padding,
        rhs_dilation=dilation,
        dimension_numbers=_LAYOUTS[x.ndim - 2],
        feature_group_count=feature_group_count,
        precision=precision,
    )


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
    ones = (1,) * len(padding)
    spread = [(n - 1) * s + 1 for n, s in zip(x.shape[1:-1], strides, strict=True)]
    size = phases.strided_size(spread, kernel.shape[:-2], ones, padding)
    undilated = precision is None and tuple(dilation) == ones
    if undilated and _has_other_forms(x, kernel, size) and _large(x, kernel, size):
        return phases.transposed(
            x, kernel, _at_stride_one, strides=strides, padding=padding
        )
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=ones,
        padding=padding,
        lhs_dilation=tuple(strides),
        rhs_dilation=tuple(dilation),
        dimension_numbers=_LAYOUTS[x.ndim - 2],
        precision=precision,
    )


def _at_stride_one(x: Array, kernel: Array, padding: Pairs) -> Array:
    """Correlate a part of a convolution, in the form that suits its own size."""
    *taps, c_in, c_out = kernel.shape
    ones = (1,) * len(taps)
    size = phases.strided_size(x.shape[1:-1], taps, ones, padding)
    if max(taps, default=1) == 1:
        return phases.padded(x, padding) @ kernel.reshape(c_in, c_out)
    if _pays(x, kernel, size, [(size, taps)]):
        return winograd.convolve(x, kernel, padding=padding)
    return lax.conv_general_dilated(
        x, kernel, ones, padding, dimension_numbers=_LAYOUTS[len(taps)]
    )


def _grouped(x: Array, kernel: Array, groups: int, settings: dict[str, Any]) -> Array:
    """Correlate groups of channels by themselves.

    Of the direct form, derivatives for groups take a hundred times as long on CPUs.
    """
    *taps, c_in, c_out = kernel.shape
    plain = {*settings["strides"], *settings["dilation"]} == {1}
    if plain and c_in == 1 and c_out == groups:
        return _channelwise(phases.padded(x, settings["padding"]), kernel)
    apart = x.reshape(*x.shape[:-1], groups, c_in)
    kernels = kernel.reshape(*taps, c_in, groups, c_out // groups)

    def each(x: Array, kernel: Array) -> Array:
        return convolve(x, kernel, **settings)

    with prefer("winograd"):
        y = jax.vmap(each, -2, -2)(apart, kernels)
    return y.reshape(*y.shape[:-2], c_out)


def _channelwise(x: Array, kernel: Array, axis: int = 1) -> Array:
    """Correlate every channel with its own taps, (*taps, 1, c), at stride one."""
    if axis == x.ndim - 1:
        return x * kernel[0]
    size = x.shape[axis] - len(kernel) + 1
    parts = [
        lax.slice_in_dim(_channelwise(x, part, axis + 1), a, a + size, axis=axis)
        for a, part in enumerate(kernel)
    ]
    return sum(parts[1:], parts[0])


def _has_other_forms(x: Array, kernel: Array, size: Sequence[Any]) -> bool:
    chosen = _form.value == "winograd" or (_form.value == "auto" and _on_cpu())
    return (
        chosen
        and x.dtype in (jnp.float32, jnp.float64)
        and all(isinstance(n, int) for n in x.shape)  # not symbolic, in `jax.export`
        and max(kernel.shape[:-2], default=1) <= winograd.LARGEST_TAPS
        and min(x.shape[0], *size) > 0
    )


def _mergeable() -> bool:
    """Return whether the batch may be merged with other axes."""
    return not jax.sharding.get_abstract_mesh().explicit_axes


def _strides_pay(taps: Sequence[int]) -> bool:
    """Return whether phases may be faster: in the plane, XLA strides as fast itself."""
    return _form.value == "winograd" or len(taps) > 2 or max(taps, default=1) == 1


def _pays(x: Array, kernel: Array, size: Sequence[int], parts: phases.Parts) -> bool:
    """Return whether a convolution is worth taking apart into these at stride one."""
    taps = kernel.shape[:-2]
    if _form.value == "winograd" or max(taps, default=1) == 1:
        return True
    multiplications = sum(winograd.multiplications(*part) for part in parts)
    most = _FEW * math.prod((*size, *taps))
    few = len(taps) > 2 or multiplications <= most  # in volumes, XLA's form is slow
    return (
        few and min(kernel.shape[-2:]) >= _FEWEST_CHANNELS and _large(x, kernel, size)
    )


def _large(x: Array, kernel: Array, size: Sequence[int]) -> bool:
    points = x.shape[0] * math.prod(size)
    operations = 2 * points * math.prod(kernel.shape)
    return _form.value == "winograd" or operations >= _WORTHWHILE


def _on_cpu() -> bool:
    device = jax.config.values["jax_default_device"]  # a part of jit's key
    if device is None:
        return jax.default_backend() == "cpu"
    return getattr(device, "platform", device) == "cpu"
