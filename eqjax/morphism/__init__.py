"""The equivariance relaxation morphism: trained models carried to other groups."""

from eqjax.morphism.discretization import collapse, discretize, mixtures
from eqjax.morphism.growing import grow
from eqjax.morphism.matching import match as match, tied_model as tied_model
from eqjax.morphism.optimizer import compensated_steps, morph_optimizer
from eqjax.morphism.regrouping import Regrouped as Regrouped, relax
from eqjax.morphism.report import LayerChange as LayerChange, MorphReport as MorphReport
from eqjax.morphism.sharing import sharing_distances
from eqjax.morphism.variables import morph

__all__ = [
    "collapse",
    "compensated_steps",
    "discretize",
    "grow",
    "mixtures",
    "morph",
    "morph_optimizer",
    "relax",
    "sharing_distances",
]
