"""Anti-aliased down-sampling: blurred before points are left out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from eqjax.ops.precision import accurate, mean_dtype
from eqjax.ops.windows import Window, per_axis, sizes

SIGMA = 0.66  # pixels, as in escnn


def blur_pool(
    x: jax.Array, strides: int | Sequence[int] = 2, *, sigma: float = SIGMA
) -> jax.Array:
    """Blur a field by a Gaussian, and keep every second point of it.

    Without the blur, what is finer than the new grid comes back as something else that
    does not turn with the image (Zhang 2019). For rotations by right angles
    `eq.avg_pool` is as exact; by other angles the error is smaller with the blur.

    Args:
      x: a field (batch, *space, fiber, channels).
      strides: distance of the points that are kept, one integer or one per axis.
      sigma: standard deviation of the Gaussian, in pixels.

    Returns:
      (batch, *space_out, fiber, channels); points are kept symmetrically about the
      centre, and zeros are outside of the grid.

    Raises:
      ValueError: x is no field, or sigma is not positive.

    >>> blur_pool(jnp.ones((2, 28, 28, 8, 3))).shape
    (2, 14, 14, 8, 3)
    >>> blur_pool(jnp.ones((2, 29, 29, 8, 3))).shape
    (2, 15, 15, 8, 3)
    """
    if x.ndim < 4:
        raise ValueError(
            f"expected a field (batch, *space, fiber, channels), got shape {x.shape}"
        )
    window = blurring(x.shape[1:-2], strides, sigma=sigma)
    y = accurate(x)
    per = zip(
        window.taps, window.strides, window.padding, window.output_size, strict=True
    )
    for axis, (taps, stride, (pad, _), count) in enumerate(per, start=1):
        weights = _gaussian(taps, sigma)
        padded = jnp.pad(
            y, [(pad, pad) if a == axis else (0, 0) for a in range(y.ndim)]
        )
        end = stride * (count - 1) + 1
        y = jnp.zeros((), y.dtype)
        for tap, weight in enumerate(weights):
            y = y + weight * lax.slice_in_dim(padded, tap, tap + end, stride, axis)
    return y.astype(mean_dtype(x))


def blurring(
    space: Sequence[int], strides: int | Sequence[int] = 2, *, sigma: float = SIGMA
) -> Window:
    """Return the window of `blur_pool` on a grid.

    Wide enough for four standard deviations, of as many taps and as much padding as
    keep the points symmetric about the centre of the grid.
    """
    if not sigma > 0:
        raise ValueError(f"sigma should be a positive number of pixels, got {sigma}")
    space = sizes(space)
    strides = per_axis(strides, len(space), "strides")
    half = max(1, round(4 * sigma))
    found = [_fitted(n, s, half) for n, s in zip(space, strides, strict=True)]
    taps = tuple(k for k, _ in found)
    padding = tuple((p, p) for _, p in found)
    return Window(space, taps, strides, (1,) * len(space), padding)


def _fitted(size: int, stride: int, half: int) -> tuple[int, int]:
    """Return taps and padding of one axis that reads symmetrically about its centre."""
    for pad in range(half, -1, -1):
        for taps in (2 * half + 1, 2 * half + 2):
            rest = size + 2 * pad - taps
            if rest >= 0 and rest % stride == 0:
                return taps, pad
    raise ValueError(
        f"no window of {2 * half + 1} taps keeps every {stride}th of {size} points "
        "symmetrically about the centre; take another size"
    )


def _gaussian(taps: int, sigma: float) -> list[float]:
    offsets = np.arange(taps) - (taps - 1) / 2
    weights = [math.exp(-0.5 * (t / sigma) ** 2) for t in offsets]
    return [w / math.fsum(weights) for w in weights]
