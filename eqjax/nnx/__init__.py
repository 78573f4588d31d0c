"""Layers of eqjax in NNX models, and what eqjax does with such models.

Pooling and other functions on fields, `eq.avg_pool` and so on, are used as they are.
"""

from eqjax.nnx.base import InitialNorm, MixtureLogits, Penalty, TiedLayer
from eqjax.nnx.conv import (
    GroupConv,
    GroupConvTranspose,
    InvariantHead,
    LiftingConv,
)
from eqjax.nnx.dropout import FieldDropout
from eqjax.nnx.models import (
    collapse,
    discretize,
    distances,
    from_conv,
    held_out_test,
    mixtures,
    morph,
    morph_optimizer,
    penalty,
    symmetry_test,
    to_plain,
)
from eqjax.nnx.norms import (
    BatchNorm,
    ElementBatchNorm,
    GroupNorm,
    LayerNorm,
    RMSNorm,
)
from eqjax.nnx.views import tied_layers, variables_of, with_variables
from eqjax.nnx.zoo import ResNet, UNet

__all__ = [
    "BatchNorm",
    "ElementBatchNorm",
    "FieldDropout",
    "GroupConv",
    "GroupConvTranspose",
    "GroupNorm",
    "InitialNorm",
    "InvariantHead",
    "LayerNorm",
    "LiftingConv",
    "MixtureLogits",
    "Penalty",
    "RMSNorm",
    "ResNet",
    "TiedLayer",
    "UNet",
    "collapse",
    "discretize",
    "distances",
    "from_conv",
    "held_out_test",
    "mixtures",
    "morph",
    "morph_optimizer",
    "penalty",
    "symmetry_test",
    "tied_layers",
    "to_plain",
    "variables_of",
    "with_variables",
]
