"""What a morphism did to every layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from eqjax.groups.group import Group
from eqjax.groups.html import Shaded
from eqjax.groups.text import Echoed, Rows
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

    def parts(self) -> Sequence[str | Rows]:
        """Return a table with a row per layer."""
        changes = ("largest change", "relative")
        measured = any(change.measured_step for change in self.layers)
        steps = ("parameters", "SGD step", "Adam step", *["measured step"] * measured)
        rows: list[tuple[str, ...]] = [("layer", "from", "to", *changes, *steps)]
        for change in self.layers:
            rows.append(
                (
                    show(change.path),
                    change.source.name,
                    Shaded(change.target.name, float(change.target != change.source)),
                    f"{float(change.largest_change):.1e}",
                    _shaded_share(float(change.relative_change)),
                    f"{change.parameters_before} -> {change.parameters_after}",
                    *map(_show_step, (change.gradient_step, change.normalized_step)),
                    *[_show_range(change.measured_step)] * measured,
                )
            )
        return (Rows(rows),)


@jax.tree_util.register_pytree_node_class
class LayerTable(Echoed, dict[Path, dict[str, Any]]):
    """Numbers by path of the layer and name of the group; prints as a table."""

    def parts(self) -> Sequence[str | Rows]:
        """Return a table with a row per layer, or per group where these are more."""
        groups = list(dict.fromkeys(name for row in self.values() for name in row))
        largest = max(map(_size, self._numbers()), default=0.0)
        rows = [["layer", *groups]]
        for path, row in self.items():
            cells = (_show_number(row.get(g), largest) for g in groups)
            rows.append([show(path), *cells])
        if len(groups) > max(8, len(self)):
            rows = [list(column) for column in zip(*rows, strict=True)]
        return (Rows(rows),)

    def _numbers(self) -> list[Any]:
        return [value for row in self.values() for value in row.values()]

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


def _show_number(value: jax.Array | None, largest: float) -> str:
    if value is None:
        return ""
    if isinstance(value, jax.core.Tracer):
        return str(value.aval)
    text = " ".join(f"{float(each):.2g}" for each in np.ravel(value))
    return Shaded(text, float(np.mean(value)) / largest) if largest > 0 else text


def _size(value: Any) -> float:
    """Return the size of a number, or of the mean of several; 0 if there is none."""
    mean = 0.0 if isinstance(value, jax.core.Tracer) else abs(float(np.mean(value)))
    return mean if np.isfinite(mean) else 0.0


def _shaded_share(share: float) -> str:
    return Shaded(f"{100 * share:.2g} %", share)


def _show_range(factors: tuple[float, float] | None) -> str:
    if factors is None:
        return ""
    ends = [f"{factor:.4g}" for factor in factors]
    return "x " + " to ".join(dict.fromkeys(ends))


def _show_step(factor: float) -> str:
    return "restarted" if np.isnan(factor) else f"x {factor:.4g}"
