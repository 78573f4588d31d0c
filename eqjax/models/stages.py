"""What networks of stages share: a group and a constraint for each stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import flax.linen as nn
import jax

from eqjax.constraints.base import Constraint, Tied
from eqjax.groups.group import Group
from eqjax.layers.pooling import avg_pool
from eqjax.models.architecture import Architecture
from eqjax.ops.windows import Window, sizes, window

MOMENTUM = 0.9  # of running statistics, as that of the backbone of the paper


class StagedModel(nn.Module):
    """A network whose stages have a group each; subclasses say which stages there are.

    All layers of a stage are submodules of one of its name.
    """

    architecture: Architecture
    constraint: Constraint | Sequence[Constraint] = Tied()
    dtype: Any = None

    def __post_init__(self) -> None:
        """Check that there is a group, and a constraint, for every stage."""
        if not isinstance(self.constraint, Constraint):
            object.__setattr__(self, "constraint", tuple(self.constraint))
        super().__post_init__()
        names = self.layer_names
        if len(self.architecture) != len(names):
            raise ValueError(
                f"{type(self).__name__} has the stages {', '.join(names)}, got "
                f"{len(self.architecture)} groups: {self.architecture}"
            )
        if len(self.constraints) != len(names):
            raise ValueError(
                f"constraint must be one, or one for each of the {len(names)} stages, "
                f"got {len(self.constraints)}"
            )

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The name of every stage, in the order of the architecture."""
        raise NotImplementedError

    def windows(self, space: tuple[int, ...]) -> list[Window]:
        """Return the strided windows for images of a size, in their order."""
        raise NotImplementedError

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """The constraint of every stage."""
        if isinstance(self.constraint, Constraint):
            return (self.constraint,) * len(self.architecture)
        return tuple(self.constraint)

    def settings(self, stage: int) -> dict[str, Any]:
        """Return what all layers of a stage share."""
        return {
            "group": self.architecture.groups[stage],
            "constraint": self.constraints[stage],
        }

    def with_groups(self, groups: Mapping[tuple[str, ...], Group]) -> Self:
        """Return the network with plain layers, tied to a group for the path of each.

        A stage gets what the groups of its layers have in common. Stages without any
        stay as they are.
        """
        chosen, constraints = [], []
        for name, own, constraint in zip(
            self.layer_names, self.architecture.groups, self.constraints, strict=True
        ):
            found = [H for path, H in groups.items() if path[0] == name]
            chosen.append(found[0].meet(*found[1:]) if found else own)
            constraints.append(Tied() if found else constraint)
        alike = all(constraint == Tied() for constraint in constraints)
        return self.clone(
            architecture=Architecture(tuple(chosen)),
            constraint=Tied() if alike else tuple(constraints),
        )

    def symmetry(self, space: int | Sequence[int]) -> Group:
        """Return the group that the network stays equivariant to, however trained.

        Args:
          space: sides of the images, or one integer for all.
        """
        kept = self.architecture.ambient
        for constraint, group in zip(
            self.constraints, self.architecture.groups, strict=True
        ):
            kept = kept.meet(constraint.symmetry(group))
        for each in self.windows(sizes(space, kept.dimension)):
            kept = each.symmetry(kept)
        return kept


def halving(space: tuple[int, ...]) -> Window:
    """Return the window that halves a grid and keeps all of its symmetries.

    Even sides by windows of 2 points, odd ones by 3; by the size of a side alone, so
    that exchanging axes exchanges windows.

    Raises:
      ValueError: a size is symbolic.
    """
    if not all(isinstance(n, int) for n in space):
        raise ValueError(
            f"windows are chosen by the size of the field, got {space}; export one "
            "program per size, with a symbolic batch"
        )
    even = [n % 2 == 0 for n in space]
    return window(
        space, [2 if e else 3 for e in even], 2, [0 if e else 1 for e in even]
    )


def halve(x: jax.Array) -> jax.Array:
    """Average a field (batch, *space, fiber, channels) over windows of `halving`."""
    w = halving(x.shape[1:-2])
    return avg_pool(x, w.taps, w.strides, w.padding)
