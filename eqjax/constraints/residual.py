"""Residual pathway prior: a tied array, and a free one that is held back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp

from eqjax import kernels
from eqjax.constraints.base import Constraint, Extras, Parts
from eqjax.groups.checks import check_number
from eqjax.groups.group import Group
from eqjax.kernels.tied import Table, Tie

RESIDUAL = "_residual"


@dataclasses.dataclass(frozen=True)
class ResidualPathway(Constraint):
    """Residual pathway prior: a tied pathway and a free one (Finzi et al. 2021).

    K = K_tied + K_residual, with Gaussian priors of different strength on the two full
    arrays. Their negative logarithm is the penalty; its gradient holds the residual
    pathway back. The residual pathway is drawn as narrow as its prior is beside that
    of the tied one.

    Attributes:
      tied_precision: inverse variance of an entry of the tied pathway, over the number
        of training samples (so that the penalty is in nats per sample).
      residual_precision: the same for the residual pathway; the larger, the more
        symmetric.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> conv = eq.GroupConv(8, 3, group=D4, constraint=ResidualPathway())
    >>> sorted(conv.ties)
    ['bias', 'bias_residual', 'kernel', 'kernel_residual']
    """

    source: ClassVar[str] = "Finzi et al. 2021"
    keeps_lifting_tied: ClassVar[bool] = True

    tied_precision: float = 1e-5
    residual_precision: float = 1e-3

    def __post_init__(self):
        """Reject priors of no width."""
        for name in ("tied_precision", "residual_precision"):
            check_number(name, getattr(self, name))
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")

    def parts(self, group: Group) -> dict[str, Group]:
        """Return the tied pathway's group, and the trivial one."""
        return {"": group, RESIDUAL: group.smallest}

    def symmetry(self, group: Group) -> Group:
        """Return the trivial group."""
        return group.smallest

    def initial_scale(self, suffix: str, group: Group) -> float:
        """Draw the residual pathway in the ratio of the priors' deviations."""
        del group
        ratio = (self.tied_precision / self.residual_precision) ** 0.5
        return min(1.0, ratio) if suffix == RESIDUAL else 1.0

    def combine(
        self, parts: Parts, extras: Extras, tables: Mapping[str, Table]
    ) -> dict[str, jax.Array]:
        """Return the sum of both pathways."""
        del extras, tables
        return {
            name: pathways[""].full + pathways[RESIDUAL].full
            for name, pathways in parts.items()
        }

    def penalty(
        self, parts: Parts, extras: Extras, tables: Mapping[str, Table]
    ) -> jax.Array:
        """Return the negative logarithm of the priors, up to a constant."""
        del extras, tables
        precision = {"": self.tied_precision, RESIDUAL: self.residual_precision}
        return sum(
            (
                precision[suffix] / 2 * part.squared_norm
                for pathways in parts.values()
                for suffix, part in pathways.items()
            ),
            start=jnp.zeros(()),
        )

    def absorb(
        self, full: jax.Array, ties: Mapping[str, Tie], table: Table
    ) -> dict[str, jax.Array]:
        """Give the tied pathway the projection of K, the residual one the rest."""
        del table
        tied = kernels.project(full, ties[""])
        rest = full - kernels.expand(tied, ties[""])
        return {"": tied, RESIDUAL: kernels.project(rest, ties[RESIDUAL])}
