"""What can be measured: distances to groups, equivariance, compilations."""

from eqjax.analysis.compilations import Compilations as Compilations, count_compilations
from eqjax.analysis.distances import distances
from eqjax.analysis.equivariance import assert_equivariant, equivariance_error
from eqjax.analysis.evidence import (
    GroupEvidence as GroupEvidence,
    SymmetryTest as SymmetryTest,
)
from eqjax.analysis.held_out import (
    HeldOutRow as HeldOutRow,
    HeldOutTest as HeldOutTest,
    held_out_test,
)
from eqjax.analysis.laplace import laplace_evidence
from eqjax.analysis.report import (
    SymmetryReport as SymmetryReport,
    SymmetryRow as SymmetryRow,
)
from eqjax.analysis.symmetry import symmetry
from eqjax.analysis.symmetry_test import symmetry_test

__all__ = [
    "assert_equivariant",
    "count_compilations",
    "distances",
    "equivariance_error",
    "held_out_test",
    "laplace_evidence",
    "symmetry",
    "symmetry_test",
]
