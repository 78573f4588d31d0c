"""Settings per spatial axis, such as strides: which elements keep them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from eqjax.groups.closed import ClosedGroup
from eqjax.groups.group import Group

AnyGroup = TypeVar("AnyGroup", bound=Group | ClosedGroup)


def check_preserved(
    group: Group | ClosedGroup, values: Sequence[int], what: str
) -> None:
    """Raise unless every element of the group maps a per-axis setting to itself.

    The error names the largest subgroup for which the setting works.
    """
    if len(values) != group.dimension:
        raise ValueError(
            f"{what} needs one entry for each of the {group.dimension} axes that "
            f"{group!r} acts on, got {tuple(values)}"
        )
    allowed = preserving_subgroup(group, values)
    if allowed != group:
        raise ValueError(
            f"{what} {tuple(values)} is not mapped to itself by {group.name}; "
            f"the largest subgroup for which it works is {allowed.name}"
        )


def preserving_subgroup(group: AnyGroup, values: Sequence) -> AnyGroup:
    """Return the largest subgroup whose axis permutations keep per-axis values."""

    def holds(matrix: np.ndarray) -> bool:
        mixed = zip(*np.nonzero(np.abs(matrix) > 1e-9), strict=True)
        return all(values[i] == values[j] for i, j in mixed)

    kept: Any = group.keeping(holds)
    return kept
