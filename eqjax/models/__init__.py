"""Architectures, and networks that are built from them."""

from eqjax.models.architecture import (
    Architecture,
    enumerate_architectures,
    random_architecture,
)
from eqjax.models.cnn import EquivariantCNN, e2cnn, exact, paper
from eqjax.models.protocol import SearchableModel as SearchableModel
from eqjax.models.resnet import EquivariantResNet, resnet, wide_resnet
from eqjax.models.stages import StagedModel as StagedModel
from eqjax.models.unet import EquivariantUNet, unet

__all__ = [
    "Architecture",
    "EquivariantCNN",
    "EquivariantResNet",
    "EquivariantUNet",
    "e2cnn",
    "enumerate_architectures",
    "exact",
    "paper",
    "random_architecture",
    "resnet",
    "unet",
    "wide_resnet",
]
