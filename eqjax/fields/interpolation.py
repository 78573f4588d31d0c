"""Images turned by angles that pixels do not keep: cubic interpolation between them."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np


def interpolated(x: jax.Array, matrix: np.ndarray) -> jax.Array:
    """Return f(u^-1 p) for an image about the centre of its grid.

    By cubic convolution (Keys 1981), which is exact for polynomials of degree 2, and
    leaves pixels as they are where u moves them onto each other. Outside of the grid
    an image goes on as at its border, so that no background is taken for a number.

    Args:
      x: (batch, rows, columns, *rest).
      matrix: u, an orthogonal (2, 2) matrix.

    Returns:
      An array of the shape of x.
    """
    batch, rows, columns, *rest = x.shape
    sources, weights = _sources(rows, columns, matrix.astype(float).tobytes())
    flat = x.reshape(batch, rows * columns, math.prod(rest))
    found = jnp.zeros_like(flat)
    for source, weight in zip(sources, weights, strict=True):
        found = found + flat[:, source] * jnp.asarray(weight[:, None], x.dtype)
    return found.reshape(x.shape)


@functools.lru_cache(maxsize=256)
def _sources(rows: int, columns: int, matrix: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return (16, pixels) numbers of pixels that are read, and their weights."""
    back = np.frombuffer(matrix).reshape(2, 2).T
    centre = np.array([rows - 1, columns - 1]) / 2
    grid = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), -1)
    place = (grid.reshape(-1, 2) - centre) @ back.T + centre
    first = np.floor(place).astype(int)
    sources, weights = [], []
    for step in np.ndindex(4, 4):
        neighbor = first + np.array(step) - 1
        row, column = np.clip(neighbor, 0, [rows - 1, columns - 1]).T
        sources.append(row * columns + column)
        weights.append(_keys(place - neighbor).prod(1))
    return np.stack(sources).astype(np.int32), np.stack(weights)


def _keys(distance: np.ndarray) -> np.ndarray:
    """Return the weight of a pixel at a distance, along one axis."""
    t = np.abs(distance)
    near = (1.5 * t - 2.5) * t**2 + 1
    far = ((-0.5 * t + 2.5) * t - 4) * t + 2
    return np.where(t <= 1, near, np.where(t < 2, far, 0))
