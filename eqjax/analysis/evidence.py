"""What a symmetry test found, as tables."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eqjax.analysis.drawing import evidence_figure
from eqjax.groups.html import Shaded
from eqjax.groups.text import Echoed, Rows
from eqjax.morphism.matching import Path, show

if TYPE_CHECKING:
    from matplotlib.figure import Figure


STRONG = 30.0  # evidence whose color is the strongest


@dataclasses.dataclass(frozen=True)
class GroupEvidence:
    """What the data say against one group, seen from one layer or from all.

    Attributes:
      group: which one.
      statistic: squared norm of the part of the mean gradient that the group forbids;
        for the network, the sum over layers.
      evidence: the statistic over its mean under the null hypothesis that the data are
        invariant under the group; about 1 if they are. For the network the mean over
        layers.
      p: of the exact randomization test of this group.
      adjusted: the largest p of this group and all that contain it.
      rejected: adjusted is at most the level.
      gain: by how many nats a relaxation of the layer to this group is predicted to
        lower the loss, to second order; for the network the sum over layers. NaN where
        there is one block alone.
      added_parameters: how many parameters that adds.
    """

    group: Any
    statistic: float
    evidence: float
    p: float
    adjusted: float
    rejected: bool
    gain: float
    added_parameters: int

    @property
    def gain_per_parameter(self) -> float:
        """The predicted gain over the parameters that it costs; 0 if it adds none."""
        if not self.added_parameters:
            return 0.0
        return self.gain / self.added_parameters


class LayerEvidence(dict[Path, Mapping[str, GroupEvidence]]):
    """Rows by path of the layer, such as ("conv1",) or "conv1", and name of a group."""

    def __getitem__(self, key: Path | str) -> Mapping[str, GroupEvidence]:
        """Return the rows of a layer, whose path may be written as people write it."""
        path = tuple(key.split("/")) if isinstance(key, str) else key
        if path not in self:
            known = ", ".join(map(show, self))
            raise KeyError(f"no layer {key!r} was tested; layers are {known}")
        return super().__getitem__(path)


@dataclasses.dataclass(frozen=True, repr=False)
class SymmetryTest(Echoed):
    """What `eq.symmetry_test` found; prints as a table.

    Attributes:
      group: the largest group that could be tested: what all layers are tied to, and
        what keeps the grid of the images and the loss.
      network: a row for every subgroup by its name, with all layers together.
      layers: the same for every layer alone, by path.
      level: of the tests; the family of all subgroups of the network is rejected
        wrongly at most so often, and so is that of each layer.
      blocks: how many blocks of samples were moved.
      block_size: samples in a block.
      notes: what to know about the result, a sentence each.
    """

    group: Any
    network: Mapping[str, GroupEvidence]
    layers: LayerEvidence
    level: float
    blocks: int
    block_size: int
    notes: tuple[str, ...] = ()

    @property
    def maximal(self) -> tuple[Any, ...]:
        """The maximal groups that are not rejected for the network, largest first.

        A single one is what the test names; several mean that each is tenable and not
        both together.
        """
        return maximal(self.network, self.group.smallest)

    def maximal_of(self, path: Path | str) -> tuple[Any, ...]:
        """The maximal groups that are not rejected for a layer."""
        return maximal(self.layers[path], self.group.smallest)

    def numbers(self) -> dict[str, Any]:
        """Return the report as plain numbers, for JSON: by group, and by layer."""
        return {
            "level": self.level,
            "network": {name: _numbers(row) for name, row in self.network.items()},
            "layers": {
                show(path): {name: _numbers(row) for name, row in rows.items()}
                for path, rows in self.layers.items()
            },
        }

    def draw(self) -> Figure:
        """Draw the lattice of groups, colored by p, and the evidence by layer."""
        return evidence_figure([self.numbers()], self.group.ambient)

    def parts(self) -> Sequence[str | Rows]:
        """Return a row per group, a column per layer, and what follows."""
        paths, tenable = list(self.layers), self.maximal
        rows = [["group", "network", "p", *map(show, paths)]]
        for name, row in self.network.items():
            cells = [_cell(self.layers[path][name]) for path in paths]
            mark = " x" if row.rejected else ""
            named = Shaded(name, -float(row.group in tenable))
            p = Shaded(f"{row.p:.4f}{mark}", float(row.rejected))
            rows.append([named, _shaded(f"{row.evidence:.2f}", row), p, *cells])
        found = " or ".join(H.name for H in tenable)
        return [
            Rows(rows),
            "evidence against each group, about 1 if the data have it (p by layer); "
            f"x: rejected at the level {self.level:g}",
            f"not rejected: {found} ({self.blocks} blocks of {self.block_size})",
            *self.notes,
        ]


def maximal(rows: Mapping[str, Any], smallest: Any) -> tuple[Any, ...]:
    """Return the maximal groups that are not rejected, the trivial one if all are."""
    kept = [row.group for row in rows.values() if not row.rejected]
    found = tuple(H for H in kept if not any(H < K for K in kept))
    return found or (smallest,)


def _numbers(row: GroupEvidence) -> dict[str, Any]:
    return {
        "evidence": round(row.evidence, 4),
        "p": row.p,
        "rejected": row.rejected,
        "gain": None if math.isnan(row.gain) else round(row.gain, 6),
    }


def _cell(row: GroupEvidence) -> str:
    return _shaded(f"{row.evidence:.2f} ({row.p:.3f})", row)


def _shaded(text: str, row: GroupEvidence) -> str:
    """Return a text that is the warmer the more evidence there is, above 1."""
    above = math.log(max(row.evidence, 1.0)) if math.isfinite(row.evidence) else 0.0
    return Shaded(text, above / math.log(STRONG))
