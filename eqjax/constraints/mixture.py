"""The [G]-mixed layer: a weighted sum of layers tied to different groups.

One kernel, one bias and one logit per candidate group, K = sum_H z_H K_H with z the
softmax of the logits (Maile, Wilson and Forre 2023, section 3.2). The kernels are
summed before the one convolution. Every kernel is drawn with the fan-in of the full
kernel, so that at equal logits every candidate adds the same output variance.

Logits live in the collection `mixture`, apart from the weights, so that a search can
train them by an optimizer of their own (`eqjax.search`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import reduce
from operator import add
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from eqjax import kernels
from eqjax.constraints.base import (
    ConstrainedLayer,
    Constraint,
    Extra,
    Extras,
    Part,
    Parts,
)
from eqjax.constraints.collections import INITIAL_NORMS, MIXTURE
from eqjax.groups.checks import check_number, several
from eqjax.groups.closed import Symmetry
from eqjax.groups.group import Group, difference
from eqjax.kernels.tied import Table, Tie

SKIP = "skip"
_NORMS = "_norms"  # behind the name of a full array
Skip = Literal["inside", "outside"]


@dataclasses.dataclass(frozen=True)
class Mixture(Constraint):
    """A sum over candidate groups, weighted by the softmax of one logit each.

    Attributes:
      groups: the candidates, subgroups of one ambient group; conjugates are different
        candidates. Kept in the order of the ambient group's subgroups, largest first,
        so that a logit belongs to the same group however they were listed.
      temperature: z = softmax(logits / temperature).
      hold_norm: keep every kernel at its initial norm, so that only its direction is
        learned and z alone tells its strength, as the authors do; else kernels are
        free.
      prior: how far the logits of all but the largest group start below its own; 0 for
        an equal start, 2 in the authors' runs with a prior.
      skip: add the identity as a candidate "inside" the softmax, or "outside" it with
        the sigmoid of its own logit as its weight. For layers that keep channels, fiber
        and size.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> mixture = Mixture((D4, D4.subgroup("C4"), D4.subgroup("C1")))
    >>> conv = eq.GroupConv(8, 3, group=D4, constraint=mixture)
    >>> mixture.names
    ('D4', 'C4', 'C1')
    """

    groups: tuple[Group, ...]
    temperature: float = 1.0
    hold_norm: bool = True
    prior: float = 0.0
    skip: Skip | None = None

    def __post_init__(self):
        """Check the candidates against each other, and the settings."""
        object.__setattr__(self, "groups", several("groups", self.groups, "Groups"))
        if not self.groups:
            raise ValueError("a mixture needs at least one candidate group, got none")
        for candidate in self.groups:
            if not isinstance(candidate, Symmetry):
                raise TypeError(
                    "candidates must be Groups, such as eq.dihedral(4).subgroup('C4'), "
                    f"got {candidate!r}"
                )
            if candidate.ambient != self.groups[0].ambient:
                raise ValueError(
                    f"candidates need one ambient group; {candidate.name} lives over "
                    f"{candidate.ambient!r}, {self.groups[0].name} over "
                    f"{self.groups[0].ambient!r}"
                    f"{difference(candidate.ambient, self.groups[0].ambient)}"
                )
            if self.groups.count(candidate) > 1:
                raise ValueError(f"candidate {candidate.name} is named twice")
        ordered = sorted(self.groups, key=self.groups[0].ambient.subgroups.index)
        object.__setattr__(self, "groups", tuple(ordered))
        check_number("temperature", self.temperature)
        check_number("prior", self.prior)
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        if not 0 <= self.prior <= 10 * self.temperature:
            raise ValueError(
                f"prior must be in [0, {10 * self.temperature:g}], ten times the "
                f"temperature, got {self.prior}: beyond, no other group has any weight"
            )
        if self.skip not in (None, *get_args(Skip)):
            raise ValueError(
                f"skip must be None, 'inside' or 'outside', got {self.skip!r}"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """What each logit belongs to: names of groups, and "skip"."""
        names = tuple(group.name for group in self.groups)
        return (*names, SKIP) if self.skip else names

    @property
    def initial_logits(self) -> np.ndarray:
        """(candidates,) zero for the first and largest group, -prior for the others."""
        logits = np.full(len(self.names), -self.prior, np.float32)
        logits[0] = 0
        if self.skip == "outside":
            logits[-1] = 0
        return logits

    def weights(self, logits: jax.Array) -> jax.Array:
        """Return z, (..., candidates), for logits of the same shape."""
        if self.skip == "outside":
            inside = jax.nn.softmax(logits[..., :-1] / self.temperature)
            beside = jax.nn.sigmoid(logits[..., -1:] / self.temperature)
            return jnp.concatenate([inside, beside], -1)
        return jax.nn.softmax(logits / self.temperature)

    def parts(self, group: Group) -> dict[str, Group]:
        """Return the candidates: parts are named kernel_D4, kernel_C4 and so on."""
        del group
        return {f"_{candidate.name}": candidate for candidate in self.groups}

    def symmetry(self, group: Group) -> Group:
        """Return what all candidates have in common."""
        del group
        return self.groups[0].meet(*self.groups[1:])

    def check(self, layer: ConstrainedLayer) -> None:
        """Raise unless the layer's group contains all candidates and a skip fits."""
        group = layer.group
        for candidate in self.groups:
            if candidate.ambient != group.ambient or not candidate <= group:
                known = ", ".join(H.name for H in group.ambient.subgroups if group >= H)
                raise ValueError(
                    f"candidate {candidate!r} is not a subgroup of the layer's group "
                    f"{group!r}; its subgroups are {known}"
                    f"{difference(candidate.ambient, group.ambient)}"
                )
        if self.skip:
            try:
                layer.check_identity()
            except ValueError as error:
                raise ValueError(f"a skip adds the identity: {error}") from None

    def extras(self, parts: Parts, group: Group) -> dict[str, Extra]:
        """Return the logits, and the norms that kernels are held at."""
        del group
        found = {"logits": Extra(MIXTURE, jnp.asarray(self.initial_logits))}
        if self.hold_norm:
            for name, candidates in parts.items():
                if _maps(candidates):
                    norms = [jnp.sqrt(p.squared_norm) for p in candidates.values()]
                    found[name + _NORMS] = Extra(INITIAL_NORMS, jnp.stack(norms))
        return found

    def combine(
        self, parts: Parts, extras: Extras, tables: Mapping[str, Table]
    ) -> dict[str, jax.Array]:
        """Return sum_H z_H K_H, and the same for the bias."""
        del tables
        z = self.weights(extras["logits"])
        full = {}
        for name, candidates in parts.items():
            weights = z[: len(self.groups)]
            if name + _NORMS in extras:
                squared = jnp.stack([p.squared_norm for p in candidates.values()])
                squared = jnp.where(squared > 0, squared, 1)  # zeros stay zeros
                norms = extras[name + _NORMS]
                held = norms * jax.lax.rsqrt(squared)
                # A kernel that starts at zero has no norm to keep, and is free.
                weights = weights * jnp.where(norms > 0, held, 1)
            full[name] = reduce(
                add,
                (
                    Part(part.value * weight.astype(part.value.dtype), part.tie).full
                    for part, weight in zip(candidates.values(), weights, strict=True)
                ),
            )
            if self.skip and _maps(candidates):
                array = full[name]
                identity = jnp.asarray(
                    kernels.identity_kernel(array.shape), array.dtype
                )
                full[name] = array + z[-1].astype(array.dtype) * identity
        return full

    def absorb(
        self, full: jax.Array, ties: Mapping[str, Tie], table: Table
    ) -> dict[str, jax.Array]:
        """Give every candidate its projection of K, the finest what is then missing.

        Where K belongs to all candidates each of them gets K, so that the sum is K
        whatever the logits.
        """
        del table
        if self.skip:
            raise ValueError(
                "a layer cannot be carried into a mixture with skip; carry it into one "
                "without, or start from untrained weights"
            )
        z = self.weights(jnp.asarray(self.initial_logits)).astype(full.dtype)
        parts = {suffix: kernels.project(full, tie) for suffix, tie in ties.items()}
        total = reduce(
            add,
            (
                w * kernels.expand(part, tie)
                for w, part, tie in zip(z, parts.values(), ties.values(), strict=True)
            ),
        )
        *_, finest = ties  # the smallest group comes last
        missing = kernels.project(full - total, ties[finest])
        parts[finest] = parts[finest] + missing / z[-1]
        return parts


def _maps(candidates: Mapping[str, Part]) -> bool:
    """Tell whether the parts are those of an array that maps fields to fields."""
    return all(part.tie.maps for part in candidates.values())
