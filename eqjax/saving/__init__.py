"""Trained networks in folders, and their predictions."""

from eqjax.saving.folder import Saved as Saved, load, save
from eqjax.saving.prediction import (
    Prediction as Prediction,
    Preprocessing as Preprocessing,
)

__all__ = ["load", "save"]
