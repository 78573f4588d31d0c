"""What is echoed reads as what is printed: short, aligned, groups by name.

Notebooks show the same as tables, see `html`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from eqjax.groups import html

_SHORT = 60  # characters of a setting that is worth showing
_LINE = 88


class Text(str):
    """Lines that are echoed as they are printed, without quotes and escapes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of cells, the head first; prints with its columns aligned.

    >>> print(Rows([("group", "order"), ("D4", "8")]))
    group  order
    D4     8
    """

    cells: Sequence[Sequence[str]]

    def __str__(self) -> str:
        widths = [max(map(len, column)) for column in zip(*self.cells, strict=True)]
        return "\n".join(
            "  ".join(
                cell.ljust(width) for cell, width in zip(row, widths, strict=True)
            ).rstrip()
            for row in self.cells
        )


def page(*parts: str | Rows) -> str:
    """Return lines and tables as notebooks show them."""
    return html.page(
        html.table(part.cells) if isinstance(part, Rows) else html.line(part)
        for part in parts
    )


class Echoed:
    """Something that is echoed as it is printed, and shown as tables in notebooks."""

    def parts(self) -> Sequence[str | Rows]:
        """Return lines and tables, from top to bottom."""
        raise NotImplementedError

    def __str__(self) -> str:
        return "\n".join(map(str, self.parts()))

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return page(*self.parts())


class WithSettings:
    """A dataclass that is echoed with its settings by name."""

    def __repr__(self) -> str:
        shown = [f"{name}={value}" for name, value in settings(self)]
        line = f"{type(self).__name__}({', '.join(shown)})"
        if len(line) <= _LINE:
            return line
        return (
            "\n  ".join([f"{type(self).__name__}(", *(f"{s}," for s in shown)]) + "\n)"
        )

    def _repr_html_(self) -> str:
        return page(*settings_table(self))


def settings(of: Any, *, without: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Return the fields of a dataclass and their values, as people write them."""
    return [
        (field.name, _setting(getattr(of, field.name)))
        for field in dataclasses.fields(of)
        if field.repr and field.name not in without
    ]


def settings_table(of: Any, *, without: Sequence[str] = ()) -> tuple[str, Rows]:
    """Return the name of a dataclass, and a table of its fields."""
    rows = [("setting", "value"), *settings(of, without=without)]
    return type(of).__name__, Rows(rows)


def _setting(value: Any) -> str:
    """Return a setting as people write it: no addresses, and no pages."""
    if callable(value) and hasattr(value, "__name__"):
        return value.__name__
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype}{list(value.shape)}"
    text = repr(value)
    short = len(text) <= _SHORT and "\n" not in text and "object at 0x" not in text
    return text if short and "<function" not in text else f"{type(value).__name__}(...)"
