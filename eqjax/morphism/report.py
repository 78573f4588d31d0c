"""What a morphism did to every layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from eqjax.groups.group import Group
from eqjax.groups.text import Echoed, table
from eqjax.morphism.matching import Path, show


@dataclasses.dataclass(frozen=True)
class LayerChange:
    """What the morphism did to one layer.

    Attributes:
      path: of the layer in the model.
      source: the group it had.
      target: the group it has now.
      largest_change: largest absolute change of an entry of its full arrays.
      relative_change: norm of the change of its full arrays over their norm.
      parameters_before: its number of tied parameters.
      parameters_after: and now.
      gradient_step: by which factor the next step of the full kernel grows under SGD
        or momentum alone, given the same symmetric gradient (mean over the orbits).
      normalized_step: the same under Adam and its kin. Both are NaN for a layer whose
        constraint changed, which starts a new optimizer.
      measured_step: the same under the optimizer that was given to `morph`, with all
        links of its chain: the least and the largest factor over gradients whose
        entries are of sizes 0.01, 1 and 100; None where it was not measured.
    """

    path: Path
    source: Group
    target: Group
    largest_change: jax.Array
    relative_change: jax.Array
    parameters_before: int
    parameters_after: int
    gradient_step: float
    normalized_step: float
    measured_step: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True, repr=False)
class MorphReport(Echoed):
    """One entry per tied layer, in the order of the model; prints as a table."""

    layers: tuple[LayerChange, ...]

    def __str__(self) -> str:
        """Return one line per layer."""
        changes = ("largest change", "relative")
        measured = any(change.measured_step for change in self.layers)
        steps = ("parameters", "SGD step", "Adam step", *["measured step"] * measured)
        rows: list[tuple[str, ...]] = [("layer", "from", "to", *changes, *steps)]
        for change in self.layers:
            rows.append(
                (
                    show(change.path),
                    change.source.name,
                    change.target.name,
                    f"{float(change.largest_change):.1e}",
                    f"{100 * float(change.relative_change):.2g} %",
                    f"{change.parameters_before} -> {change.parameters_after}",
                    *map(_show_step, (change.gradient_step, change.normalized_step)),
                    *[_show_range(change.measured_step)] * measured,
                )
            )
        return table(rows)


@jax.tree_util.register_pytree_node_class
class LayerTable(Echoed, dict[Path, dict[str, Any]]):
    """Numbers by path of the layer and name of the group; prints as a table."""

    def __str__(self) -> str:
        """Return a line per layer, or per group where these are more."""
        groups = list(dict.fromkeys(name for row in self.values() for name in row))
        rows = [["layer", *groups]]
        for path, row in self.items():
            rows.append([show(path), *(_show_number(row.get(g)) for g in groups)])
        if len(groups) > max(8, len(self)):
            rows = [list(column) for column in zip(*rows, strict=True)]
        return table(rows)

    def tree_flatten(self) -> tuple[list, tuple]:
        """Return the numbers, and their places in this order, for JAX."""
        places = tuple((path, tuple(row)) for path, row in self.items())
        return [list(row.values()) for row in self.values()], places

    @classmethod
    def tree_unflatten(cls, places: tuple, numbers: Sequence) -> LayerTable:
        """Undo `tree_flatten`."""
        rows = zip(places, numbers, strict=True)
        return cls(
            (path, dict(zip(names, row, strict=True))) for (path, names), row in rows
        )


def _show_number(value: jax.Array | None) -> str:
    if value is None:
        return ""
    if isinstance(value, jax.core.Tracer):
        return str(value.aval)
    return " ".join(f"{float(each):.2g}" for each in np.ravel(value))


def _show_range(factors: tuple[float, float] | None) -> str:
    if factors is None:
        return ""
    ends = [f"{factor:.4g}" for factor in factors]
    return "x " + " to ".join(dict.fromkeys(ends))


def _show_step(factor: float) -> str:
    return "restarted" if np.isnan(factor) else f"x {factor:.4g}"
