"""What is echoed reads as what is printed: short, aligned, groups by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

_SHORT = 60  # characters of a setting that is worth showing
_LINE = 88


class Text(str):
    """Lines that are echoed as they are printed, without quotes and escapes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class Echoed:
    """Something that is echoed as it is printed."""

    def __repr__(self) -> str:
        return str(self)


class WithSettings:
    """A dataclass that is echoed with its settings by name."""

    def __repr__(self) -> str:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        shown = [f"{f.name}={_setting(getattr(self, f.name))}" for f in fields]
        line = f"{type(self).__name__}({', '.join(shown)})"
        if len(line) <= _LINE:
            return line
        return (
            "\n  ".join([f"{type(self).__name__}(", *(f"{s}," for s in shown)]) + "\n)"
        )


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as lines, their columns aligned.

    >>> print(table([("group", "order"), ("D4", "8")]))
    group  order
    D4     8
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    )


def _setting(value: Any) -> str:
    """Return a setting as people write it: no addresses, and no pages."""
    if callable(value) and hasattr(value, "__name__"):
        return value.__name__
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype}{list(value.shape)}"
    text = repr(value)
    short = len(text) <= _SHORT and "\n" not in text and "object at 0x" not in text
    return text if short and "<function" not in text else f"{type(value).__name__}(...)"
