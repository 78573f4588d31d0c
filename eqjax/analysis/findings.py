"""What a test of a lattice of groups hands on, on grids or at points."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eqjax.analysis.gains import Gain
from eqjax.analysis.gradients import ProbedLayer
from eqjax.analysis.randomization import Outcome
from eqjax.morphism.matching import show


@dataclasses.dataclass(frozen=True)
class Findings:
    """By group, for all layers together and for each in the order of the calls.

    Attributes:
      group: the largest that could be tested.
      together: the outcome of every group, with all layers.
      alone: the same of each layer.
      gains: of relaxing each layer to each group.
      notes: what to know, a sentence each.
    """

    group: Any
    together: Mapping[Any, Outcome]
    alone: Sequence[Mapping[Any, Outcome]]
    gains: Sequence[Mapping[Any, Gain]]
    notes: Sequence[str]


def notes_on(each: ProbedLayer, gradients: np.ndarray) -> list[str]:
    """Return a note where a layer has no gradient at all."""
    if gradients.any():
        return []
    return [
        f"{show(each.path)} has no gradient and says nothing; lifted modules pass the "
        "collection 'probes' on"
    ]
