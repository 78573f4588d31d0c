"""What `eq.symmetry` found, as a table."""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Mapping, Sequence

from eqjax.groups.group import Group
from eqjax.groups.html import Shaded
from eqjax.groups.text import Echoed, Rows

NETWORK = "(all)"
BETWEEN = "(functions)"
WIDTH = 96  # characters of a line


@dataclasses.dataclass(frozen=True, repr=False)
class SymmetryRow(Echoed):
    """What one layer, the functions between two, or the whole network keeps.

    Attributes:
      path: of the layer; where functions are, "path before -> path after".
      layer: the class of the layer, "(functions)" or "(all)".
      shape: of its output.
      promised: the group that it should commute with: its own, as far as that goes.
      kept: the largest group whose elements it was measured to commute with.
      errors: relative error of every element that was tried, infinite where the element
        does not map the grid to itself.
      elements: what these elements are called.
      cause: why elements are lost.
      repair: what keeps them: the nearest change that was measured.
    """

    path: str
    layer: str
    shape: tuple[int, ...]
    promised: Group
    kept: Group
    errors: tuple[float, ...]
    elements: tuple[str, ...]
    cause: str = ""
    repair: str = ""

    @property
    def lost(self) -> tuple[str, ...]:
        """The elements of the promised group that are not kept, by name."""
        kept = set(self.kept.element_names)
        return tuple(name for name in self.promised.element_names if name not in kept)

    @property
    def error(self) -> float:
        """The largest error of an element of the promised group."""
        known = dict(zip(self.elements, self.errors, strict=True))
        return max(known[name] for name in self.promised.element_names)

    def parts(self) -> Sequence[str | Rows]:
        """Say what is lost, why, and what to do."""
        where = self.path or "the network"
        if not self.lost:
            return (f"{where} keeps {self.kept.name}",)
        text = f"{where} loses {_listed(self.lost)}"
        text += f" ({self.cause})" if self.cause else ""
        return (text + (f". Try {self.repair}" if self.repair else ""),)


@dataclasses.dataclass(frozen=True, repr=False)
class SymmetryReport(Echoed):
    """A row per layer, in the order of the calls; prints as a table.

    Attributes:
      group: whose elements were tried.
      rows: of all layers, and of the functions between two that lose something.
      network: of the whole, from its input to its output.
      approximate: relative error of the whole network for each element that moves
        pixels between pixels, by its name: no network commutes with these exactly.
    """

    group: Group
    rows: tuple[SymmetryRow, ...]
    network: SymmetryRow
    approximate: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def faults(self) -> tuple[SymmetryRow, ...]:
        """The rows that lose elements which they should keep."""
        return tuple(row for row in self.rows if row.lost)

    @property
    def lost_by(self) -> dict[str, tuple[str, ...]]:
        """The paths of the rows that lose each element, by its name."""
        return {
            name: paths
            for name in self.group.element_names
            if (paths := tuple(row.path for row in self.faults if name in row.lost))
        }

    @property
    def kept(self) -> Group:
        """The largest group that the network was measured to commute with."""
        return self.network.kept

    def parts(self) -> Sequence[str | Rows]:
        """Return the table, and a few lines on every fault."""
        head = ("layer", "kind", "output", "group", "keeps", "error")
        rows = [_cells(row) for row in (*self.rows, self.network)]
        faults = [
            textwrap.fill(f"- {row}", WIDTH, subsequent_indent="  ")
            for row in self.faults
        ]
        return [Rows([head, *rows]), *faults, *self._followed()]

    def _followed(self) -> list[str]:
        """Say how far elements are followed that pixels do not follow exactly."""
        if not self.approximate:
            return []
        line = (
            f"approximate on pixels: {_listed(tuple(self.approximate))}; the network "
            f"follows them up to an error of {max(self.approximate.values()):.1e}, "
            "interpolation between pixels included"
        )
        return [textwrap.fill(line, WIDTH, subsequent_indent="  ")]


def _cells(row: SymmetryRow) -> tuple[str, ...]:
    error = "grid" if math.isinf(row.error) else f"{row.error:.1e}"
    return (
        _short(row.path, 34),
        _short(row.layer, 18),
        "x".join(map(str, row.shape[1:])) or "-",
        row.promised.name,
        Shaded(row.kept.name + (" !" if row.lost else ""), 1 if row.lost else -0.4),
        error,
    )


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else "..." + text[3 - width :]


def _listed(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:6])
    return shown if len(names) <= 6 else f"{shown} and {len(names) - 6} more"
