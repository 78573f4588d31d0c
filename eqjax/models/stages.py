"""What networks share: a group and a constraint for each layer, or for each stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import flax.linen as nn
import jax

from eqjax.constraints.base import Constraint, Tied
from eqjax.groups.checks import check_whole, several, whole_numbers
from eqjax.groups.group import Group
from eqjax.groups.text import Rows, page, settings_table
from eqjax.layers.pooling import avg_pool
from eqjax.models.architecture import Architecture, check_architecture
from eqjax.ops.precision import check_dtype
from eqjax.ops.windows import Window, sizes, window

MOMENTUM = 0.9  # of running statistics, as the authors of the paper have it


def check_constraint(value: Any) -> None:
    """Raise TypeError unless an argument is a constraint, or a sequence of some."""
    if isinstance(value, Constraint):
        return
    for each in several("constraint", value, "Constraints, or one, such as eq.Tied()"):
        if not isinstance(each, Constraint):
            raise TypeError(
                f"constraint must hold Constraints, such as eq.Tied(), got {each!r}"
            )


class WithGroups:
    """What networks that take a group per entry of their architecture have in common.

    For linen modules with the fields `architecture` and `constraint`, the latter one
    constraint or one for each entry.
    """

    architecture: Architecture
    constraint: Constraint | Sequence[Constraint]
    clone: Callable[..., Self]

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The name of every entry: the paths of its layers begin with it."""
        raise NotImplementedError

    def windows(self, space: tuple[int, ...]) -> list[Window]:
        """Return the windows that decide which symmetry a size of images keeps."""
        raise NotImplementedError

    @property
    def layer_settings(self) -> dict[str, Sequence[Any]]:
        """What a table of the entries shows besides their groups, by its heads."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        """Return a table of the layers, and one of the other settings."""
        columns = {
            "layer": self.layer_names,
            "group": self.architecture.shaded_names,
            **{head: map(str, own) for head, own in self.layer_settings.items()},
        }
        body = zip(*columns.values(), strict=True)
        title, settings = settings_table(
            self, without=("architecture", "parent", "name")
        )
        title += f" over {self.architecture.ambient.name}"
        return page(title, Rows([tuple(columns), *body]), settings)

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """The constraint of every entry."""
        if isinstance(self.constraint, Constraint):
            return (self.constraint,) * len(self.architecture)
        return tuple(self.constraint)

    def with_groups(self, groups: Mapping[tuple[str, ...], Group]) -> Self:
        """Return the network with plain layers, tied to a group for the path of each.

        An entry gets what the groups of its layers have in common. Those that are left
        out keep their group and their constraint.
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

        Of the elements that move pixels onto pixels: the network follows others, as a
        rotation by 45°, approximately.

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
        return kept.exact_subgroup


class StagedModel(WithGroups, nn.Module):
    """A network whose stages have a group each; subclasses say which stages there are.

    All layers of a stage are submodules of one of its name. Every stage of `features`
    but the first reads a field of half the size.
    """

    architecture: Architecture
    constraint: Constraint | Sequence[Constraint] = Tied()
    features: tuple[int, ...] = (8, 16, 32)
    kernel_size: int = 3
    dtype: Any = None

    def __post_init__(self) -> None:
        """Check that there is a group, and a constraint, for every stage."""
        check_architecture("architecture", self.architecture)
        check_whole("kernel_size", self.kernel_size)
        check_constraint(self.constraint)
        check_dtype("dtype", self.dtype)
        object.__setattr__(self, "features", whole_numbers("features", self.features))
        if not isinstance(self.constraint, Constraint):
            object.__setattr__(self, "constraint", tuple(self.constraint))
        super().__post_init__()
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {self.kernel_size}")
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

    def windows(self, space: tuple[int, ...]) -> list[Window]:
        """Return the windows before all stages but the first."""
        found: list[Window] = []
        for _ in self.features[1:]:
            found.append(halving(found[-1].output_size if found else space))
        return found

    def settings(self, stage: int) -> dict[str, Any]:
        """Return what all convolutions of a stage share."""
        return {
            "group": self.architecture.groups[stage],
            "constraint": self.constraints[stage],
            "dtype": self.dtype,
        }


def norm_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a batch norm behind a convolution with these.

    Args:
      settings: group, dtype and constraint; a norm is always tied.
    """
    kept = {name: settings[name] for name in ("group", "dtype")}
    return {**kept, "momentum": MOMENTUM}


def halving(space: tuple[int, ...], *, fitted: bool = True) -> Window:
    """Return the window that halves a grid.

    Args:
      space: points per axis.
      fitted: keep all symmetries: even sides by windows of 2 points, odd ones by 3; by
        the size of a side alone, so that exchanging axes exchanges windows. Else 3
        points with padding 1 on all, which breaks the symmetry on even sizes.

    Raises:
      ValueError: a size is symbolic.
    """
    if not all(isinstance(n, int) for n in space):
        raise ValueError(
            f"pooling windows are chosen by the size of the field, got {space}; "
            "export one program per size, with a symbolic batch"
        )
    even = [fitted and n % 2 == 0 for n in space]
    return window(
        space, [2 if e else 3 for e in even], 2, [0 if e else 1 for e in even]
    )


def halve(x: jax.Array) -> jax.Array:
    """Average a field (batch, *space, fiber, channels) over windows of `halving`."""
    w = halving(x.shape[1:-2])
    return avg_pool(x, w.taps, w.strides, w.padding)
