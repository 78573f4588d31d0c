"""Sliding windows: padding, and the symmetries that a strided window keeps.

Along one axis of size n, a window of k taps with dilation d, stride s and padding
(lo, hi) is centred on the positions d (k - 1) / 2 - lo + s m. A reversal of the axis
maps this set to itself exactly when the first and the last are as far from the ends:

    s (count - 1) = n - 1 + 2 lo - d (k - 1).

Exchanging axes asks only that both are treated alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from jax import lax

Padding = str | int | Sequence[int | tuple[int, int]]
Pairs = tuple[tuple[int, int], ...]

_INTEGER = (int, np.integer)
_PADDINGS = ("SAME", "VALID", "CIRCULAR")


def per_axis(value: Any, dimension: int, what: str) -> tuple[int, ...]:
    """Return one positive integer per spatial axis, repeating a single one."""
    values = (value,) * dimension if isinstance(value, _INTEGER) else tuple(value)
    integral = all(isinstance(v, _INTEGER) for v in values)
    if len(values) != dimension or not integral or min(values) < 1:
        raise ValueError(
            f"{what} must be a positive integer or {dimension} of them, got {value!r}"
        )
    return tuple(int(v) for v in values)


@runtime_checkable
class Subgroups(Protocol):
    """What a window asks of a group: signed permutations of its axes, and subgroups."""

    @property
    def dimension(self) -> int:
        """Number of spatial axes that the matrices act on."""
        ...

    def keeping(self, holds: Callable[[np.ndarray], bool]) -> Any:
        """Return the subgroup of the elements whose matrix fulfils a condition."""
        ...


GroupLike = TypeVar("GroupLike", bound=Subgroups)


@dataclasses.dataclass(frozen=True)
class Window:
    """A sliding window on a grid of given size, with all settings resolved.

    Attributes:
      size: points per axis of the input grid.
      taps: taps per axis.
      strides: stride per axis.
      dilation: spacing of the taps per axis.
      padding: (low, high) per axis.
    """

    size: tuple[int, ...]
    taps: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: Pairs

    @property
    def output_size(self) -> tuple[int, ...]:
        """Points per axis of the output grid."""
        return tuple(
            max(0, (n + lo + hi - d * (k - 1) - 1) // s + 1)
            for n, k, s, d, (lo, hi) in self._axes()
        )

    def symmetry(self, group: GroupLike) -> GroupLike:
        """Return the largest subgroup whose action the window commutes with."""
        if len(self.size) != group.dimension:
            raise ValueError(
                f"{group!r} acts on {group.dimension} axes, the window slides over "
                f"{len(self.size)}: {self.size}"
            )
        axes = tuple(self._axes())
        reversible = [
            s * (count - 1) == n - 1 + 2 * lo - d * (k - 1)
            for count, (n, k, s, d, (lo, _)) in zip(self.output_size, axes, strict=True)
        ]

        def holds(matrix: np.ndarray) -> bool:
            source = np.argmax(np.abs(matrix), axis=1)
            return all(
                axes[i] == axes[j] and (matrix[i, j] > 0 or reversible[i])
                for i, j in enumerate(source)
            )

        return group.keeping(holds)

    def _axes(self):
        return zip(
            self.size,
            self.taps,
            self.strides,
            self.dilation,
            self.padding,
            strict=True,
        )


def resolve_padding(
    padding: Any,
    size: Sequence[int],
    taps: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int],
) -> Pairs:
    """Return (low, high) per axis for any padding that Flax's layers take.

    Raises:
      ValueError: an unknown name, or a sequence of the wrong length.
    """
    extent = [d * (k - 1) + 1 for k, d in zip(taps, dilation, strict=True)]
    if isinstance(padding, str):
        if padding not in _PADDINGS:
            raise ValueError(
                f"padding must be one of {', '.join(_PADDINGS)}, an integer, or one "
                f"integer or (low, high) pair per axis, got {padding!r}"
            )
        if padding == "CIRCULAR":
            return tuple(((e - 1) // 2, e // 2) for e in extent)
        pads = lax.padtype_to_pads(size, extent, strides, padding)
        return tuple((int(lo), int(hi)) for lo, hi in pads)
    entries = [padding] * len(size) if isinstance(padding, _INTEGER) else list(padding)
    if len(entries) != len(size):
        raise ValueError(
            f"padding needs one entry for each of {len(size)} axes, got {padding!r}"
        )
    pairs = [(e, e) if isinstance(e, _INTEGER) else tuple(e) for e in entries]
    return tuple((int(low), int(high)) for low, high in pairs)


def window(
    size: Sequence[int],
    taps: int | Sequence[int],
    strides: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
) -> Window:
    """Return a window from settings as layers and pooling take them.

    >>> import eqjax as eq
    >>> window((28, 28), 3, 2, 1).symmetry(eq.dihedral(4)).name
    'D1:i-j'
    """
    d = len(size)
    taps, strides = per_axis(taps, d, "window"), per_axis(strides, d, "strides")
    spacing = per_axis(dilation, d, "dilation")
    pairs = resolve_padding(padding, size, taps, strides, spacing)
    return Window(tuple(size), taps, strides, spacing, pairs)
