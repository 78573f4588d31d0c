"""Filters made of circular harmonics, which turn by any angle.

The rotation of a filter by an angle that pixels do not keep is not known: what is known
are the pixels alone. Where a filter is a sum of functions of the plane,

    F(y) = sum_b c_b B_b(y),    B = cos(m phi) and sin(m phi) times a ring around r,

its rotation is a linear map of the coefficients, exact for every angle, and pixels are
where it is sampled in the end (Weiler and Cesa 2019). Coefficients of one frequency m
transform by an irrep of O(2).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from eqjax.fields.irreps import IrrepsFiber
from eqjax.kernels.orbits import tap_offsets

_EMPTY = 1e-9  # norm of a function that no tap sees


@dataclasses.dataclass(frozen=True)
class CircularHarmonics:
    """A basis of filters in the plane: rings times harmonics of the angle.

    What is None follows from the kernel size, as in escnn: a ring at every whole
    distance up to the border, of width 0.6 and the last one 0.4, a single point in the
    centre; frequencies up to 2 at the border and 2 r - 1 or 2 r within, so that nothing
    is sampled too coarsely. In a kernel of even size rings are at half distances.

    Attributes:
      radii: of the rings, in pixels.
      widths: standard deviation of each ring, in pixels.
      frequencies: the highest of each ring.

    >>> CircularHarmonics().fiber(5).irreps
    '3x0e+2x1+2x2'
    >>> CircularHarmonics((0.0, 1.0), widths=(0.4, 0.5), frequencies=(0, 1)).fiber(3)
    IrrepsFiber(irreps='2x0e+1x1')
    """

    radii: tuple[float, ...] | None = None
    widths: tuple[float, ...] | None = None
    frequencies: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Keep settings as tuples; reject those that do not fit each other."""
        given = {}
        for field in dataclasses.fields(self):
            values = getattr(self, field.name)
            if values is not None:
                object.__setattr__(self, field.name, tuple(values))
                given[field.name] = len(tuple(values))
        if len(set(given.values())) > 1:
            raise ValueError(f"expected one number for each ring, got {given}")
        if "radii" not in given and given:
            raise ValueError(f"{', '.join(given)} need the radii that they belong to")
        for name, least in (("radii", 0), ("widths", 1e-3), ("frequencies", 0)):
            values = getattr(self, name)
            fit = values and all(least <= v < math.inf for v in values)
            if values is not None and not fit:
                raise ValueError(f"{name} should be at least {least}, got {values}")

    def rings(self, size: int) -> tuple[tuple[float, float, int], ...]:
        """Return radius, width and highest frequency of every ring.

        Args:
          size: taps along each of the two axes.
        """
        last = (size - 1) // 2 if size % 2 else (size - 1) / 2
        count = math.ceil(size / 2)
        radii = self.radii or tuple(np.linspace(0.5 * (1 - size % 2), last, count))
        widths = self.widths or tuple(
            0.005 if r == 0 else 0.4 if r == max(radii) else 0.6 for r in radii
        )
        frequencies = self.frequencies or tuple(_highest(r, size) for r in radii)
        return tuple(zip(map(float, radii), widths, frequencies, strict=True))

    def fiber(self, size: int) -> IrrepsFiber:
        """Return how the coefficients transform: an irrep for each ring and frequency.

        Ordered by frequency, then by ring.
        """
        highest = [m for *_, m in self.rings(size)]
        terms = []
        for m in range(max(highest) + 1):
            copies = sum(m <= top for top in highest)
            terms.append(f"{copies}x{m if m else '0e'}")
        return IrrepsFiber("+".join(terms))

    def sampled(self, size: int) -> np.ndarray:
        """Return (size * size, functions), the functions on the taps.

        A harmonic's cosine and sine together have the norm of two unit vectors, so that
        coefficients of unit variance are taps of unit variance, in the mean over taps.

        Raises:
          ValueError: no tap sees one of the rings.
        """
        return _sampled(self, size)


@functools.cache
def _sampled(basis: CircularHarmonics, size: int) -> np.ndarray:
    offsets = tap_offsets((size, size)) / 2
    radius = np.hypot(*offsets.T)
    angle = np.arctan2(offsets[:, 1], offsets[:, 0])
    columns: list[np.ndarray] = []
    rings = basis.rings(size)
    for m in range(max(top for *_, top in rings) + 1):
        for r, width, top in rings:
            if m > top:
                continue
            ring = np.exp(-0.5 * ((radius - r) / width) ** 2)
            if m:
                ring = np.where(radius > 0, ring, 0)
            waves = [np.cos(m * angle), np.sin(m * angle)][: 2 if m else 1]
            functions = np.stack([ring * wave for wave in waves])
            length = math.sqrt(np.mean(np.sum(functions**2, axis=1)))
            if length < _EMPTY:
                raise ValueError(
                    f"no tap of a {size}x{size} kernel is on the ring of radius {r:g} "
                    f"and width {width:g}"
                )
            columns.extend(functions / length)
    found = np.stack(columns, axis=1)
    found.flags.writeable = False
    return found


def _highest(radius: float, size: int) -> int:
    finest = 2 * radius  # that a circle of this length has pixels for
    if radius >= (size - 1) / 2:
        return int(min(finest, 2))
    return int(finest - (radius > 0 and radius % 2 == 0))


def sample(coefficients: Any, basis: CircularHarmonics, taps: tuple[int, ...]) -> Any:
    """Return the full kernel (*taps, *rest) of (functions, *rest) coefficients."""
    values = jnp.asarray(basis.sampled(taps[0]), coefficients.dtype)
    kernel = jnp.tensordot(values, coefficients, 1, precision="highest")
    return kernel.reshape(*taps, *coefficients.shape[1:])


def fit(kernel: Any, basis: CircularHarmonics) -> Any:
    """Return the coefficients of the nearest kernel that the basis holds.

    Args:
      kernel: (*taps, *rest).
      basis: the functions.

    Returns:
      (functions, *rest).
    """
    size = kernel.shape[0]
    inverse = np.linalg.pinv(basis.sampled(size))
    flat = kernel.reshape(size * size, *kernel.shape[2:])
    return jnp.tensordot(
        jnp.asarray(inverse, kernel.dtype), flat, 1, precision="highest"
    )
