"""Relaxed group convolution: filter banks with free weights, and a variant of it."""

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
from eqjax.constraints.base import (
    Constraint,
    Extra,
    Extras,
    Part,
    Parts,
    output_elements,
)
from eqjax.constraints.collections import PARAMS
from eqjax.groups.checks import check_whole
from eqjax.groups.group import Group
from eqjax.kernels.tied import Table, Tie


@dataclasses.dataclass(frozen=True)
class _Banks(Constraint):
    """A sum of several filter banks."""

    banks: int = 2

    def __post_init__(self):
        """Reject a sum of nothing."""
        check_whole("banks", self.banks)

    def symmetry(self, group: Group) -> Group:
        """Return the trivial group."""
        return group.smallest

    def equal(self, elements: int) -> dict[str, Extra]:
        """Return (banks, elements) coefficients that are 1 / sqrt(banks) each."""
        value = np.full((self.banks, elements), self.banks**-0.5, np.float32)
        return {"coefficients": Extra(PARAMS, jnp.asarray(value))}

    def absorb(
        self, full: jax.Array, ties: Mapping[str, Tie], table: Table
    ) -> dict[str, jax.Array]:
        """Give every bank another share of K, which equal coefficients project.

        With equal shares the banks would stay equal in all training.
        """
        del table
        shares = np.arange(1, self.banks + 1)
        shares = shares / shares.sum() * self.banks**0.5
        return {
            suffix: kernels.project(full, tie) * jnp.asarray(share, full.dtype)
            for share, (suffix, tie) in zip(shares, ties.items(), strict=True)
        }


@dataclasses.dataclass(frozen=True)
class RelaxedWeights(_Banks):
    """Relaxed group convolution as its authors compute it (Wang, Walters, Yu 2022).

    K = 1/|G| sum_u u . (sum_l c_l(u) W_l): free filter banks W_l, combined with
    coefficients c_l of every group element u, transformed by u, and averaged. Equal
    coefficients make it the projection of sum_l c_l W_l, and exactly equivariant, as at
    the start (the authors draw them). A bias is averaged with the mean coefficients,
    and stays symmetric. Without free coefficients for a smaller group, moving a layer
    to one projects its kernel on the symmetric ones.

    Attributes:
      banks: number of filter banks.

    >>> import eqjax as eq
    >>> layer = eq.GroupConv(4, 3, group=eq.cyclic(4), constraint=RelaxedWeights())
    """

    sums_over_elements: ClassVar[bool] = True
    source: ClassVar[str] = "Wang et al. 2022"
    partwise: ClassVar[bool] = False

    def parts(self, group: Group) -> dict[str, Group]:
        """Return the trivial group for every bank."""
        return {f"_{bank}": group.smallest for bank in range(self.banks)}

    def initial_scale(self, suffix: str, group: Group) -> float:
        """Make up for the average over the group, which narrows what is drawn."""
        del suffix
        return group.order**0.5

    def extras(self, parts: Parts, group: Group) -> dict[str, Extra]:
        """Return the coefficients, (banks, group order)."""
        del parts
        return self.equal(group.order)

    def combine(
        self, parts: Parts, extras: Extras, tables: Mapping[str, Table]
    ) -> dict[str, jax.Array]:
        """Return the average of the transformed combinations."""
        c = extras["coefficients"]
        return {
            name: _averaged(c, tuple(banks.values()), tables[name])
            for name, banks in parts.items()
        }


def _averaged(c: jax.Array, banks: tuple[Part, ...], table: Table) -> jax.Array:
    full = jnp.stack([bank.full for bank in banks])
    if not banks[0].tie.maps:
        c = jnp.broadcast_to(c.mean(1, keepdims=True), c.shape)
    each = jnp.einsum("lu,l...->u...", c.astype(full.dtype), full, precision="highest")
    return table.transformed(each).mean(0)


@dataclasses.dataclass(frozen=True)
class RelaxedOutputs(_Banks):
    """A relaxed group convolution whose coefficients belong to what it writes.

    K(y, h, g) = sum_l c_l(g) K_l(y, h, g) with tied filter banks K_l and free
    coefficients c_l of the output group element; equivariant while they are constant,
    as at the start. A layer with one output element, such as the head, stays so. It has
    |G| times fewer weights than `RelaxedWeights`.

    Attributes:
      banks: number of filter banks.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> conv = eq.GroupConv(8, 3, group=D4, constraint=RelaxedOutputs())
    """

    source: ClassVar[str] = "a variant of Wang et al. 2022"
    per_output_element: ClassVar[bool] = True

    def parts(self, group: Group) -> dict[str, Group]:
        """Return the layer's group for every bank."""
        return {f"_{bank}": group for bank in range(self.banks)}

    def extras(self, parts: Parts, group: Group) -> dict[str, Extra]:
        """Return the coefficients, (banks, fiber_out), of unit sum of squares."""
        del group
        return self.equal(output_elements(parts))

    def combine(
        self, parts: Parts, extras: Extras, tables: Mapping[str, Table]
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
