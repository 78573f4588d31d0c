"""How the full arrays of a layer arise from its parameters: the protocol of all layers.

A layer works with full arrays: K(y, h, g), a bias along the fiber. A constraint says of
which tied parts each is made and how they combine. `Tied` has one part and is the plain
equivariant layer; mixtures and the relaxations of other authors have several parts, or
coefficients beside them (`eqjax.mixed`, `eqjax.relaxations`). All of them combine into
one full array before anything is convolved, so a layer costs one convolution whatever
its constraint.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from eqjax import kernels
from eqjax.groups import Group
from eqjax.kernels import Initializer, Tie
from eqjax.orbits import OrbitTable

PENALTIES = "penalties"  # the collection that training adds to the loss


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
        """The sum over the squared entries of the full array."""
        axes = tuple(range(1, self.value.ndim))
        per_orbit = jnp.sum(jnp.square(self.value), axes)
        weight = jnp.asarray(self.tie.size * self.tie.unit**2, per_orbit.dtype)
        return jnp.dot(weight, per_orbit, precision="highest")


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


@dataclasses.dataclass(frozen=True)
class Constraint:
    """What stands between a layer's parameters and its full arrays.

    Pure functions of the layer's group G and of arrays; a subclass overrides what it
    does in another way than the plain tied layer.
    """

    # Whether the combination stays the same when every part moves to another group.
    partwise: ClassVar[bool] = True

    def parts(self, group: Group) -> dict[str, Group]:
        """Return the group that each part of a full array is tied to, by suffix."""
        return {"": group}

    def symmetry(self, group: Group) -> Group:
        """Return the group that the layer commutes with whatever its parameters."""
        return group

    def check(self, layer: TiedModule) -> None:
        """Raise ValueError unless the constraint fits a layer."""

    def initial_scale(self, suffix: str) -> float:
        """Return the factor by which a part's initial draw is multiplied."""
        del suffix
        return 1.0

    def extras(self, parts: Parts) -> dict[str, Extra]:
        """Return the layer's other variables, given its untrained parts."""
        del parts
        return {}

    def combine(
        self, parts: Parts, extras: Extras, tables: Mapping[str, OrbitTable]
    ) -> dict[str, jax.Array]:
        """Return the full arrays.

        Args:
          parts: of every full array.
          extras: the values of the other variables.
          tables: the orbits of the layer's group, for every full array.
        """
        del extras, tables
        return {name: each[""].full for name, each in parts.items()}

    def penalty(self, parts: Parts) -> jax.Array | None:
        """Return what is added to the loss, in nats per sample, or None."""
        del parts
        return None

    def absorb(
        self, full: jax.Array, ties: Mapping[str, Tie], table: OrbitTable
    ) -> dict[str, jax.Array]:
        """Return parts that, with untrained extras, make up a full array.

        Exactly where one of the parts can hold it, else projected.

        Args:
          full: the full array.
          ties: the tie of every part.
          table: the orbits of the layer's group.
        """
        del table
        return {"": kernels.collapse(full, ties[""])}


@dataclasses.dataclass(frozen=True)
class Tied(Constraint):
    """A full array that is constant on the orbits of the group: exact equivariance."""


class TiedModule(nn.Module, kw_only=True):
    """A module with parameters tied along the orbits of a group.

    Subclasses say in `ties_of` how each of their full arrays is tied to a group; the
    morphism needs to know no more about them.

    Where the variables hold a collection `orbits`, its tables take the place of those
    of `group`: the group is then data, and one compiled program serves all groups (see
    `eqjax.encoding`).

    Attributes:
      constraint: how the full arrays arise from the parameters.
    """

    constraint: Constraint = Tied()

    def __post_init__(self) -> None:
        """Reject a name in place of a group, and a constraint that does not fit it."""
        super().__post_init__()
        group = getattr(self, "group", None)
        if not isinstance(group, Group):
            raise TypeError(
                f"{type(self).__name__} needs a Group, such as "
                f"eq.dihedral(4).subgroup('C4'), got group={group!r}"
            )
        if not isinstance(self.constraint, Constraint):
            raise TypeError(
                f"{type(self).__name__} needs a Constraint, such as eq.Tied(), got "
                f"constraint={self.constraint!r}"
            )
        self.constraint.check(self)

    def ties_of(self, group: Group) -> dict[str, Tie]:
        """Return the tie of each full array to a group, by its name."""
        raise NotImplementedError

    @property
    def part_ties(self) -> dict[str, dict[str, Tie]]:
        """The tie of each part, by name of the full array and suffix of the part."""
        found: dict[str, dict[str, Tie]] = {}
        for suffix, group in self.constraint.parts(self.group).items():
            for name, tie in self.ties_of(group).items():
                found.setdefault(name, {})[suffix] = tie
        return found

    @property
    def ties(self) -> dict[str, Tie]:
        """The tie of each tied parameter by its name."""
        return {
            name + suffix: tie
            for name, ties in self.part_ties.items()
            for suffix, tie in ties.items()
        }

    @property
    def tables(self) -> dict[str, OrbitTable]:
        """The orbits of the layer's group on each full array."""
        return {name: tie.table for name, tie in self.ties_of(self.group).items()}

    def full_arrays(
        self, inits: Mapping[str, tuple[Initializer, tuple[int, ...]]], dtype: Any
    ) -> dict[str, jax.Array]:
        """Declare the layer's parameters and combine them into its full arrays.

        Args:
          inits: for every full array its initializer, and its shape behind the axes
            that the table ties.
          dtype: of the parameters.
        """
        parts = {
            name: {
                suffix: self._part(name, suffix, tie, *inits[name], dtype)
                for suffix, tie in ties.items()
            }
            for name, ties in self.part_ties.items()
        }
        extras = {
            name: self._extra(name, extra)
            for name, extra in self.constraint.extras(parts).items()
        }
        penalty = self.constraint.penalty(parts)
        if penalty is not None and not self.is_initializing():
            self.sow(  # once, however often the layer is called
                PENALTIES,
                "prior",
                penalty,
                reduce_fn=lambda before, now: now,
                init_fn=lambda: jnp.zeros(()),
            )
        return self.constraint.combine(parts, extras, self.tables)

    def read(self, variables: Mapping[tuple[str, str], jax.Array]):
        """Return the full arrays by name, given variables by collection and name."""
        parts = {
            name: {
                suffix: Part(variables["params", name + suffix], tie)
                for suffix, tie in ties.items()
            }
            for name, ties in self.part_ties.items()
        }
        extras = {
            name: variables[extra.collection, name]
            for name, extra in self.constraint.extras(parts).items()
        }
        return self.constraint.combine(parts, extras, self.tables)

    def write(self, full: Mapping[str, jax.Array]) -> dict[tuple[str, str], jax.Array]:
        """Return variables that make up full arrays, as nearly as they can."""
        parts = {
            name: {
                suffix: Part(value, ties[suffix])
                for suffix, value in self.constraint.absorb(
                    full[name], ties, self.tables[name]
                ).items()
            }
            for name, ties in self.part_ties.items()
        }
        variables = {
            ("params", name + suffix): part.value
            for name, each in parts.items()
            for suffix, part in each.items()
        }
        for name, extra in self.constraint.extras(parts).items():
            variables[extra.collection, name] = extra.value
        return variables

    def _part(self, name, suffix, tie, init, rest, dtype) -> Part:
        if self.has_variable("orbits", name + suffix):
            given = OrbitTable(None, **self.get_variable("orbits", name + suffix))
            tie = dataclasses.replace(tie, table=given)
        draw = kernels.tied_initializer(init, tie)
        scale = self.constraint.initial_scale(suffix)
        if scale != 1:
            draw = _scaled(draw, scale)
        shape = (tie.table.num_orbits, *rest)
        value = self.param(name + suffix, draw, shape, dtype)
        return Part(jnp.asarray(value), tie)

    def _extra(self, name: str, extra: Extra) -> jax.Array:
        if extra.collection == "params":
            return self.param(name, lambda key: extra.value)
        value = self.variable(extra.collection, name, lambda: extra.value).value
        if np.shape(value) != extra.value.shape:
            raise ValueError(
                f"{extra.collection} of {'/'.join((*self.path, name))} has shape "
                f"{np.shape(value)}, expected {extra.value.shape}"
            )
        return jnp.asarray(value)


def _scaled(init: Initializer, factor: float) -> Initializer:
    return lambda key, shape, dtype: factor * init(key, shape, dtype)
