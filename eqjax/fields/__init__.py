"""What lives over a group: fibers, the action on fields, augmentation, irreps."""

from eqjax.fields.action import transform
from eqjax.fields.augmentation import augment
from eqjax.fields.fiber import Fiber, quotient, regular, trivial
from eqjax.fields.irreps import (
    IrrepsFiber,
    lift_irreps,
    lower_irreps,
    representations as representations,
)
from eqjax.fields.restriction import restrict

__all__ = [
    "Fiber",
    "IrrepsFiber",
    "augment",
    "lift_irreps",
    "lower_irreps",
    "quotient",
    "regular",
    "restrict",
    "transform",
    "trivial",
]
