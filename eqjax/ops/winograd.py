"""Convolution by minimal filtering: fewer multiplications, and all of them in GEMMs.

Cut the output into tiles of m points and the input into overlapping tiles of
n = m + r - 1 points, r the number of taps. In one dimension

    y = A^T [(G k) * (B^T x)]

computes a tile with n multiplications instead of m r (Toom 1963, Cook 1966, Winograd
1980); in more, every axis is transformed in turn. Summed over input channels, the
products are n^d matrix products over all tiles at once (Lavin and Gray 2016,
https://arxiv.org/abs/1509.09308). Everything is linear algebra on arrays, so that JAX
derives all derivatives and `vmap` gives batched matrix products; there is no
convolution left that could miss a fast path inside a loop.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from eqjax.ops.windows import Pairs

LARGEST_TAPS = 7  # more taps need more points, and rounding errors grow with each
_LARGEST_TILE = 8  # points of an input tile
# Bytes of transformed input at a time, for each vmapped member: what stays in the cache
# of a CPU, and what keeps an accelerator busy.
_CHUNK_BYTES = {"cpu": 2**22}
_CHUNK_BYTES_ELSEWHERE = 2**28
_CHUNK_ROWS = 400  # of a matrix product; of fewer, it runs at half its speed


class Transforms(NamedTuple):
    """The matrices of one axis: y = output @ ((kernel @ k) * (input @ x))."""

    output: np.ndarray  # A^T, (m, n)
    kernel: np.ndarray  # G, (n, r)
    input: np.ndarray  # B^T, (n, n)

    @property
    def tile(self) -> int:
        """Output points per tile, m."""
        return len(self.output)

    @property
    def points(self) -> int:
        """Input points per tile, n."""
        return len(self.input)


def convolve(
    x: Float[Array, "batch *space c_in"],
    kernel: Float[Array, "*taps c_in c_out"],
    *,
    padding: Pairs,
) -> Float[Array, "batch *space_out c_out"]:
    """Correlate x with a kernel at stride one: out(p) = sum_y x(p + y) K(y).

    Where a batch is large, it is worked off in chunks whose transforms fit into a CPU's
    cache; the backward pass makes those of a chunk again instead of keeping them.

    Args:
      x: (batch, *space, c_in).
      kernel: (*taps, c_in, c_out), at most `LARGEST_TAPS` taps per axis.
      padding: (low, high) per spatial axis.

    Returns:
      (batch, *space_out, c_out); in float32 within 1e-5 of the direct sum, in a volume
      3e-5, relative to the norm of the whole.
    """
    *taps, c_in, c_out = kernel.shape
    batch, space = x.shape[0], x.shape[1:-1]
    size = [
        n + lo + hi - r + 1 for n, (lo, hi), r in zip(space, padding, taps, strict=True)
    ]
    axes = [transforms(_tile(r, n), r) for r, n in zip(taps, size, strict=True)]
    tiles = [-(-n // axis.tile) for n, axis in zip(size, axes, strict=True)]
    codes = kernel
    for i, axis in enumerate(axes):  # the codes of each axis go in front
        matrix = jnp.asarray(axis.kernel, kernel.dtype)
        codes = jnp.tensordot(matrix, codes, (1, i), precision="highest")

    def convolve_chunk(codes, x):
        spread = _transform_input(_pad(x, padding, axes, tiles), axes, tiles)
        products = _multiply(spread, codes)
        return _transform_output(products, axes, tiles, size)

    points = math.prod(axis.points for axis in axes)
    per_sample = points * math.prod(tiles) * max(c_in, c_out) * x.dtype.itemsize
    fitting = _CHUNK_BYTES.get(jax.default_backend(), _CHUNK_BYTES_ELSEWHERE)
    chunk = max(fitting // max(per_sample, 1), -(-_CHUNK_ROWS // math.prod(tiles)))
    chunks = -(-batch // chunk)
    if chunks <= 1:
        return convolve_chunk(codes, x)
    chunk = -(-batch // chunks)
    x = jnp.pad(x, ((0, chunks * chunk - batch), *[(0, 0)] * (x.ndim - 1)))
    again = jax.checkpoint(convolve_chunk, prevent_cse=False)
    if jax.device_count() > 1:
        # Every chunk has samples from all over the batch: one that is spread over
        # devices stays where it is.
        strided = jnp.swapaxes(x.reshape(chunk, chunks, *x.shape[1:]), 0, 1)
        y = jnp.swapaxes(lax.map(functools.partial(again, codes), strided), 0, 1)
    else:
        consecutive = x.reshape(chunks, chunk, *x.shape[1:])
        y = lax.map(functools.partial(again, codes), consecutive)
    return y.reshape(chunks * chunk, *size, c_out)[:batch]


def multiplications(size: Sequence[int], taps: Sequence[int]) -> int:
    """Return how many `convolve` takes for outputs of a size, per pair of channels.

    >>> multiplications((8, 8), (3, 3)), 8 * 8 * 3 * 3
    (144, 576)
    """
    axes = [(n, r, _tile(r, n)) for n, r in zip(size, taps, strict=True)]
    return math.prod(-(-n // m) * (m + r - 1) for n, r, m in axes)


def _tile(taps: int, size: int) -> int:
    """Return how many output points a tile has: what takes fewest multiplications.

    More than 7 input points are taken only where the taps leave no other choice, as
    rounding errors grow with them.
    """
    most = max(_LARGEST_TILE - 1, taps + 3) + 1 - taps
    tiles = range(1, max(1, min(most, _LARGEST_TILE + 1 - taps, size)) + 1)
    return min(tiles, key=lambda m: (-(-size // m) * (m + taps - 1), m))


def _pad(
    x: jax.Array, padding: Pairs, axes: Sequence[Transforms], tiles: Sequence[int]
) -> jax.Array:
    """Pad every axis to whole blocks of m points, as many as the tiles overlap."""
    config = [(0, 0, 0)]
    for n, (low, _), axis, count in zip(
        x.shape[1:-1], padding, axes, tiles, strict=True
    ):
        blocks = count - 1 + -(-axis.points // axis.tile)
        config.append((low, blocks * axis.tile - low - n, 0))
    return lax.pad(x, jnp.zeros((), x.dtype), [*config, (0, 0, 0)])


def _transform_input(
    x: jax.Array, axes: Sequence[Transforms], tiles: Sequence[int]
) -> jax.Array:
    """Turn (batch, *padded, c) into (*codes reversed, batch, *tiles, c)."""
    for i, (axis, count) in enumerate(zip(axes, tiles, strict=True)):
        at = 2 * i + 1  # behind the codes of i axes, the batch, and i axes of tiles
        blocks = x.reshape(*x.shape[:at], -1, axis.tile, *x.shape[at + 1 :])
        points = []
        for first in range(-(-axis.points // axis.tile)):
            part = lax.slice_in_dim(blocks, first, first + count, axis=at)
            points += _unstack(part, at + 1)
        x = jnp.stack(_combine(axis.input, points[: axis.points]))
    return x


def _transform_output(
    y: jax.Array, axes: Sequence[Transforms], tiles: Sequence[int], size: Sequence[int]
) -> jax.Array:
    """Turn (*codes reversed, batch, *tiles, c) into (batch, *size, c)."""
    for i in reversed(range(len(axes))):
        at = 2 * i + 1
        y = jnp.stack(_combine(axes[i].output, _unstack(y, 0)), axis=at + 1)
        y = y.reshape(*y.shape[:at], tiles[i] * axes[i].tile, *y.shape[at + 2 :])
    return y[(slice(None), *(slice(n) for n in size))]


def _multiply(spread: jax.Array, codes: jax.Array) -> jax.Array:
    """Return (*codes, batch, *tiles, c_in) @ (*codes, c_in, c_out), for each code."""
    kinds = codes.ndim - 2
    shape = (*spread.shape[:-1], codes.shape[-1])
    if not jax.sharding.get_abstract_mesh().explicit_axes:
        # Samples and tiles are faster to multiply as one axis, but an axis whose type
        # says that it is spread over devices may not be merged with others.
        rows = math.prod(spread.shape[kinds:-1])
        spread = spread.reshape(math.prod(spread.shape[:kinds]), rows, spread.shape[-1])
        codes = codes.reshape(spread.shape[0], *codes.shape[kinds:])
        kinds = 1
    codewise = tuple(range(kinds))
    products = lax.dot_general(
        spread,
        codes,
        (((spread.ndim - 1,), (kinds,)), (codewise, codewise)),
        precision="highest",  # the transforms amplify the rounding of TF32
    )
    return products.reshape(shape)


def _unstack(x: jax.Array, axis: int) -> list[jax.Array]:
    """Split along an axis; the derivative concatenates, where indexing would add."""
    return [jnp.squeeze(part, axis) for part in lax.split(x, [1] * x.shape[axis], axis)]


def _combine(matrix: np.ndarray, parts: Sequence[jax.Array]) -> list[jax.Array]:
    """Return matrix @ parts as sums of whole arrays, without its many zeros.

    Rows, or columns, that belong to points p and -p differ in signs alone: such pairs
    are made of a sum and a difference, which takes half of the operations.
    """
    size = np.abs(matrix)
    parts = list(parts)
    for j in _pairs(size.T):
        parts[j : j + 2] = parts[j] + parts[j + 1], parts[j] - parts[j + 1]
        total, rest = matrix[:, j] + matrix[:, j + 1], matrix[:, j] - matrix[:, j + 1]
        matrix = matrix.copy()
        matrix[:, j], matrix[:, j + 1] = total / 2, rest / 2
    whole = {}
    for i in _pairs(size):
        alike = matrix[i] == matrix[i + 1]
        even, odd = (_sum(matrix[i] * kept, parts) for kept in (alike, ~alike))
        whole[i], whole[i + 1] = even + odd, even - odd
    return [
        whole[i] if i in whole else _sum(row, parts) for i, row in enumerate(matrix)
    ]


def _pairs(rows: np.ndarray) -> list[int]:
    """Return the first of each pair of equal neighbours, none of which is in two."""
    found: list[int] = []
    for i, (row, following) in enumerate(itertools.pairwise(rows)):
        if i - 1 not in found and np.array_equal(row, following):
            found.append(i)
    return found


def _sum(row: np.ndarray, parts: Sequence[jax.Array]) -> jax.Array:
    terms = [float(c) * part for c, part in zip(row, parts, strict=True) if c]
    return functools.reduce(jnp.add, terms)


@functools.cache
def transforms(tile: int, taps: int) -> Transforms:
    """Return the Toom-Cook matrices of F(tile, taps), exact up to the last rounding.

    Polynomials are evaluated at 0, +-1, +-2, +-1/2 and infinity; rows of G and B^T are
    scaled against each other by powers of two, so that neither amplifies much.

    >>> transforms(2, 3).points
    4
    """
    n = tile + taps - 1
    if min(tile, taps) < 1 or n > _LARGEST_TILE:
        raise ValueError(
            f"a tile holds at most {_LARGEST_TILE} input points, got {n} for {tile} "
            f"outputs and {taps} taps"
        )
    points = [Fraction(p) for p in ("0", "1", "-1", "2", "-2", "1/2", "-1/2")][: n - 1]
    others = [[q for q in points if q != p] for p in points]
    output = [[p**i for p in points] + [Fraction(i == tile - 1)] for i in range(tile)]
    kernel = [
        [p**j / math.prod(p - q for q in rest) for j in range(taps)]
        for p, rest in zip(points, others, strict=True)
    ]
    kernel.append([Fraction(j == taps - 1) for j in range(taps)])
    inputs = [[*_polynomial(rest), Fraction(0)] for rest in others]
    inputs.append(_polynomial(points))
    A, G, B = (np.array(rows, float) for rows in (output, kernel, inputs))
    scale = 2.0 ** np.round(np.log2(np.abs(G).max(axis=1, keepdims=True)))
    return Transforms(A, G / scale, B * scale)


def _polynomial(roots: Sequence[Fraction]) -> list[Fraction]:
    """Return the coefficients of prod (x - root), lowest power first."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        scaled = [root * c for c in coefficients] + [Fraction(0)]
        coefficients = [a - b for a, b in zip(shifted, scaled, strict=True)]
    return coefficients
