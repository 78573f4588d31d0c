"""Finite groups of a pixel grid, and closed groups about a point. Knows numpy alone."""

from eqjax.groups.axes import (
    check_preserved as check_preserved,
    preserving_subgroup as preserving_subgroup,
)
from eqjax.groups.closed import (
    ClosedGroup,
    Symmetry as Symmetry,
    comparable as comparable,
    exact_ambient as exact_ambient,
    exact_part as exact_part,
    finite_matrices as finite_matrices,
    orthogonal,
)
from eqjax.groups.group import Group, difference as difference
from eqjax.groups.isotypic import isotypic_components as isotypic_components
from eqjax.groups.standard import (
    STANDARD as STANDARD,
    cyclic,
    dihedral,
    flip,
    full_octahedral,
    octahedral,
    standard_group as standard_group,
)

__all__ = [
    "ClosedGroup",
    "Group",
    "cyclic",
    "dihedral",
    "flip",
    "full_octahedral",
    "octahedral",
    "orthogonal",
]
