"""A bar for what takes long, where there is a terminal to show it and it is wanted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import rich
from rich.progress import track

T = TypeVar("T")


def tracked(items: Iterable[T], label: str, total: int | None = None) -> Iterable[T]:
    """Return the items, with a bar on the console of the command while they are taken.

    Args:
      items: to go through.
      label: what is done with them.
      total: how many they are, where they do not say themselves.
    """
    console = rich.get_console()
    hidden = console.quiet or not console.is_terminal
    return track(items, label, total, console=console, transient=True, disable=hidden)
