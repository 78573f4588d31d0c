"""An extension of griffe, which reads docstrings: examples, arguments of layers."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import griffe

KINDS: dict[Any, griffe.ParameterKind] = {
    inspect.Parameter.POSITIONAL_OR_KEYWORD: griffe.ParameterKind.positional_or_keyword,
    inspect.Parameter.KEYWORD_ONLY: griffe.ParameterKind.keyword_only,
}
ADDED = ("parent", "name")  # by Flax, to every module
LONG = 40  # characters


def fenced(text: str) -> str:
    r"""Return a docstring with a fence around every doctest.

    Docstrings hold their doctests without a heading of their own, and Markdown takes
    lines that begin with >>> for quotations.

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


def shown(default: Any) -> str:
    """Return a default as code, or dots where it has no short name.

    >>> shown("SAME"), shown(float), shown(lambda: 1)
    ("'SAME'", 'float', '...')
    """
    text = default.__name__ if isinstance(default, type) else repr(default)
    return text if "<" not in text and len(text) <= LONG else "..."


def arguments(module: type) -> list[griffe.Parameter]:
    """Return the arguments of a linen module, its fields and those that it inherits."""
    found = []
    for name, each in inspect.signature(module).parameters.items():
        if name not in ADDED:
            given = each.default is not inspect.Parameter.empty
            parameter = griffe.Parameter(
                name,
                annotation=str(each.annotation),
                kind=KINDS[each.kind],
                default=shown(each.default) if given else None,
            )
            found.append(parameter)
    return found


class Docstrings(griffe.Extension):
    """Fence the doctests of every object, and give linen modules their arguments.

    Flax makes a dataclass of every module, which nothing in its source says.
    """

    def on_object(self, *, obj: Any, **kwargs: Any) -> None:
        """Change the docstring of an object that was read."""
        del kwargs
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)

    def on_class(self, *, cls: Any, **kwargs: Any) -> None:
        """Add the `__init__` of a linen module."""
        del kwargs
        import flax.linen as nn  # slow to import

        found = getattr(importlib.import_module(cls.module.path), cls.name, None)
        if "__init__" in cls.members or not isinstance(found, type):
            return
        if issubclass(found, nn.Module):
            parameters = griffe.Parameters(
                griffe.Parameter("self", kind=griffe.ParameterKind.positional_only),
                *arguments(found),
            )
            cls.set_member(
                "__init__", griffe.Function("__init__", parameters=parameters)
            )
