"""How full arrays arise from parameters. Knows no layers."""

from eqjax.constraints.base import Constraint, Tied
from eqjax.constraints.mixture import Mixture
from eqjax.constraints.partial import PartialGroup
from eqjax.constraints.relaxed import RelaxedWeights
from eqjax.constraints.residual import ResidualPathway
from eqjax.constraints.soft import SoftProjection

# Those that commands and comparisons know, by the word for them on a command line.
# Options, the name in comparisons, laws and the public name follow from the class.
REGISTRY: dict[str, type[Constraint]] = {
    "residual": ResidualPathway,
    "relaxed": RelaxedWeights,
    "partial": PartialGroup,
    "soft": SoftProjection,
}

__all__ = [
    "Constraint",
    "Mixture",
    "PartialGroup",
    "RelaxedWeights",
    "ResidualPathway",
    "SoftProjection",
    "Tied",
]
