"""The base of all layers with parameters tied along the orbits of a group."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from eqjax import kernels
from eqjax.constraints.base import Constraint, Extra, Part, Tied
from eqjax.constraints.collections import ORBITS, PARAMS, PENALTIES, PROBES
from eqjax.groups.closed import Symmetry
from eqjax.groups.group import Group
from eqjax.groups.text import page, settings_table
from eqjax.kernels.tied import Initializer, Table, Tie
from eqjax.ops.precision import check_dtype


class TiedModule(nn.Module, kw_only=True):
    """A module with parameters tied along the orbits of a group.

    Subclasses say in `ties_of` how each of their full arrays is tied to a group; the
    morphism needs to know no more about them.

    Where the variables hold a collection `orbits`, its tables take the place of those
    of `group`: the group is then data, and one compiled program serves all groups (see
    `eqjax.population.encoding`). Where they hold a collection `probes`, its arrays are
    added to the full arrays of the same names, so that a loss can be differentiated by
    these, whatever they are made of (see `eqjax.analysis.gradients`).

    Attributes:
      constraint: how the full arrays arise from the parameters.
    """

    # Fields that a morphism may change, or that do not change the function of a layer
    # beyond what the shapes of its parameters tell. A subclass adds its own.
    morphable: ClassVar[frozenset[str]] = frozenset(
        {
            "group",
            "constraint",
            "parametrization",
            "dtype",
            "param_dtype",
            "use_bias",
            "bias_init",
            "name",
            "parent",
        }
    )

    constraint: Constraint = Tied()

    def __post_init__(self) -> None:
        """Reject a name in place of a group, and a constraint that does not fit it."""
        super().__post_init__()
        group = getattr(self, "group", None)
        if not isinstance(group, Symmetry):
            raise TypeError(
                f"{type(self).__name__} needs a Group, such as "
                f"eq.dihedral(4).subgroup('C4'), got group={group!r}"
            )
        if not isinstance(self.constraint, Constraint):
            raise TypeError(
                f"{type(self).__name__} needs a Constraint, such as eq.Tied(), got "
                f"constraint={self.constraint!r}"
            )
        for name in ("dtype", "param_dtype"):
            check_dtype(name, getattr(self, name, None))
        if self.constraint.sums_over_elements and not isinstance(group, Group):
            raise ValueError(
                f"{type(self.constraint).__name__} sums over the elements of a Group, "
                f"such as eq.full_octahedral(), got {group!r}"
            )
        self.constraint.check(self)

    @nn.nowrap
    def _repr_html_(self) -> str:
        return page(*settings_table(self, without=("parent", "name")))

    def ties_of(self, group: Symmetry) -> dict[str, Tie]:
        """Return the tie of each full array to a group, by its name."""
        raise NotImplementedError

    def check_identity(self) -> None:
        """Raise ValueError unless some full arrays make the layer the identity."""
        raise ValueError(f"{type(self).__name__} cannot be the identity")

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
    def tables(self) -> dict[str, Table]:
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
            for name, extra in self.constraint.extras(parts, self.group).items()
        }
        tables = self.tables
        penalty = self.constraint.penalty(parts, extras, tables)
        if penalty is not None and not self.is_initializing():
            self.sow(  # once, however often the layer is called
                PENALTIES,
                "prior",
                penalty,
                reduce_fn=lambda before, now: now,
                init_fn=lambda: jnp.zeros(()),
            )
        full = self.constraint.combine(parts, extras, tables)
        return {name: self._probed(name, array) for name, array in full.items()}

    def read(
        self, variables: Mapping[tuple[str, str], jax.Array]
    ) -> dict[str, jax.Array]:
        """Return the full arrays by name, given variables by collection and name."""
        parts = {
            name: {
                suffix: Part(self._held(variables, name + suffix, tie), tie)
                for suffix, tie in ties.items()
            }
            for name, ties in self.part_ties.items()
        }
        extras = {
            name: self._given(variables, extra.collection, name)
            for name, extra in self.constraint.extras(parts, self.group).items()
        }
        return self.constraint.combine(parts, extras, self.tables)

    def _held(
        self, variables: Mapping[tuple[str, str], jax.Array], name: str, tie: Tie
    ) -> jax.Array:
        """Return a tied parameter: an index beyond its end would go unnoticed."""
        value = self._given(variables, PARAMS, name)
        if np.shape(value)[:1] != (tie.table.num_orbits,):
            raise ValueError(
                f"{PARAMS}/{name} of {type(self).__name__} over {self.group!r} has "
                f"{tie.table.num_orbits} orbits along its first axis, got shape "
                f"{np.shape(value)}"
            )
        return value

    def _given(
        self,
        variables: Mapping[tuple[str, str], jax.Array],
        collection: str,
        name: str,
    ) -> jax.Array:
        if (collection, name) not in variables:
            raise ValueError(
                f"the variables of {type(self).__name__} lack {collection}/{name}"
            )
        return variables[collection, name]

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
            (PARAMS, name + suffix): part.value
            for name, each in parts.items()
            for suffix, part in each.items()
        }
        for name, extra in self.constraint.extras(parts, self.group).items():
            variables[extra.collection, name] = extra.value
        return variables

    def _part(self, name, suffix, tie, init, rest, dtype) -> Part:
        if self.has_variable(ORBITS, name + suffix):
            arrays: Any = self.get_variable(ORBITS, name + suffix)
            tie = dataclasses.replace(tie, table=tie.numbered.of_data(arrays))
        draw = kernels.tied_initializer(init, tie)
        scale = self.constraint.initial_scale(suffix, self.group)
        if scale != 1:
            draw = _scaled(draw, scale)
        shape = (tie.table.num_orbits, *rest)
        value = self.param(name + suffix, draw, shape, dtype)
        return Part(jnp.asarray(value), tie)

    def _probed(self, name: str, full: jax.Array) -> jax.Array:
        """Add what the collection `probes` holds for a full array, if anything."""
        if not self.has_variable(PROBES, name):
            return full
        return full + jnp.asarray(self.get_variable(PROBES, name), full.dtype)

    def _extra(self, name: str, extra: Extra) -> jax.Array:
        if extra.collection == PARAMS:
            return self.param(name, lambda key: extra.value)
        value = self.variable(extra.collection, name, lambda: extra.value).value
        if np.shape(value) != extra.value.shape:
            raise ValueError(
                f"{extra.collection} of {'/'.join((*self.path, name))} has shape "
                f"{np.shape(value)}, expected {extra.value.shape}"
            )
        return jnp.asarray(value)


def _scaled(init: Initializer, factor: float) -> Initializer:
    return lambda key, shape, dtype: jax.tree.map(
        lambda drawn: factor * drawn, init(key, shape, dtype)
    )
