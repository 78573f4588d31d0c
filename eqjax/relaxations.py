"""Layers of other authors that relax a symmetry, as constraints of the same layers.

Each is equivariant at a point of its parameter space, learns how far to leave it, and
combines into one full kernel before the convolution, as everything here does.
"""

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
from eqjax.constraints import Constraint, Extra, Extras, Part, Parts
from eqjax.groups import Group
from eqjax.kernels import Tie
from eqjax.orbits import OrbitTable

RESIDUAL = "_residual"


def _trivial(group: Group) -> Group:
    return group.ambient.subgroups[-1]


def _fiber_out(parts: Parts) -> int:
    part = next(part for each in parts.values() for part in each.values())
    return part.tie.table.shape[-1]


def _along_fiber_out(values: jax.Array, part: Part) -> jax.Array:
    """Shape (fiber_out,) values to multiply the full array of a part."""
    rest = part.value.ndim - 1
    return values.reshape(-1, *[1] * rest).astype(part.value.dtype)


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
    """

    tied_precision: float = 1e-5
    residual_precision: float = 1e-3

    def __post_init__(self):
        """Reject priors of no width."""
        for name in ("tied_precision", "residual_precision"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")

    def parts(self, group: Group) -> dict[str, Group]:
        """Return the tied pathway's group, and the trivial one."""
        return {"": group, RESIDUAL: _trivial(group)}

    def symmetry(self, group: Group) -> Group:
        """Return the trivial group."""
        return _trivial(group)

    def initial_scale(self, suffix: str) -> float:
        """Draw the residual pathway in the ratio of the priors' deviations."""
        ratio = (self.tied_precision / self.residual_precision) ** 0.5
        return min(1.0, ratio) if suffix == RESIDUAL else 1.0

    def combine(
        self, parts: Parts, extras: Extras, tables: Mapping[str, OrbitTable]
    ) -> dict[str, jax.Array]:
        """Return the sum of both pathways."""
        del extras, tables
        return {
            name: pathways[""].full + pathways[RESIDUAL].full
            for name, pathways in parts.items()
        }

    def penalty(self, parts: Parts) -> jax.Array:
        """Return the negative logarithm of the priors, but for a constant."""
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
        self, full: jax.Array, ties: Mapping[str, Tie], table: OrbitTable
    ) -> dict[str, jax.Array]:
        """Give the tied pathway the projection of K, the residual one the rest."""
        del table
        tied = kernels.collapse(full, ties[""])
        rest = full - kernels.expand(tied, ties[""])
        return {"": tied, RESIDUAL: kernels.collapse(rest, ties[RESIDUAL])}


@dataclasses.dataclass(frozen=True)
class RelaxedWeights(Constraint):
    """Relaxed group convolution (Wang, Walters and Yu 2022).

    K(y, h, g) = sum_l c_l(g) K_l(y, h, g) with tied filter banks K_l and free
    coefficients c_l of the output group element; equivariant while they are constant,
    as at the start. A layer with one output element, such as the head, stays so.

    Attributes:
      banks: number of filter banks.
    """

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
        return _trivial(group)

    def extras(self, parts: Parts) -> dict[str, Extra]:
        """Return the coefficients, (banks, fiber_out), of unit sum of squares."""
        value = np.full((self.banks, _fiber_out(parts)), self.banks**-0.5, np.float32)
        return {"coefficients": Extra("params", jnp.asarray(value))}

    def combine(
        self, parts: Parts, extras: Extras, tables: Mapping[str, OrbitTable]
    ) -> dict[str, jax.Array]:
        """Return the banks' sum, weighted by output group element."""
        del tables
        return {
            name: reduce(
                add,
                (
                    _along_fiber_out(coefficients, bank) * bank.full
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
            suffix: kernels.collapse(full, tie) * jnp.asarray(share, full.dtype)
            for share, (suffix, tie) in zip(shares, ties.items(), strict=True)
        }


@dataclasses.dataclass(frozen=True)
class PartialGroup(Constraint):
    """Partial group convolution over a finite group (Romero and Lohit 2022).

    A learned distribution p over the output group elements weighs what each of them
    gets: K(y, h, g) = n p(g) K_tied(y, h, g) with n elements. Uniform at the start, and
    then equivariant; an element of probability zero is left out. The group is finite,
    so the expectation over p is summed, where the authors draw samples of it. A norm
    per fiber element behind it, as in the preset `paper`, takes the weights out again.
    """

    def symmetry(self, group: Group) -> Group:
        """Return the trivial group."""
        return _trivial(group)

    def extras(self, parts: Parts) -> dict[str, Extra]:
        """Return the logits of the distribution, (fiber_out,)."""
        zeros = jnp.zeros(_fiber_out(parts), jnp.float32)
        return {"element_logits": Extra("params", zeros)}

    def combine(
        self, parts: Parts, extras: Extras, tables: Mapping[str, OrbitTable]
    ) -> dict[str, jax.Array]:
        """Return the tied array, weighted by output group element."""
        del tables
        probability = jax.nn.softmax(extras["element_logits"])
        weight = probability.size * probability
        return {
            name: _along_fiber_out(weight, each[""]) * each[""].full
            for name, each in parts.items()
        }


@dataclasses.dataclass(frozen=True)
class SoftProjection(Constraint):
    """A free array, drawn towards its projection on the symmetric ones.

    K = (1 - s) F + s P F with P the average over the orbits of the group, and s the
    softness: 0 is free, 1 exactly equivariant.

    Attributes:
      softness: s, or its start where it is learned.
      learned: train s with the weights, as the sigmoid of a parameter.
    """

    softness: float = 0.9
    learned: bool = False
    partwise: ClassVar[bool] = False

    def __post_init__(self):
        """Reject what is no softness."""
        if not 0 <= self.softness <= 1:
            raise ValueError(f"softness must be in [0, 1], got {self.softness}")
        if self.learned and self.softness in (0, 1):
            raise ValueError(
                f"a learned softness must start between 0 and 1, got {self.softness}"
            )

    def parts(self, group: Group) -> dict[str, Group]:
        """Return the trivial group."""
        return {"": _trivial(group)}

    def symmetry(self, group: Group) -> Group:
        """Return the group where the projection is exact, else the trivial one."""
        return group if self.softness == 1 else _trivial(group)

    def extras(self, parts: Parts) -> dict[str, Extra]:
        """Return the parameter behind a learned softness."""
        del parts
        if not self.learned:
            return {}
        odds = self.softness / (1 - self.softness)
        return {"softness": Extra("params", jnp.log(jnp.asarray(odds, jnp.float32)))}

    def combine(
        self, parts: Parts, extras: Extras, tables: Mapping[str, OrbitTable]
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
        self, full: jax.Array, ties: Mapping[str, Tie], table: OrbitTable
    ) -> dict[str, jax.Array]:
        """Return F for K: what the projection takes away is made larger before."""
        projected = kernels.reynolds(full, table)
        kept = 1 - self.softness
        free = projected + (full - projected) / kept if kept else projected
        return {"": kernels.collapse(free, ties[""])}
