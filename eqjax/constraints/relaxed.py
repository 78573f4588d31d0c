"""Relaxed group convolution: filter banks with free coefficients."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import reduce
from operator import add
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from eqjax import kernels
from eqjax.constraints.base import Constraint, Extra, Extras, Parts, output_elements
from eqjax.constraints.collections import PARAMS
from eqjax.groups.group import Group
from eqjax.kernels.orbits import OrbitTable
from eqjax.kernels.tied import Tie


@dataclasses.dataclass(frozen=True)
class RelaxedWeights(Constraint):
    """Relaxed group convolution (Wang, Walters and Yu 2022).

    K(y, h, g) = sum_l c_l(g) K_l(y, h, g) with tied filter banks K_l and free
    coefficients c_l of the output group element; equivariant while they are constant,
    as at the start. A layer with one output element, such as the head, stays so.

    Attributes:
      banks: number of filter banks.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> conv = eq.GroupConv(8, 3, group=D4, constraint=RelaxedWeights())
    """

    per_output_element: ClassVar[bool] = True

    banks: int = 2

    def __post_init__(self):
        """Reject a sum of nothing."""
        if self.banks < 1:
            raise ValueError(f"banks must be at least 1, got {self.banks}")

    def parts(self, group: Group) -> dict[str, Group]:
        """Return the layer's group for every bank."""
        return {f"_{bank}": group for bank in range(self.banks)}

    def symmetry(self, group: Group) -> Group:
        """Return the trivial group."""
        return group.smallest

    def extras(self, parts: Parts) -> dict[str, Extra]:
        """Return the coefficients, (banks, fiber_out), of unit sum of squares."""
        value = np.full(
            (self.banks, output_elements(parts)), self.banks**-0.5, np.float32
        )
        return {"coefficients": Extra(PARAMS, jnp.asarray(value))}

    def combine(
        self, parts: Parts, extras: Extras, tables: Mapping[str, OrbitTable]
    ) -> dict[str, jax.Array]:
        """Return the banks' sum, weighted by output group element."""
        del tables
        return {
            name: reduce(
                add,
                (
                    bank.scaled_by_output(coefficients)
                    for coefficients, bank in zip(
                        extras["coefficients"], banks.values(), strict=True
                    )
                ),
            )
            for name, banks in parts.items()
        }

    def absorb(
        self, full: jax.Array, ties: Mapping[str, Tie], table: OrbitTable
    ) -> dict[str, jax.Array]:
        """Give every bank another share of the projection of K.

        With equal shares the banks would stay equal in all training.
        """
        del table
        shares = np.arange(1, self.banks + 1)
        shares = shares / shares.sum() * self.banks**0.5
        return {
            suffix: kernels.project(full, tie) * jnp.asarray(share, full.dtype)
            for share, (suffix, tie) in zip(shares, ties.items(), strict=True)
        }
