"""Linen modules with tied parameters: convolutions, norms, pooling."""

from eqjax.layers.base import TiedModule as TiedModule
from eqjax.layers.blurring import blur_pool
from eqjax.layers.conv import GroupConv, GroupConvTranspose, InvariantHead, LiftingConv
from eqjax.layers.gating import gate, gated
from eqjax.layers.irreps import IrrepsConv, IrrepsLinear
from eqjax.layers.mixed import MixedGroupConv, MixedInvariantHead, MixedLiftingConv
from eqjax.layers.norms import (
    BatchNorm,
    ElementBatchNorm,
    GroupNorm,
    LayerNorm,
    RMSNorm,
)
from eqjax.layers.pooling import FieldDropout, avg_pool, fiber_pool, max_pool, upsample

__all__ = [
    "BatchNorm",
    "ElementBatchNorm",
    "FieldDropout",
    "GroupConv",
    "GroupConvTranspose",
    "GroupNorm",
    "InvariantHead",
    "IrrepsConv",
    "IrrepsLinear",
    "LayerNorm",
    "LiftingConv",
    "MixedGroupConv",
    "MixedInvariantHead",
    "MixedLiftingConv",
    "RMSNorm",
    "avg_pool",
    "blur_pool",
    "fiber_pool",
    "gate",
    "gated",
    "max_pool",
    "upsample",
]
