"""Finite groups of a pixel grid, their subgroups and their names.

A group is a set of orthogonal matrices on a line, a plane or a volume. The matrices act
on offsets in array axis order, that is (row, column) in the plane. Signed permutations
are exact: they move pixels onto pixels. In the plane there are rotations by other
angles as well, which pixels follow approximately; `exact` tells them apart. A subgroup
keeps the numbering of its ambient group: `elements` are numbers of ambient elements,
and element 0 is always the identity.

Names are those of the field: C1, C4, C16, D1, D8 on a line and in the plane,
Schoenflies symbols (C4v, Td, Oh, ...) in a volume. Where several subgroups share one,
the directions of their rotation axes and normals of reflections tell them apart,
written in the array axes i, j, k, or as angles from axis i towards axis j: `D1:i` flips
axis 0, `D1:i+j` swaps the axes with a sign, `D1:22.5°` reflects along that direction,
and `C4:k` rotates about axis 2.
"""

from __future__ import annotations

import difflib
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np

from eqjax.groups import diagram, naming
from eqjax.groups.matrices import (
    check_orthogonal,
    generate,
    is_exact,
    key,
    product_table,
)
from eqjax.groups.text import Text


class Group:
    """A finite group of orthogonal matrices inside its ambient group.

    Args:
      matrices: all elements, of shape (order, d, d) with d in 1, 2, 3: signed
        permutations, and in the plane rotations and reflections by fractions of a turn.
        The identity is moved to the front; the rest keep their order.

    Raises:
      ValueError: an element is none of these, is given twice, or a product or inverse
        of elements is missing.

    Attributes:
      ambient: the group whose elements number the fiber of every field.
      elements: sorted element numbers in the ambient group, identity first.
      matrices: (order, d, d), one matrix per element: integers where all are exact.
      exact: for each element, whether it moves pixels onto pixels.

    Groups compare by value: `==` and `hash` look at matrices and elements, and
    `<=`, `<` mean "is a subgroup of".

    >>> from eqjax.groups import dihedral
    >>> D4 = dihedral(4)
    >>> [H.name for H in D4.subgroups][:4]
    ['D4', 'C4', 'D2:i', 'D2:i+j']
    >>> D4.subgroup("C4") < D4
    True
    >>> Group([[[1, 0], [0, 1]], [[0, 1], [1, 0]]]).element_names  # two matrices
    ('identity', 'reflection i-j')
    """

    ambient: Group
    elements: tuple[int, ...]

    def __init__(self, matrices: np.ndarray | Sequence):
        array = check_orthogonal(matrices)
        identity = np.eye(array.shape[-1])
        first = [m for m in array if np.array_equal(m, identity)]
        rest = [m for m in array if not np.array_equal(m, identity)]
        if not first:
            raise ValueError("a group needs the identity; pass it among the matrices")
        self.ambient = self
        self.elements = tuple(range(len(array)))
        self._all_matrices = _frozen(np.stack(first + rest))
        self._hash = hash((key(self._all_matrices), self.elements))
        self._subgroup_cache = {self.elements: self}
        self._full_product = _frozen(product_table(self._all_matrices))

    @classmethod
    def from_generators(cls, generators: np.ndarray | Sequence) -> Group:
        """Build the ambient group that the given matrices generate.

        Args:
          generators: of shape (count, d, d) or one (d, d) matrix.

        Returns:
          The group with itself as ambient group, identity first.
        """
        return cls(generate(generators))

    def _within(self, elements: Iterable[int]) -> Group:
        """Return the subgroup with these ambient element numbers (known to close)."""
        ambient = self.ambient
        numbers = tuple(sorted(elements))
        if numbers not in ambient._subgroup_cache:
            group = object.__new__(Group)
            group.ambient = ambient
            group.elements = numbers
            group._hash = hash((key(ambient._all_matrices), numbers))
            ambient._subgroup_cache[numbers] = group
        return ambient._subgroup_cache[numbers]

    # --- tables -------------------------------------------------------------------

    @property
    def order(self) -> int:
        """Number of elements."""
        return len(self.elements)

    @property
    def dimension(self) -> int:
        """Number of spatial axes that the matrices act on."""
        return self.ambient._all_matrices.shape[-1]

    @cached_property
    def matrices(self) -> np.ndarray:
        """(order, d, d), integers where all are exact; matrices[0] is the identity."""
        return _frozen(
            check_orthogonal(self.ambient._all_matrices[list(self.elements)])
        )

    @cached_property
    def exact(self) -> tuple[bool, ...]:
        """For each element, whether it moves pixels onto pixels.

        >>> from eqjax.groups import cyclic
        >>> cyclic(8).exact
        (True, False, True, False, True, False, True, False)
        """
        return tuple(map(is_exact, self.matrices))

    @cached_property
    def product(self) -> np.ndarray:
        """(order, order) integers; product[u, v] is the position of uv."""
        position = {element: i for i, element in enumerate(self.elements)}
        table = self.ambient._full_product[np.ix_(self.elements, self.elements)]
        return _frozen(np.vectorize(position.__getitem__)(table))

    @cached_property
    def inverse(self) -> np.ndarray:
        """(order,) integers; inverse[u] is the position of the inverse of u."""
        return _frozen(np.argmax(self.product == 0, axis=1))

    @cached_property
    def exact_subgroup(self) -> Group:
        """The elements that move pixels onto pixels.

        >>> from eqjax.groups import dihedral
        >>> dihedral(8).exact_subgroup
        Group(D4:i < D8)
        """
        return self.keeping(is_exact)

    @cached_property
    def alone(self) -> Group:
        """The same elements, as an ambient group of their own."""
        return self if self.ambient is self else Group(self.matrices)

    # --- lattice ------------------------------------------------------------------

    @cached_property
    def subgroups(self) -> tuple[Group, ...]:
        """All subgroups, largest first, this group among them."""
        if self.ambient is not self:
            return tuple(H for H in self.ambient.subgroups if self >= H)
        cyclic = {self._closure((u,)) for u in range(self.order)}
        found = set(cyclic)
        frontier = list(cyclic)
        while frontier:
            H = frontier.pop()
            for C in cyclic:
                if not C <= H and (joined := self._closure(H | C)) not in found:
                    found.add(joined)
                    frontier.append(joined)
        groups = [self._within(elements) for elements in found]
        return tuple(sorted(groups, key=_lattice_order))

    @cached_property
    def covers(self) -> tuple[Group, ...]:
        """The maximal proper subgroups, largest first."""
        proper = self.subgroups[1:]
        return tuple(H for H in proper if not any(H < K for K in proper))

    def chains(self) -> Iterator[tuple[Group, ...]]:
        """Yield every maximal chain of subgroups from this group to the trivial one."""
        if self.order == 1:
            yield (self,)
        for H in self.covers:
            for tail in H.chains():
                yield (self, *tail)

    @cached_property
    def conjugacy_classes(self) -> tuple[tuple[Group, ...], ...]:
        """The subgroups, sorted into classes under conjugation by this group."""
        classes: dict[frozenset, list[Group]] = {}
        for H in self.subgroups:
            orbit = frozenset(H.conjugate(u).elements for u in self.elements)
            classes.setdefault(orbit, []).append(H)
        return tuple(tuple(members) for members in classes.values())

    def conjugate(self, u: int) -> Group:
        """Return u H u^-1 for the ambient element number u."""
        table, inverse = self.ambient._full_product, self.ambient.inverse
        return self._within(table[table[u, h], inverse[u]] for h in self.elements)

    def is_normal_in(self, group: Group) -> bool:
        """Tell whether this subgroup equals all its conjugates by `group`."""
        return self <= group and all(self.conjugate(u) == self for u in group.elements)

    @property
    def smallest(self) -> Group:
        """The subgroup of the ambient group that holds the identity alone."""
        return self.ambient._within((0,))

    def keeping(self, holds: Callable[[np.ndarray], bool]) -> Group:
        """Return the subgroup of the elements whose matrix leaves something as it is.

        Args:
          holds: takes a (d, d) matrix; true for the identity, products and inverses of
            matrices that it is true for.
        """
        pairs = zip(self.elements, self.matrices, strict=True)
        return self.generated_by(u for u, matrix in pairs if holds(matrix))

    def meet(self, *others: Group) -> Group:
        """Return the intersection with other subgroups of the same ambient group."""
        common = set(self.elements)
        for other in others:
            self._check_same_ambient(other)
            common &= set(other.elements)
        return self._within(common)

    def join(self, *others: Group) -> Group:
        """Return the smallest subgroup that contains this one and the others."""
        together = set(self.elements)
        for other in others:
            self._check_same_ambient(other)
            together |= set(other.elements)
        return self.generated_by(together)

    def generated_by(self, elements: Iterable[int]) -> Group:
        """Return the smallest subgroup that contains these ambient element numbers."""
        return self._within(self.ambient._closure(elements))

    def index(self, subgroup: Group) -> int:
        """Return [self : subgroup], the number of cosets of a subgroup."""
        if not subgroup <= self:
            raise ValueError(
                f"{subgroup!r} is not a subgroup of {self!r}"
                f"{difference(subgroup.ambient, self.ambient)}"
            )
        return self.order // subgroup.order

    def lattice(self) -> str:
        """Draw the subgroups, one a line, each beside its maximal subgroups."""
        width = max(len(H.name) for H in self.subgroups)
        return Text(
            "\n".join(
                f"{H.order:3d}  {H.name:<{width}}  {'> ' if H.covers else ''}"
                f"{', '.join(K.name for K in H.covers)}".rstrip()
                for H in self.subgroups
            )
        )

    def _repr_html_(self) -> str:
        return diagram.lattice(self)

    def _closure(self, elements: Iterable[int]) -> frozenset[int]:
        generators = tuple(elements)
        found = {0}
        frontier = [0]
        while frontier:
            u = frontier.pop()
            for g in generators:
                if (v := int(self._full_product[g, u])) not in found:
                    found.add(v)
                    frontier.append(v)
        return frozenset(found)

    def _check_same_ambient(self, other: Group) -> None:
        if not isinstance(other, Group):
            raise TypeError(f"{other!r} must be a Group, such as {self!r}")
        if self.ambient != other.ambient:
            raise ValueError(
                f"{self!r} and {other!r} live in different ambient groups: "
                f"{self.ambient!r} and {other.ambient!r}"
                f"{difference(self.ambient, other.ambient)}"
            )

    # --- names --------------------------------------------------------------------

    @cached_property
    def family(self) -> str:
        """The type of the group without its direction, such as C4 or D1."""
        return naming.family(self.matrices)

    @cached_property
    def axes(self) -> tuple[str, ...]:
        """Rotation axes and normals of reflections, the principal ones first."""
        return naming.axes(self.matrices)

    @cached_property
    def name(self) -> str:
        """The name within the ambient group; `ambient.subgroup` parses it back."""
        kin = [H for H in self.ambient.subgroups if H.family == self.family]
        if len(kin) == 1:
            return self.family
        length = next(
            n for n in itertools.count(1) if len({H.axes[:n] for H in kin}) == len(kin)
        )
        return f"{self.family}:{','.join(self.axes[:length])}"

    @cached_property
    def element_names(self) -> tuple[str, ...]:
        """What every element does, in the order of `elements`.

        A reflection is named by its normal, as in the names of groups.

        >>> from eqjax.groups import dihedral
        >>> D4 = dihedral(4)
        >>> D4.element_names[1], D4.element_names[4]
        ('rotation by 90°', 'reflection j')
        """
        return tuple(naming.element(matrix) for matrix in self.matrices)

    def subgroup(
        self, name: str, index: int | None = None, *, axis: str | None = None
    ) -> Group:
        """Return the subgroup of this name.

        Args:
          name: a full name such as "D1:i+j", or a family such as "D1"; in a volume a
            Hermann-Mauguin symbol, such as "4/mmm", may stand for it. Where several
            subgroups share the family, the first in the order of `subgroups` is
            meant, with a warning, unless `index` or `axis` picks one.
          index: which of the family, in the order of `subgroups`.
          axis: directions as in the name: subgroup("D1", axis="i+j").

        Raises:
          ValueError: there is no such subgroup; the message names the nearest ones.
        """
        if not isinstance(name, str):
            raise TypeError(f"name must be a string, such as 'C4', got {name!r}")
        if isinstance(index, str):
            raise TypeError(f"index is a number; for a direction pass axis={index!r}")
        if self.dimension == 3:
            family, colon, axes = name.partition(":")
            name = naming.HERMANN_MAUGUIN.get(family, family) + colon + axes
        wanted = name if axis is None else f"{name}:{axis}"
        if self.dimension == 2:
            wanted = naming.with_angle(wanted)
        exact = [H for H in self.subgroups if H.name == wanted]
        kin = exact or [H for H in self.subgroups if H.family == wanted]
        if not kin:
            known = [H.name for H in self.subgroups]
            close = difflib.get_close_matches(wanted, known, n=3, cutoff=0.3)
            raise ValueError(
                f"{self.name} has no subgroup {wanted!r}; "
                f"nearest: {', '.join(close) or 'none'}; all: {', '.join(known)}"
            )
        if index is not None and not 0 <= index < len(kin):
            raise ValueError(
                f"{self.name} has {len(kin)} subgroups {wanted!r}, so index must be "
                f"in 0..{len(kin) - 1}, got {index}"
            )
        if index is None and len(kin) > 1:
            warnings.warn(
                f"{self.name} has {len(kin)} subgroups {wanted}: "
                f"{', '.join(H.name for H in kin)}; taking the first. Name one, or "
                f"pass index=0 to {len(kin) - 1}",
                stacklevel=2,
            )
        return kin[index or 0]

    # --- Python protocols -----------------------------------------------------------

    def __contains__(self, element: int) -> bool:
        return element in self.elements

    def __le__(self, other: Group) -> bool:
        if not isinstance(other, Group):
            return NotImplemented
        return self.ambient == other.ambient and set(self.elements) <= set(
            other.elements
        )

    def __lt__(self, other: Group) -> bool:
        if not isinstance(other, Group):
            return NotImplemented
        return self <= other and self.order < other.order

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Group):
            return NotImplemented
        return self is other or (
            self._hash == other._hash
            and self.elements == other.elements
            and key(self.ambient._all_matrices) == key(other.ambient._all_matrices)
        )

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple:  # a hash does not survive into another process
        return _restore, (self.ambient._all_matrices, self.elements)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        inside = "" if self is self.ambient else f" < {self.ambient.family}"
        return f"Group({self.name}{inside})"


def difference(a: object, b: object) -> str:
    """Return what tells two groups apart, to go on with in a message; "" if nothing.

    Groups of one name may have other matrices, or the same in another order.
    """
    if not (isinstance(a, Group) and isinstance(b, Group)):
        return ""
    if a == b or a.order != b.order or a.dimension != b.dimension:
        return ""
    unlike = np.any(a.matrices != b.matrices, axis=(1, 2))
    if not unlike.any():
        return ""
    u = int(np.argmax(unlike))
    same = set(map(key, a.matrices)) == set(map(key, b.matrices))
    kind = "the same matrices in another order" if same else "other matrices"
    return (
        f" ({kind}: element {u} is {a.matrices[u].tolist()} in the one and "
        f"{b.matrices[u].tolist()} in the other; make the group once and use it "
        "everywhere)"
    )


def _restore(matrices: np.ndarray, elements: tuple[int, ...]) -> Group:
    return Group(matrices)._within(elements)


def _frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def _lattice_order(group: Group) -> tuple:
    directions = tuple(naming.rank(axis) for axis in group.axes)
    return (-group.order, group.family, directions, group.elements)
