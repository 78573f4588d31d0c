"""Sliding windows: padding, and the symmetries that a strided window keeps.

Along one axis of size n, a window of k taps with dilation d, stride s and padding
(lo, hi) is centred on the positions d (k - 1) / 2 - lo + s m. A reversal of the axis
maps this set to itself exactly when the first and the last are as far from the ends:

    s (count - 1) = n - 1 + 2 lo - d (k - 1).

Exchanging axes asks only that both are treated alike.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np

Padding = str | int | Sequence[int | tuple[int, int]]
Pairs = tuple[tuple[int, int], ...]

_INTEGER = (int, np.integer)
_PADDINGS = ("SAME", "VALID", "CIRCULAR")


def per_axis(value: Any, dimension: int, what: str) -> tuple[int, ...]:
    """Return one positive integer per spatial axis, repeating a single one."""
    several = isinstance(value, Iterable) and not isinstance(value, str)
    values = tuple(value) if several else (value,) * dimension
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


def sizes(space: Any, dimension: int | None = None) -> tuple[Any, ...]:
    """Return the size of every spatial axis; one integer stands for all of them.

    Args:
      space: an integer, or one size per axis; sizes may be symbolic.
      dimension: how many axes there have to be, if known.

    Raises:
      ValueError: it is something else.
    """
    if isinstance(space, _INTEGER):
        space = (int(space),) * (dimension or 1)
    if not isinstance(space, Iterable) or isinstance(space, str):
        raise ValueError(f"expected one size per spatial axis, got {space!r}")
    found = tuple(space)
    if not found:
        raise ValueError("expected at least one size, of a spatial axis, got ()")
    if any(_is_no_size(n) for n in found):
        raise ValueError(f"sizes must be whole numbers from 0, got {found}")
    if dimension is not None and len(found) != dimension:
        raise ValueError(
            f"expected one size for each of {dimension} spatial axes, got {found}"
        )
    return found


def _is_no_size(value: Any) -> bool:
    """Tell what cannot be the size of an axis; symbols can."""
    if isinstance(value, _INTEGER):
        return isinstance(value, bool) or bool(value < 0)
    return value is None or isinstance(value, str | float | Iterable)


@dataclasses.dataclass(frozen=True)
class Window:
    """A sliding window on a grid of given size, with all settings resolved.

    Attributes:
      size: points per axis of the input grid, which may be symbolic.
      taps: taps per axis.
      strides: stride per axis.
      dilation: spacing of the taps per axis.
      padding: (low, high) per axis.
    """

    size: tuple[Any, ...]
    taps: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: Pairs

    @property
    def output_size(self) -> tuple[Any, ...]:
        """Points per axis of the output grid; symbolic where sizes are."""
        counts = (
            (n + lo + hi - d * (k - 1) - 1) // s + 1
            for n, k, s, d, (lo, hi) in self._axes()
        )
        return tuple(max(0, n) if isinstance(n, _INTEGER) else n for n in counts)

    def symmetry(self, group: GroupLike) -> GroupLike:
        """Return the largest subgroup whose action the window commutes with.

        Of elements that do not move pixels onto pixels, those are meant that keep the
        centre of what is read and of what is written.

        Raises:
          ValueError: the group acts on another number of axes, or a size is symbolic.
        """
        if not isinstance(group, Subgroups):
            raise TypeError(
                f"group must be a Group, such as eq.dihedral(4), got {group!r}"
            )
        if len(self.size) != group.dimension:
            raise ValueError(
                f"{group!r} acts on {group.dimension} axes, the window slides over "
                f"{len(self.size)}: {self.size}"
            )
        if not all(isinstance(n, _INTEGER) for n in self.size):
            raise ValueError(f"the symmetry depends on the size, got {self.size}")
        axes = tuple(self._axes())
        reversible = [
            s * (count - 1) == n - 1 + 2 * lo - d * (k - 1)
            for count, (n, k, s, d, (lo, _)) in zip(self.output_size, axes, strict=True)
        ]

        def holds(matrix: np.ndarray) -> bool:
            mixed = zip(*np.nonzero(np.abs(matrix) > 1e-9), strict=True)
            return all(
                axes[i] == axes[j] and (matrix[i, j] == 1 or reversible[i])
                for i, j in mixed
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
    size: Sequence[Any],
    taps: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int],
) -> Pairs:
    """Return (low, high) per axis for any padding that Flax's layers take.

    Raises:
      ValueError: an unknown name, or a sequence of the wrong length.
    """
    extent = [d * (k - 1) + 1 for k, d in zip(taps, dilation, strict=True)]
    expected = (
        f"padding must be one of {', '.join(_PADDINGS)}, an integer, or one integer or "
        f"(low, high) pair for each of {len(size)} axes, got {padding!r}"
    )
    if isinstance(padding, str):
        if padding not in _PADDINGS:
            near = difflib.get_close_matches(padding.upper(), _PADDINGS, 1, 0)[0]
            raise ValueError(f"{expected}; nearest: {near!r}")
        if padding == "CIRCULAR":
            return tuple(((e - 1) // 2, e // 2) for e in extent)
        if padding == "VALID":
            return ((0, 0),) * len(extent)
        return tuple(
            _same(n, e, s) for n, e, s in zip(size, extent, strides, strict=True)
        )
    if not isinstance(padding, (*_INTEGER, Iterable)):
        raise ValueError(expected)
    entries = [padding] * len(size) if isinstance(padding, _INTEGER) else list(padding)
    pairs = [(e, e) if isinstance(e, _INTEGER) else e for e in entries]
    if len(pairs) != len(size) or not all(_is_pair(pair) for pair in pairs):
        raise ValueError(expected)
    return tuple((int(low), int(high)) for low, high in pairs)


def _is_pair(entry: Any) -> bool:
    whole = isinstance(entry, Iterable) and [isinstance(n, _INTEGER) for n in entry]
    return whole == [True, True]


def _same(size: Any, extent: int, stride: int) -> tuple[int, int]:
    """Return the padding of one axis that keeps every stride-th point."""
    if stride == 1:
        missing = extent - 1
    elif isinstance(size, _INTEGER):
        missing = int(max(0, (-(-size // stride) - 1) * stride + extent - size))
    else:
        raise ValueError(
            f"padding SAME with stride {stride} depends on the size of the input, got "
            f"{size}; export one program per size, or pad with integers"
        )
    return missing // 2, missing - missing // 2


def window(
    size: int | Sequence[Any],
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
    size = sizes(size)
    d = len(size)
    taps, strides = per_axis(taps, d, "window"), per_axis(strides, d, "strides")
    spacing = per_axis(dilation, d, "dilation")
    pairs = resolve_padding(padding, size, taps, strides, spacing)
    return Window(size, taps, strides, spacing, pairs)
