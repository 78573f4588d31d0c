"""How full arrays arise from parameters. Knows no layers."""

from eqjax.constraints.base import Constraint, Tied
from eqjax.constraints.mixture import Mixture
from eqjax.constraints.orthogonal import GammaProjection, NonStationary
from eqjax.constraints.partial import PartialGroup
from eqjax.constraints.relaxed import RelaxedOutputs, RelaxedWeights
from eqjax.constraints.residual import ResidualPathway
from eqjax.constraints.sharing import LearnedSharing, partition_distance
from eqjax.constraints.soft import SoftProjection

# Those that commands and comparisons know, by the word for them on a command line.
# Their options, their names in comparisons and the laws that they are tested on follow
# from the class.
CONSTRAINTS: dict[str, type[Constraint]] = {
    "residual": ResidualPathway,
    "relaxed": RelaxedWeights,
    "outputs": RelaxedOutputs,
    "partial": PartialGroup,
    "soft": SoftProjection,
    "gamma": GammaProjection,
    "nonstationary": NonStationary,
    "sharing": LearnedSharing,
}

__all__ = [
    "Constraint",
    "GammaProjection",
    "LearnedSharing",
    "Mixture",
    "NonStationary",
    "PartialGroup",
    "RelaxedOutputs",
    "RelaxedWeights",
    "ResidualPathway",
    "SoftProjection",
    "Tied",
    "partition_distance",
]
