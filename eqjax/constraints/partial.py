"""Partial group convolution: a learned distribution over output group elements."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp

from eqjax.constraints.base import Constraint, Extra, Extras, Parts, output_elements
from eqjax.constraints.collections import PARAMS
from eqjax.groups.group import Group
from eqjax.kernels.tied import Table


@dataclasses.dataclass(frozen=True)
class PartialGroup(Constraint):
    """Partial group convolution over a finite group (Romero and Lohit 2022).

    A learned distribution p over the output group elements weighs what each of them
    gets: K(y, h, g) = n p(g) K_tied(y, h, g) with n elements. Uniform at the start, and
    then equivariant; an element of probability zero is left out. The group is finite,
    so the expectation over p is summed, where the authors draw samples of it. A norm
    per fiber element behind it, as in the network `paper`, takes the weights out again.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> conv = eq.GroupConv(8, 3, group=D4, constraint=PartialGroup())
    """

    source: ClassVar[str] = "Romero and Lohit 2022"
    per_output_element: ClassVar[bool] = True
    undone_by_element_norm: ClassVar[bool] = True

    def symmetry(self, group: Group) -> Group:
        """Return the trivial group."""
        return group.smallest

    def extras(self, parts: Parts, group: Group) -> dict[str, Extra]:
        """Return the logits of the distribution, (fiber_out,)."""
        del group
        zeros = jnp.zeros(output_elements(parts), jnp.float32)
        return {"element_logits": Extra(PARAMS, zeros)}

    def combine(
        self, parts: Parts, extras: Extras, tables: Mapping[str, Table]
    ) -> dict[str, jax.Array]:
        """Return the tied array, weighted by output group element."""
        del tables
        probability = jax.nn.softmax(extras["element_logits"])
        weight = probability.size * probability
        return {name: each[""].scaled_by_output(weight) for name, each in parts.items()}
