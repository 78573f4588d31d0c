"""Soft projection: between a free array and its average over the orbits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from eqjax import kernels
from eqjax.constraints.base import Constraint, Extra, Extras, Parts
from eqjax.constraints.collections import PARAMS
from eqjax.groups.checks import check_number
from eqjax.groups.group import Group
from eqjax.kernels.tied import Table, Tie


@dataclasses.dataclass(frozen=True)
class SoftProjection(Constraint):
    """A free array, drawn towards its projection on the symmetric ones.

    K = (1 - s) F + s P F with P the average over the orbits of the group, and s the
    softness: 0 is free, 1 exactly equivariant.

    Attributes:
      softness: s, or its start where it is learned.
      learned: train s with the weights, as the sigmoid of a parameter.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> conv = eq.GroupConv(8, 3, group=D4, constraint=SoftProjection())
    """

    source: ClassVar[str] = "eqjax"
    partwise: ClassVar[bool] = False
    compared_with: ClassVar[Mapping[str, Any]] = {"learned": True}

    softness: float = 0.9
    learned: bool = False

    def __post_init__(self):
        """Reject a softness outside [0, 1]."""
        check_number("softness", self.softness)
        if not 0 <= self.softness <= 1:
            raise ValueError(f"softness must be in [0, 1], got {self.softness}")
        if self.learned and self.softness in (0, 1):
            raise ValueError(
                f"a learned softness must start between 0 and 1, got {self.softness}"
            )

    def parts(self, group: Group) -> dict[str, Group]:
        """Return the trivial group."""
        return {"": group.smallest}

    def symmetry(self, group: Group) -> Group:
        """Return the group where the projection is exact, else the trivial one."""
        return group if self.softness == 1 else group.smallest

    def extras(self, parts: Parts, group: Group) -> dict[str, Extra]:
        """Return the parameter behind a learned softness."""
        del parts, group
        if not self.learned:
            return {}
        odds = self.softness / (1 - self.softness)
        return {"softness": Extra(PARAMS, jnp.log(jnp.asarray(odds, jnp.float32)))}

    def combine(
        self, parts: Parts, extras: Extras, tables: Mapping[str, Table]
    ) -> dict[str, jax.Array]:
        """Return (1 - s) F + s P F."""
        s = jax.nn.sigmoid(extras["softness"]) if self.learned else self.softness
        full = {}
        for name, each in parts.items():
            free = each[""].full
            gap = kernels.reynolds(free, tables[name]) - free
            full[name] = free + jnp.asarray(s, free.dtype) * gap
        return full

    def absorb(
        self, full: jax.Array, ties: Mapping[str, Tie], table: Table
    ) -> dict[str, jax.Array]:
        """Return F for K: what the projection takes away is made larger before."""
        projected = kernels.reynolds(full, table)
        kept = 1 - self.softness
        free = projected + (full - projected) / kept if kept else projected
        return {"": kernels.project(free, ties[""])}
