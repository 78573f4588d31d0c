"""An extension of griffe: examples in docstrings are code, not quotations.

Docstrings hold their doctests without a heading of their own, and Markdown takes lines
that begin with >>> for quotations in quotations in quotations.
"""

from __future__ import annotations

from typing import Any

import griffe


def fenced(text: str) -> str:
    r"""Return a docstring with a fence around every doctest.

    >>> fenced("Add.\n\n>>> 1 + 1\n2")
    'Add.\n\n```pycon\n>>> 1 + 1\n2\n```'
    """
    lines: list[str] = []
    inside = False
    for line in text.split("\n"):
        if not inside and line.startswith(">>>"):
            lines.append("```pycon")
            inside = True
        elif inside and not line.strip():
            lines.append("```")
            inside = False
        lines.append(line)
    return "\n".join([*lines, "```"] if inside else lines)


class Doctests(griffe.Extension):
    """Fence the doctests of every object."""

    def on_object(self, *, obj: Any, **kwargs: Any) -> None:
        """Change the docstring of an object that was read."""
        del kwargs
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
