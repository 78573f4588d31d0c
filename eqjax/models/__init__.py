"""Architectures, and networks that are built from them."""

from eqjax.models.architecture import (
    Architecture,
    enumerate_architectures,
    random_architecture,
)
from eqjax.models.cnn import EquivariantCNN, exact, paper
from eqjax.models.protocol import SearchableModel as SearchableModel

__all__ = [
    "Architecture",
    "EquivariantCNN",
    "enumerate_architectures",
    "exact",
    "paper",
    "random_architecture",
]
