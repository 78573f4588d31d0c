"""The [G]-mixed layer: a weighted sum of layers tied to different groups.

One kernel, one bias and one logit per candidate group, K = sum_H z_H K_H with z the
softmax of the logits (Maile, Wilson and Forre 2023, section 3.2). The kernels are
summed before the one convolution. Every kernel is drawn with the fan-in of the full
kernel, so that at equal logits every candidate adds the same output variance.

Logits live in the collection `mixture`, apart from the weights, so that a search can
train them by an optimizer of their own (`eqjax.differentiable`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from eqjax import kernels
from eqjax.constraints import Constraint, Extra, Extras, Part, Parts, TiedModule
from eqjax.groups import Group
from eqjax.kernels import Tie
from eqjax.layers import GroupConv, InvariantHead, LiftingConv
from eqjax.orbits import OrbitTable
from eqjax.windows import per_axis

MIXTURE = "mixture"  # the collection of the logits
SKIP = "skip"
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
    """

    groups: tuple[Group, ...]
    temperature: float = 1.0
    hold_norm: bool = True
    prior: float = 0.0
    skip: Skip | None = None

    def __post_init__(self):
        """Check the candidates against each other, and the settings."""
        if not self.groups:
            raise ValueError("a mixture needs at least one candidate group, got none")
        for candidate in self.groups:
            if not isinstance(candidate, Group):
                raise TypeError(
                    "candidates must be Groups, such as eq.dihedral(4).subgroup('C4'), "
                    f"got {candidate!r}"
                )
            if candidate.ambient != self.groups[0].ambient:
                raise ValueError(
                    f"candidates need one ambient group; {candidate.name} lives over "
                    f"{candidate.ambient!r}, {self.groups[0].name} over "
                    f"{self.groups[0].ambient!r}"
                )
            if self.groups.count(candidate) > 1:
                raise ValueError(f"candidate {candidate.name} is named twice")
        ordered = sorted(self.groups, key=self.groups[0].ambient.subgroups.index)
        object.__setattr__(self, "groups", tuple(ordered))
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

    def check(self, layer: TiedModule) -> None:
        """Raise unless the layer's group contains all candidates and a skip fits."""
        group = layer.group
        for candidate in self.groups:
            if candidate.ambient != group.ambient or not candidate <= group:
                known = ", ".join(H.name for H in group.ambient.subgroups if group >= H)
                raise ValueError(
                    f"candidate {candidate!r} is no subgroup of the layer's group "
                    f"{group!r}; its subgroups are {known}"
                )
        if self.skip and isinstance(layer, GroupConv):
            strides = per_axis(layer.strides, group.dimension, "strides")
            keeps = layer.padding in ("SAME", "CIRCULAR") and set(strides) == {1}
            if not keeps or layer.feature_group_count != 1:
                raise ValueError(
                    "a skip needs strides of 1, padding SAME or CIRCULAR and one "
                    f"feature group, got strides {strides}, padding {layer.padding!r} "
                    f"and {layer.feature_group_count} feature groups"
                )

    def extras(self, parts: Parts) -> dict[str, Extra]:
        """Return the logits, and the norms that kernels are held at."""
        found = {"logits": Extra(MIXTURE, jnp.asarray(self.initial_logits))}
        if self.hold_norm:
            norms = [jnp.sqrt(part.squared_norm) for part in parts["kernel"].values()]
            found["kernel_norms"] = Extra("initial_norms", jnp.stack(norms))
        return found

    def combine(
        self, parts: Parts, extras: Extras, tables: Mapping[str, OrbitTable]
    ) -> dict[str, jax.Array]:
        """Return sum_H z_H K_H, and the same for the bias."""
        del tables
        z = self.weights(extras["logits"])
        full = {}
        for name, candidates in parts.items():
            weights = z[: len(self.groups)]
            if name == "kernel" and self.hold_norm:
                squared = jnp.stack([p.squared_norm for p in candidates.values()])
                squared = jnp.where(squared > 0, squared, 1)  # zeros stay zeros
                held = extras["kernel_norms"] * jax.lax.rsqrt(squared)
                weights = weights * held
            full[name] = reduce(
                add,
                (
                    Part(part.value * weight.astype(part.value.dtype), part.tie).full
                    for part, weight in zip(candidates.values(), weights, strict=True)
                ),
            )
        if self.skip:
            kernel = full["kernel"]
            identity = jnp.asarray(identity_kernel(kernel.shape), kernel.dtype)
            full["kernel"] = kernel + z[-1].astype(kernel.dtype) * identity
        return full

    def absorb(
        self, full: jax.Array, ties: Mapping[str, Tie], table: OrbitTable
    ) -> dict[str, jax.Array]:
        """Give every candidate its projection of K, the finest what is then missing.

        Where K belongs to all candidates each of them gets K, so that the sum is K
        whatever the logits.
        """
        del table
        if self.skip:
            raise ValueError(
                "a layer cannot be carried into a mixture with skip; carry it into one "
                "without, or start anew"
            )
        z = self.weights(jnp.asarray(self.initial_logits)).astype(full.dtype)
        parts = {suffix: kernels.collapse(full, tie) for suffix, tie in ties.items()}
        total = reduce(
            add,
            (
                w * kernels.expand(part, tie)
                for w, part, tie in zip(z, parts.values(), ties.values(), strict=True)
            ),
        )
        *_, finest = ties  # the smallest group comes last
        missing = kernels.collapse(full - total, ties[finest])
        parts[finest] = parts[finest] + missing / z[-1]
        return parts


def identity_kernel(shape: tuple[int, ...]) -> np.ndarray:
    """Return the full kernel that leaves a field as it is.

    Args:
      shape: (*taps, fiber_in, fiber_out, c_in, c_out).

    Raises:
      ValueError: a kernel of this shape cannot be the identity.
    """
    *taps, fiber_in, fiber_out, c_in, c_out = shape
    if fiber_in != fiber_out or c_in != c_out or any(k % 2 == 0 for k in taps):
        raise ValueError(
            "a skip needs as many channels and fiber elements out as in and odd taps, "
            f"got {c_in} -> {c_out} channels, {fiber_in} -> {fiber_out} fiber elements "
            f"and taps {tuple(taps)}"
        )
    kernel = np.zeros(shape, np.float32)
    center = tuple(k // 2 for k in taps)
    kernel[center] = np.einsum("hg,io->hgio", np.eye(fiber_in), np.eye(c_in))
    return kernel


def MixedGroupConv(*arguments: Any, groups: Sequence[Group], **settings: Any):
    """Return a `GroupConv` that mixes several groups.

    A function, for short: the layer is a `GroupConv` with a `Mixture` as constraint.

    Args:
      *arguments: those of `GroupConv`: features, kernel_size, and so on.
      groups: the candidates.
      **settings: attributes of `GroupConv` and of `Mixture`.
    """
    return _mixed(GroupConv, arguments, groups, settings)


def MixedLiftingConv(*arguments: Any, groups: Sequence[Group], **settings: Any):
    """Return a `LiftingConv` that mixes several groups; see `MixedGroupConv`."""
    return _mixed(LiftingConv, arguments, groups, settings)


def MixedInvariantHead(*arguments: Any, groups: Sequence[Group], **settings: Any):
    """Return an `InvariantHead` that mixes several groups; see `MixedGroupConv`."""
    return _mixed(InvariantHead, arguments, groups, settings)


def _mixed(
    layer: type[GroupConv],
    arguments: tuple,
    groups: Sequence[Group],
    settings: dict[str, Any],
) -> GroupConv:
    own = {field.name for field in dataclasses.fields(Mixture)} & settings.keys()
    mixture = Mixture(tuple(groups), **{name: settings.pop(name) for name in own})
    settings.setdefault("group", mixture.groups[0].join(*mixture.groups[1:]))
    return layer(*arguments, constraint=mixture, **settings)
