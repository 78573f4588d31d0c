"""Strides, dilation and spread inputs as convolutions at stride one, phase by phase.

A grid is the union of s cosets of every s-th point, its phases. One that strides over
its input is a sum over the phases of the kernel, each correlated with its own phase of
the input; one whose taps lie s apart acts on every phase of the input alone, with the
same kernel; and one that spreads its input s apart makes every phase of the output from
the input as it was, by a phase of the kernel. Nothing is multiplied by zeros, and all
that is left are convolutions at stride one, which have forms that are faster.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from eqjax.ops.windows import Pairs

Convolve = Callable[[jax.Array, jax.Array, Pairs], jax.Array]  # at stride one
Parts = Sequence[tuple[Sequence[int], Sequence[int]]]  # output size and taps of each


def strided(
    x: jax.Array,
    kernel: jax.Array,
    convolve: Convolve,
    *,
    strides: Sequence[int],
    padding: Pairs,
) -> jax.Array:
    """Correlate at every stride-th point, as `ops.convolution.convolve`."""
    if set(strides) <= {1}:
        return convolve(x, kernel, padding)
    taps = kernel.shape[:-2]
    size = strided_size(x.shape[1:-1], taps, strides, padding)
    parts = []
    for phase in _phases(taps, strides):
        part = kernel[tuple(slice(a, None, s) for a, s in phase)]
        reach = [
            (n + r - 2) * s + 1
            for n, r, (_, s) in zip(size, part.shape, phase, strict=False)
        ]
        first = [a - low for (a, _), (low, _) in zip(phase, padding, strict=True)]
        read = _read(x, first, reach, strides)
        parts.append(convolve(read, part, ((0, 0),) * len(taps)))
    return sum(parts[1:], parts[0])


def dilated(
    x: jax.Array,
    kernel: jax.Array,
    convolve: Convolve,
    *,
    padding: Pairs,
    dilation: Sequence[int],
) -> jax.Array:
    """Correlate with taps that are spread, as `ops.convolution.convolve`."""
    taps = kernel.shape[:-2]
    axes = zip(x.shape[1:-1], padding, taps, dilation, strict=True)
    size = [n + sum(pads) - t * (r - 1) for n, pads, r, t in axes]
    reach = [
        (-(-n // t) + r - 1) * t for n, r, t in zip(size, taps, dilation, strict=True)
    ]
    x = _read(x, [-low for low, _ in padding], reach, (1,) * len(taps))
    pairs = [(n // t, t) for n, t in zip(reach, dilation, strict=True)]
    x = x.reshape(x.shape[0], *itertools.chain(*pairs), x.shape[-1])
    points = tuple(range(1, x.ndim - 1, 2))
    phased = tuple(range(2, x.ndim - 1, 2))
    x = x.transpose(*phased, 0, *points, x.ndim - 1)
    merged = x.reshape(-1, *x.shape[len(taps) + 1 :])
    y = convolve(merged, kernel, ((0, 0),) * len(taps))
    y = y.reshape(*x.shape[: len(taps) + 1], *y.shape[1:])
    return _joined(y.transpose(np.argsort((*phased, 0, *points, y.ndim - 1))), size)


def transposed(
    x: jax.Array,
    kernel: jax.Array,
    convolve: Convolve,
    *,
    strides: Sequence[int],
    padding: Pairs,
) -> jax.Array:
    """Correlate with spread points, as `ops.convolution.convolve_transpose`."""
    taps = kernel.shape[:-2]
    spread = [(n - 1) * s + 1 for n, s in zip(x.shape[1:-1], strides, strict=True)]
    size = strided_size(spread, taps, (1,) * len(taps), padding)
    per_phase = [-(-n // s) for n, s in zip(size, strides, strict=True)]
    parts = []
    for phase in itertools.product(*map(range, strides)):
        # Output s q + p reads spread points from s q + p - low on; of the taps, those
        # from a on, s apart, lie on points of x, the first of them at q + (p + a -
        # low) / s.
        first, own = [], []
        for p, s, (low, _) in zip(phase, strides, padding, strict=True):
            a = (low - p) % s
            first.append((p + a - low) // s)
            own.append(slice(a, None, s))
        part = kernel[tuple(own)]
        reach = [n + r - 1 for n, r in zip(per_phase, part.shape, strict=False)]
        if part.size:
            read = _read(x, first, reach, (1,) * len(taps))
            parts.append(convolve(read, part, ((0, 0),) * len(taps)))
        else:
            shape = (x.shape[0], *per_phase, kernel.shape[-1])
            parts.append(jnp.zeros(shape, jnp.result_type(x, kernel)))
    for axis, s in reversed(list(enumerate(strides))):
        runs = [parts[i : i + s] for i in range(0, len(parts), s)]
        parts = [jnp.stack(run, axis + 2) for run in runs]
    return _joined(parts[0], size)


def strided_parts(
    size: Sequence[int], taps: Sequence[int], strides: Sequence[int]
) -> Parts:
    """Return what `strided` computes for an output of this size.

    >>> strided_parts((4, 4), (1, 3), (2, 2))
    [((4, 4), (1, 2)), ((4, 4), (1, 1))]
    """
    kernels = [
        tuple(len(range(a, r, s)) for r, (a, s) in zip(taps, phase, strict=True))
        for phase in _phases(taps, strides)
    ]
    return [(size, own) for own in kernels]


def dilated_parts(
    size: Sequence[int], taps: Sequence[int], dilation: Sequence[int]
) -> Parts:
    """Return what `dilated` computes for an output of this size.

    >>> dilated_parts((5, 4), (3, 3), (2, 1))
    [((3, 4), (3, 3)), ((3, 4), (3, 3))]
    """
    per_phase = tuple(-(-n // t) for n, t in zip(size, dilation, strict=True))
    return [(per_phase, taps)] * math.prod(dilation)


def padded(x: jax.Array, padding: Pairs) -> jax.Array:
    """Return x with zeros at both ends of its spatial axes; negative sizes cut."""
    config = [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)]
    return lax.pad(x, jnp.zeros((), x.dtype), config)


def strided_size(
    size: Sequence[Any], taps: Sequence[int], strides: Sequence[int], padding: Pairs
) -> list[Any]:
    """Return the points per axis that a window without dilation has."""
    axes = zip(size, taps, strides, padding, strict=True)
    return [(n + sum(pads) - r) // s + 1 for n, r, s, pads in axes]


def _read(
    x: jax.Array, first: Sequence[int], reach: Sequence[int], strides: Sequence[int]
) -> jax.Array:
    """Return every stride-th point of x from `first`, zeros where x has none."""
    ends = zip(first, reach, x.shape[1:-1], strict=True)
    x = padded(x, tuple((-a, a + n - size) for a, n, size in ends))
    return x[(slice(None), *(slice(None, None, s) for s in strides))]


def _phases(
    taps: Sequence[int], strides: Sequence[int]
) -> list[tuple[tuple[int, int], ...]]:
    """Return (first tap, spacing) per axis for every phase that has taps."""
    each = [
        [(a, s) for a in range(min(r, s))] for r, s in zip(taps, strides, strict=True)
    ]
    return list(itertools.product(*each))


def _joined(y: jax.Array, size: Sequence[int]) -> jax.Array:
    """Turn (batch, *(points, phases), c) into (batch, *size, c)."""
    points = [a * b for a, b in zip(y.shape[1:-1:2], y.shape[2:-1:2], strict=True)]
    y = y.reshape(y.shape[0], *points, y.shape[-1])
    return y[(slice(None), *(slice(n) for n in size))]
