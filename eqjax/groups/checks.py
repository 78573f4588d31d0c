"""Checks of arguments, at the edge: each says what was expected, and what came.

What has a range is compared where it is used; here is what a comparison or the first
use would stumble over: a string for a number, a name for a group, a list for an array.
"""

from __future__ import annotations

import numbers
import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from eqjax.groups.closed import Symmetry
from eqjax.groups.group import Group


def check_whole(name: str, value: Any, least: int | None = 1) -> None:
    """Raise unless a setting is a whole number, and not too small if that is known.

    Raises:
      TypeError: it is no whole number.
      ValueError: it is too small.
    """
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def whole_numbers(name: str, value: Any, least: int | None = 1) -> tuple[int, ...]:
    """Return a setting of several whole numbers as a tuple.

    Raises:
      TypeError: it is something else.
      ValueError: one of them is too small.
    """
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a sequence of whole numbers, got {value!r}")
    found = tuple(value)
    for each in found:
        check_whole(name, each, least)
    return found


def check_number(name: str, value: Any) -> None:
    """Raise unless a setting is a real number.

    Raises:
      TypeError: it is none.
    """
    scalar = hasattr(value, "dtype") and np.ndim(value) == 0
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (scalar or real):
        raise TypeError(f"{name} must be a number, got {value!r}")


def check_group(name: str, value: Any, *, closed: bool = False) -> None:
    """Raise unless an argument is a finite group.

    Args:
      name: of the argument.
      value: of the argument.
      closed: closed subgroups of O(3) and O(2) will do, too.

    Raises:
      TypeError: it is no group.
    """
    if not isinstance(value, Symmetry if closed else Group):
        hint = ", as its name in" if isinstance(value, str) else ", such as"
        named = value if isinstance(value, str) else "C4"
        raise TypeError(
            f"{name} must be a Group{hint} eq.dihedral(4).subgroup({named!r}), got "
            f"{value!r}"
        )


def several(name: str, value: Any, what: str) -> tuple[Any, ...]:
    """Return a sequence as a tuple.

    Args:
      name: of the argument.
      value: of the argument.
      what: it is a sequence of.

    Raises:
      TypeError: it is a single thing, or a string.
    """
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be several {what}, in a tuple, got {value!r}")
    return tuple(value)


def check_array(name: str, value: Any) -> None:
    """Raise unless an argument is an array, of numpy or JAX, or like one.

    Raises:
      TypeError: it is none.
    """
    if not (hasattr(value, "shape") and hasattr(value, "dtype")):
        hint = "; np.asarray makes one" if isinstance(value, list | tuple) else ""
        raise TypeError(
            f"{name} must be an array, got a {type(value).__name__}: {value!r:.60}"
            f"{hint}"
        )


def check_path(name: str, value: Any) -> None:
    """Raise TypeError unless an argument is the path of a file or a folder."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be a path, got {value!r}")


def check_callable(name: str, value: Any, such_as: str) -> None:
    """Raise TypeError unless an argument can be called."""
    if not callable(value):
        raise TypeError(f"{name} must be a function, such as {such_as}, got {value!r}")


def check_choice(name: str, value: Any, known: Any) -> None:
    """Raise unless a setting is one of a few.

    Raises:
      ValueError: it is another; the message lists all.
    """
    if not isinstance(value, str | None) or value not in known:
        words = list(map(repr, known))
        all_of_them = (" or " if len(words) == 2 else ", ").join(words)
        raise ValueError(f"{name} must be one of {all_of_them}, got {value!r}")
