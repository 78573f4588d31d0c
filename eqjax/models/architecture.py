"""The genotype of a search: one subgroup of the ambient group per layer."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from eqjax.groups.checks import check_group, check_whole, several
from eqjax.groups.group import Group, difference
from eqjax.groups.html import Shaded
from eqjax.groups.text import Rows, page


@dataclasses.dataclass(frozen=True, repr=False)
class Architecture:
    """One group per layer, from input to output.

    Attributes:
      groups: subgroups of one ambient group, one per searchable layer.

    >>> from eqjax.groups import dihedral
    >>> str(Architecture.parse(dihedral(4), "D4 D4 C4 C1"))
    'D4 D4 C4 C1'
    """

    groups: tuple[Group, ...]

    def __post_init__(self):
        """Reject empty architectures and mixed ambient groups."""
        if isinstance(self.groups, str):
            raise TypeError("names of groups are read by Architecture.parse")
        own = several("groups", self.groups, "Groups, one per layer")
        if not own:
            raise ValueError("an architecture needs at least one layer")
        object.__setattr__(self, "groups", own)  # lists do not hash
        for layer, group in enumerate(self.groups):
            if not isinstance(group, Group):
                raise TypeError(f"layer {layer} needs a Group, got {group!r}")
            if group.ambient != self.groups[0].ambient:
                raise ValueError(
                    f"layer {layer} lives over {group.ambient!r}, layer 0 over "
                    f"{self.groups[0].ambient!r}; all need one ambient group"
                    f"{difference(group.ambient, self.groups[0].ambient)}"
                )

    @classmethod
    def uniform(cls, group: Group, layers: int) -> Architecture:
        """Return the architecture with the same group in every layer."""
        check_whole("layers", layers)
        return cls((group,) * layers)

    @classmethod
    def parse(cls, ambient: Group, names: str | Sequence[str]) -> Architecture:
        """Read group names, such as "D4 D4 C4", as subgroups of an ambient group.

        A family that several subgroups share, such as D2, stands for the first.
        """
        check_group("ambient", ambient)
        if not isinstance(names, Iterable):
            raise TypeError(f"names must be a string or several, got {names!r}")
        words = names.split() if isinstance(names, str) else names
        return cls(tuple(ambient.subgroup(word, 0) for word in words))

    @property
    def ambient(self) -> Group:
        """The group that all layers' groups are subgroups of."""
        return self.groups[0].ambient

    @property
    def names(self) -> tuple[str, ...]:
        """The groups' names, from input to output."""
        return tuple(group.name for group in self.groups)

    @property
    def shaded_names(self) -> tuple[str, ...]:
        """The names, for tables: the larger a group, the more color."""
        most = max(self.ambient.order, 2)
        return tuple(
            Shaded(group.name, -math.log(group.order, most)) for group in self.groups
        )

    @property
    def is_monotone(self) -> bool:
        """Tell whether no layer has more symmetry than the one before it."""
        return all(later <= group for group, later in itertools.pairwise(self.groups))

    @property
    def log_order(self) -> float:
        """How much symmetry it has: the sum of log |G| over the layers."""
        return sum(math.log(group.order) for group in self.groups)

    def contains(self, other: Architecture) -> bool:
        """Tell whether every layer has at least the symmetry of another's.

        >>> from eqjax.groups import dihedral
        >>> a, b = (Architecture.parse(dihedral(4), n) for n in ("D4 C4", "C4 C4"))
        >>> a.contains(b), b.contains(a)
        (True, False)
        """
        pairs = zip(self.groups, other.groups, strict=True)
        return all(smaller <= larger for larger, smaller in pairs)

    def replace(self, layer: int, group: Group) -> Architecture:
        """Return the architecture with another group in one layer."""
        groups = list(self.groups)
        groups[layer] = group
        return Architecture(tuple(groups))

    def __len__(self) -> int:
        return len(self.groups)

    def __str__(self) -> str:
        return " ".join(self.names)

    def __repr__(self) -> str:
        return f"Architecture({self})"

    def _repr_html_(self) -> str:
        layers = map(str, range(1, len(self) + 1))
        rows = [("layer", *layers), ("group", *self.shaded_names)]
        plural = "s" * (len(self) > 1)
        title = f"Architecture of {len(self)} layer{plural} over {self.ambient.name}"
        return page(title, Rows(list(zip(*rows, strict=True))))


def check_architecture(name: str, value: Any) -> None:
    """Raise TypeError unless an argument is an architecture."""
    if not isinstance(value, Architecture):
        raise TypeError(
            f"{name} must be an Architecture, such as "
            f'eq.Architecture.parse(eq.dihedral(4), "D4 C4"), got {value!r}'
        )


def enumerate_architectures(
    candidates: Sequence[Group], layers: int
) -> Iterator[Architecture]:
    """Yield every architecture whose groups do not grow with depth.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> groups = (D4, D4.subgroup("C4"))
    >>> [str(a) for a in enumerate_architectures(groups, layers=2)]
    ['D4 D4', 'D4 C4', 'C4 C4']
    """
    check_whole("layers", layers)
    candidates = several("candidates", candidates, "Groups")
    if not candidates:
        raise ValueError("candidates are empty; there is nothing to yield")
    for groups in itertools.product(candidates, repeat=layers):
        architecture = Architecture(groups)
        if architecture.is_monotone:
            yield architecture


def random_architecture(
    rng: np.random.Generator, candidates: Sequence[Group], layers: int
) -> Architecture:
    """Draw uniformly one of the architectures that `enumerate_architectures` yields.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> rng = np.random.default_rng(0)
    >>> random_architecture(rng, D4.subgroups, layers=4).is_monotone
    True
    """
    if not isinstance(rng, np.random.Generator):
        raise TypeError(
            f"rng must be a Generator, such as np.random.default_rng(0), got {rng!r}"
        )
    check_whole("layers", layers)
    candidates = several("candidates", candidates, "Groups")
    if not candidates:
        raise ValueError("candidates are empty; there is nothing to draw from")
    for group in candidates:
        check_group("candidates", group)
    # ways[k][i]: how many ways there are to continue for k layers after candidate i.
    below = [[later <= group for later in candidates] for group in candidates]
    ways = [np.ones(len(candidates))]
    for _ in range(layers - 1):
        ways.append(np.array(below) @ ways[-1])
    chosen: list[int] = []
    for remaining in reversed(ways):
        weights = remaining * (below[chosen[-1]] if chosen else 1)
        chosen.append(int(rng.choice(len(candidates), p=weights / weights.sum())))
    return Architecture(tuple(candidates[i] for i in chosen))
