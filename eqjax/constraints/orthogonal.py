"""A free array, split into orthogonal parts by the group, each with a coefficient.

K = sum_k c_k P_k F: F is free, the P_k are orthogonal projections that add up to the
identity, and P_0 is the average over the orbits of the group. With c = (1, 0, 0, ...)
the layer is exactly equivariant, with equal coefficients it is free. Each P_k is a sum
over the elements u of the group with weights, P_k F = sum_u w_k(u) u . F, so that all
of them together are a single one.
"""

from __future__ import annotations

import abc
import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from eqjax import kernels
from eqjax.constraints.base import (
    ConstrainedLayer,
    Constraint,
    Extra,
    Extras,
    Parts,
)
from eqjax.constraints.collections import PARAMS
from eqjax.groups.checks import check_number
from eqjax.groups.group import Group
from eqjax.groups.isotypic import isotypic_components
from eqjax.kernels.tied import Table, Tie


class OrthogonalParts(Constraint, abc.ABC):
    """What constraints share that scale orthogonal parts of a free array."""

    partwise: ClassVar[bool] = False
    sums_over_elements: ClassVar[bool] = True

    @abc.abstractmethod
    def weights(self, group: Group) -> np.ndarray:
        """Return (parts, order): how much of u . F is in each part, P_0 first."""

    @abc.abstractmethod
    def coefficients(self, extras: Extras, group: Group) -> jax.Array:
        """Return (parts,): the coefficient of every part."""

    def parts(self, group: Group) -> dict[str, Group]:
        """Return the trivial group."""
        return {"": group.smallest}

    def symmetry(self, group: Group) -> Group:
        """Return the trivial group."""
        return group.smallest

    def initial_scale(self, suffix: str, group: Group) -> float:
        """Make up for what the coefficients take away from what is drawn."""
        del suffix
        rank = self.weights(group)[:, 0]  # the traces of the projections
        return float(self._untrained(group) ** 2 @ rank / rank.sum()) ** -0.5

    def combine(
        self, parts: Parts, extras: Extras, tables: Mapping[str, Table]
    ) -> dict[str, jax.Array]:
        """Return the sum of the scaled parts."""
        found = {}
        for name, each in parts.items():
            group = _group_of(tables[name])
            c = self.coefficients(extras, group)
            weights = c @ jnp.asarray(self.weights(group), c.dtype)
            found[name] = kernels.weighted_sum(each[""].full, tables[name], weights)
        return found

    def absorb(
        self, full: jax.Array, ties: Mapping[str, Tie], table: Table
    ) -> dict[str, jax.Array]:
        """Return F for K: every part over its coefficient, dropped where that is 0."""
        group = _group_of(table)
        c = self._untrained(group)
        inverse = np.divide(1, c, out=np.zeros_like(c), where=c != 0)
        weights = jnp.asarray(inverse @ self.weights(group), full.dtype)
        free = kernels.weighted_sum(full, table, weights)
        return {"": kernels.project(free, ties[""])}

    def _untrained(self, group: Group) -> np.ndarray:
        with jax.ensure_compile_time_eval():
            extras = {name: e.value for name, e in self.extras({}, group).items()}
            return np.asarray(self.coefficients(extras, group), np.float64)


def _group_of(table: Table) -> Group:
    if not isinstance(table.group, Group):
        raise ValueError(
            "orthogonal parts need a Group that is fixed, not one as data or without "
            f"end, got {table.group!r}"
        )
    return table.group


@dataclasses.dataclass(frozen=True)
class GammaProjection(OrthogonalParts):
    """A projection that is opened by degrees, gamma, along a chain of subgroups.

    K = P_G F + gamma (F - P_G F): exactly equivariant at gamma = 0 and free at 1. Along
    a chain G > H_1 > ... > H_n it is P_G F + sum_k gamma_k (P_k - P_(k-1)) F, a sum of
    orthogonal parts, and gamma_k says how much the layer needs what H_k allows and the
    group before it does not. What moves gamma is up to the optimizer: it is trained
    with the weights, follows a schedule (`eq.scheduled_gammas`; Pertigkiozoglou et al.
    2024), or a dual variable pulls it back (`eq.dual_gammas`; ACE, 2025).

    Attributes:
      chain: names of the subgroups H_1, H_2, ..., from large to small; the layer
        commutes with the last. Those that are no proper subgroup of the layer's group
        are left out. Empty for the trivial group alone.
      start: of all gammas.
      precision: weight of gamma^2 / 2 in the loss, in nats per sample.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> layer = eq.LiftingConv(2, 3, group=D4, constraint=GammaProjection(("C4", "C1")))
    >>> variables = layer.init(jax.random.key(0), jnp.ones((1, 6, 6, 1)))
    >>> variables["params"]["gamma"]
    Array([1., 1.], dtype=float32)
    """

    source: ClassVar[str] = "Pertigkiozoglou et al. 2024"
    compared_with: ClassVar[Mapping[str, Any]] = {"precision": 1e-3}

    chain: tuple[str, ...] = ()
    start: float = 1.0
    precision: float = 0.0

    def __post_init__(self):
        """Reject settings that no layer can have."""
        object.__setattr__(self, "chain", tuple(self.chain))
        check_number("start", self.start)
        check_number("precision", self.precision)
        if not 0 <= self.start < float("inf"):
            raise ValueError(f"start must be at least 0, got {self.start}")
        if not 0 <= self.precision < float("inf"):
            raise ValueError(f"precision must be at least 0, got {self.precision}")

    def check(self, layer: ConstrainedLayer) -> None:
        """Raise ValueError unless the chain fits the layer's group."""
        self.groups(layer.group)

    def groups(self, group: Group) -> tuple[Group, ...]:
        """Return the chain below a layer's group.

        Raises:
          ValueError: the groups do not contain one another.
        """
        ambient = group.ambient
        named = [ambient.subgroup(name) for name in self.chain] or [ambient.smallest]
        below = [H for H in named if group > H]
        for larger, smaller in itertools.pairwise(below):
            if not smaller < larger:
                raise ValueError(
                    f"chain must go from large to small groups, each within the one "
                    f"before, got {', '.join(self.chain)}: {smaller!r} is not within "
                    f"{larger!r}"
                )
        return tuple(below)

    def parts(self, group: Group) -> dict[str, Group]:
        """Return the last group of the chain."""
        return {"": self.symmetry(group)}

    def symmetry(self, group: Group) -> Group:
        """Return the last group of the chain."""
        return (group, *self.groups(group))[-1]

    def weights(self, group: Group) -> np.ndarray:
        """Return the averages over the groups of the chain, each less that before."""
        own = np.asarray(group.elements)
        averages = np.stack(
            [np.isin(own, H.elements) / H.order for H in (group, *self.groups(group))]
        )
        return np.diff(averages, axis=0, prepend=np.zeros((1, len(own))))

    def extras(self, parts: Parts, group: Group) -> dict[str, Extra]:
        """Return gamma, one for each group of the chain."""
        del parts
        if not (count := len(self.groups(group))):
            return {}
        return {"gamma": Extra(PARAMS, jnp.full(count, self.start, jnp.float32))}

    def coefficients(self, extras: Extras, group: Group) -> jax.Array:
        """Return 1 and the gammas."""
        del group
        gamma = extras.get("gamma", jnp.zeros(0))
        return jnp.concatenate([jnp.ones(1, gamma.dtype), gamma])

    def penalty(
        self, parts: Parts, extras: Extras, tables: Mapping[str, Table]
    ) -> jax.Array | None:
        """Return the squares of the gammas, if they are to be held back."""
        del parts, tables
        if not self.precision or "gamma" not in extras:
            return None
        return self.precision / 2 * jnp.sum(extras["gamma"] ** 2)


@dataclasses.dataclass(frozen=True)
class NonStationary(OrthogonalParts):
    """Filters that may vary over the output element, smoothly (van der Ouderaa 2022).

    K(y, h, g) = sum_m phi_m(orbit of (y, h, g)) psi_m(g), with psi_m the entries of the
    irreps of the group, psi_0 = 1, damped by exp(-m^2 / w^2): w is learned for each
    layer, from strictly equivariant, 0, to free. As phi_m is free, the terms of an
    irrep are the isotypic component of a free kernel, and m is its degree
    (`groups.isotypic_components`): of rotations of the plane, the frequency. The form
    of the paper for continuous kernels, on a grid.

    Attributes:
      width: w at the start.
      precision: weight of w^2 / 2 in the loss, in nats per sample; the training loss
        alone only ever opens it.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> kind = NonStationary()
    >>> c = kind.coefficients({"raw_width": jnp.log(jnp.e - 1)}, D4)  # a width of 1
    >>> [round(float(each), 3) for each in c]
    [1.0, 0.368, 0.018, 0.018, 0.018]
    """

    source: ClassVar[str] = "van der Ouderaa et al. 2022"
    width: float = 1.0
    precision: float = 1e-3

    def __post_init__(self):
        """Reject settings that no layer can have."""
        check_number("width", self.width)
        check_number("precision", self.precision)
        if not 0 < self.width < float("inf"):
            raise ValueError(f"width must be positive, got {self.width}")
        if not 0 <= self.precision < float("inf"):
            raise ValueError(f"precision must be at least 0, got {self.precision}")

    def weights(self, group: Group) -> np.ndarray:
        """Return those of the isotypic components."""
        return np.stack([each.weights for each in isotypic_components(group)])

    def extras(self, parts: Parts, group: Group) -> dict[str, Extra]:
        """Return what the width is the softplus of."""
        del parts, group
        raw = jnp.log(jnp.expm1(jnp.asarray(self.width, jnp.float32)))
        return {"raw_width": Extra(PARAMS, raw)}

    def coefficients(self, extras: Extras, group: Group) -> jax.Array:
        """Return exp(-m^2 / w^2) for the degree m of every component."""
        degrees = np.array([each.degree for each in isotypic_components(group)])
        return jnp.exp(-(degrees**2) / jax.nn.softplus(extras["raw_width"]) ** 2)

    def penalty(
        self, parts: Parts, extras: Extras, tables: Mapping[str, Table]
    ) -> jax.Array | None:
        """Return the square of the width, if it is to be held back."""
        del parts, tables
        if not self.precision:
            return None
        return self.precision / 2 * jax.nn.softplus(extras["raw_width"]) ** 2
