"""How the full arrays of a layer arise from its parameters: the protocol of all layers.

A layer works with full arrays: K(y, h, g), a bias along the fiber. A constraint says of
which tied parts each is made and how they combine. `Tied` has one part and is the plain
equivariant layer; mixtures and the relaxations of other authors have several parts, or
coefficients beside them. All of them combine into one full array before anything is
convolved, so a layer costs one convolution whatever its constraint.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from eqjax import kernels
from eqjax.groups.group import Group
from eqjax.kernels.tied import Table, Tie
from eqjax.ops.precision import squared


@dataclasses.dataclass(frozen=True)
class Part:
    """A tied parameter and how it stands for a full array."""

    value: jax.Array
    tie: Tie

    @property
    def full(self) -> jax.Array:
        """The full array, (*table.shape, *rest)."""
        return kernels.expand(self.value, self.tie)

    @property
    def squared_norm(self) -> jax.Array:
        """The sum over the |entries|^2 of the full array, in at least float32."""
        axes = tuple(range(1, self.value.ndim))
        per_orbit = jnp.sum(squared(self.value), axes)
        weight = jnp.asarray(self.tie.size * self.tie.unit**2, per_orbit.dtype)
        return jnp.dot(weight, per_orbit, precision="highest")

    def scaled_by_output(self, values: jax.Array) -> jax.Array:
        """Return the full array times (fiber_out,) values, one per element written."""
        rest = self.value.ndim - 1
        return values.reshape(-1, *[1] * rest).astype(self.value.dtype) * self.full


class Extra(NamedTuple):
    """A variable of a layer beside its tied parts.

    Attributes:
      collection: "params" for what is trained with the weights.
      value: its initial value.
    """

    collection: str
    value: jax.Array


# By name of the full array ("kernel", "bias") and by suffix of the part.
Parts = Mapping[str, Mapping[str, Part]]
Extras = Mapping[str, jax.Array]


def output_elements(parts: Parts) -> int:
    """Return how many fiber elements the layer of these parts writes."""
    part = next(part for each in parts.values() for part in each.values())
    return part.tie.table.shape[-1]


class ConstrainedLayer(Protocol):
    """What a constraint asks of the layer that it belongs to."""

    group: Group

    def check_identity(self) -> None:
        """Raise ValueError unless some full arrays make the layer the identity."""
        ...


@dataclasses.dataclass(frozen=True)
class Constraint:
    """What stands between a layer's parameters and its full arrays.

    Pure functions of the layer's group G and of arrays; a subclass overrides what it
    does in another way than the plain tied layer, and declares what follows from that:

    Attributes:
      partwise: the combination stays the same when every part moves to another group.
      per_output_element: all its freedom is in numbers per output group element, so
        that a layer with a single one stays exactly equivariant.
      undone_by_element_norm: norms with statistics per fiber element take all its
        freedom out again, so that it does nothing before them.
      sums_over_elements: it sums over the elements of a group, which must be a `Group`
        then, and not one of infinite order.
      keeps_lifting_tied: the authors leave the first layer of a network tied.
      compared_with: settings, other than the defaults, that comparisons use.
      source: who proposed it.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> kinds = (eq.Tied(), eq.ResidualPathway(), eq.Mixture(D4.subgroups))
    >>> [kind.symmetry(D4).name for kind in kinds if isinstance(kind, eq.Constraint)]
    ['D4', 'C1', 'C1']
    """

    partwise: ClassVar[bool] = True
    per_output_element: ClassVar[bool] = False
    undone_by_element_norm: ClassVar[bool] = False
    sums_over_elements: ClassVar[bool] = False
    keeps_lifting_tied: ClassVar[bool] = False
    compared_with: ClassVar[Mapping[str, Any]] = {}
    source: ClassVar[str] = "Cohen and Welling 2016"

    def parts(self, group: Group) -> dict[str, Group]:
        """Return the group that each part of a full array is tied to, by suffix."""
        return {"": group}

    def symmetry(self, group: Group) -> Group:
        """Return the group that the layer commutes with whatever its parameters."""
        return group

    def check(self, layer: ConstrainedLayer) -> None:
        """Raise ValueError unless the constraint fits a layer."""

    def initial_scale(self, suffix: str, group: Group) -> float:
        """Return the factor by which a part's initial draw is multiplied."""
        del suffix, group
        return 1.0

    def extras(self, parts: Parts, group: Group) -> dict[str, Extra]:
        """Return the layer's other variables, given its untrained parts."""
        del parts, group
        return {}

    def combine(
        self, parts: Parts, extras: Extras, tables: Mapping[str, Table]
    ) -> dict[str, jax.Array]:
        """Return the full arrays.

        Args:
          parts: of every full array.
          extras: the values of the other variables.
          tables: the orbits of the layer's group, for every full array.
        """
        del extras, tables
        return {name: each[""].full for name, each in parts.items()}

    def penalty(
        self, parts: Parts, extras: Extras, tables: Mapping[str, Table]
    ) -> jax.Array | None:
        """Return what is added to the loss, in nats per sample, or None."""
        del parts, extras, tables
        return None

    def absorb(
        self, full: jax.Array, ties: Mapping[str, Tie], table: Table
    ) -> dict[str, jax.Array]:
        """Return parts that, with untrained extras, make up a full array.

        Exactly where one of the parts can hold it, else projected.

        Args:
          full: the full array.
          ties: the tie of every part.
          table: the orbits of the layer's group.
        """
        del table
        return {"": kernels.project(full, ties[""])}


@dataclasses.dataclass(frozen=True)
class Tied(Constraint):
    """A full array that is constant on the orbits of the group: exact equivariance.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> conv = eq.GroupConv(8, 3, group=D4, constraint=eq.Tied())  # the default
    """
