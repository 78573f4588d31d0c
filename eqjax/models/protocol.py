"""What a searchable model offers, beside being a linen module.

Any linen model that holds layers of eqjax can be trained, relaxed, measured and
stacked as it is. To be searched, discretized or collapsed, it also says which of its
layers have a group, and returns itself with other groups. `EquivariantCNN` is such a
model; yours is one where it has these members:

    class Mine(nn.Module):
        architecture: eq.Architecture
        constraint: eq.Constraint = eq.Tied()

        layer_names = ("stem", "head")

        @nn.compact
        def __call__(self, x, *, train=False):
            stem, head = self.architecture.groups
            x = nn.relu(eq.LiftingConv(8, 3, group=stem, name="stem")(x))
            return eq.InvariantHead(10, group=head, name="head")(x)

        def with_groups(self, groups):
            chosen = tuple(groups[(name,)] for name in self.layer_names)
            plain = {"architecture": eq.Architecture(chosen), "constraint": eq.Tied()}
            return self.clone(**plain)

        def symmetry(self, space):
            return self.architecture.groups[0].meet(*self.architecture.groups)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

from eqjax.groups.group import Group
from eqjax.models.architecture import Architecture


@runtime_checkable
class SearchableModel(Protocol):
    """A linen module, called as model(x, train=...), whose groups can be chosen.

    Attributes:
      architecture: the group of every searchable layer, in the order of `layer_names`.
    """

    architecture: Architecture

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The name of every searchable layer, as in its path among the variables."""
        ...

    def clone(self, **changes: Any) -> Self:
        """Return the model with some attributes changed, as every linen module does."""
        ...

    def with_groups(self, groups: Mapping[tuple[str, ...], Group]) -> Self:
        """Return the plain network, tied to a group for the path of every layer.

        Every layer is tied: there are no constraints left. For `read_off`, which
        decides one at a time, layers that it is given no group for stay as they are.
        """
        ...

    def symmetry(self, space: int | Sequence[int]) -> Group:
        """Return the group to which outputs stay invariant however it is trained.

        Args:
          space: points per spatial axis of the input.
        """
        ...
