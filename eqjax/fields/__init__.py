"""What lives over a group: fibers, the action on fields, augmentation, irreps."""

from eqjax.fields.action import transform
from eqjax.fields.augmentation import augment
from eqjax.fields.fiber import Fiber, quotient, regular, trivial
from eqjax.fields.irreps import lift_irreps as lift_irreps

__all__ = ["Fiber", "augment", "quotient", "regular", "transform", "trivial"]
