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
import contextvars
import math
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Inexact

from eqjax.ops import winograd
from eqjax.ops.windows import Pairs

FORMS = ("auto", "direct", "winograd")
_WORTHWHILE = 2e7  # operations of a convolution below which compiling costs more
_form: contextvars.ContextVar[str] = contextvars.ContextVar("form", default="auto")

_LAYOUTS = {
    1: ("NWC", "WIO", "NWC"),
    2: ("NHWC", "HWIO", "NHWC"),
    3: ("NDHWC", "DHWIO", "NDHWC"),
}


@contextlib.contextmanager
def prefer(form: str) -> Iterator[None]:
    """Choose the form of the convolutions traced inside a `with` statement.

    Args:
      form: "direct", "winograd" wherever it applies, or "auto": the latter on CPUs for
        convolutions that are worth it. It applies at stride one, without dilation and
        feature groups, to at most 7 taps per axis, in float32 and float64 where no
        precision is asked for; elsewhere the direct form stands in.

    Functions that `jax.jit` has traced before keep the form that they have.
    """
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
    token = _form.set(form)
    try:
        yield
    finally:
        _form.reset(token)


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
    plain = {*strides, *dilation, feature_group_count} == {1}
    if plain and _winograd_pays(x, kernel, padding, precision):
        return winograd.convolve(x, kernel, padding=padding)
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


def _winograd_pays(
    x: Array, kernel: Array, padding: Pairs, precision: lax.PrecisionLike
) -> bool:
    form = _form.get()
    *taps, c_in, c_out = kernel.shape
    if precision is not None or not all(isinstance(n, int) for n in x.shape):
        return False  # a symbolic shape, in `jax.export`
    size = [
        n + sum(p) - r + 1 for n, p, r in zip(x.shape[1:-1], padding, taps, strict=True)
    ]
    possible = (
        x.dtype in (jnp.float32, jnp.float64)
        and max(taps) <= winograd.LARGEST_TAPS
        and min(x.shape[0], *size) > 0
    )
    if form != "auto" or not possible:
        return form == "winograd" and possible
    operations = 2 * x.shape[0] * math.prod(size) * math.prod(taps) * c_in * c_out
    return (
        jax.default_backend() == "cpu"
        and math.prod(taps) > 1
        and operations >= _WORTHWHILE
    )
