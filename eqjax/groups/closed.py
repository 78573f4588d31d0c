"""Closed subgroups of O(3) and O(2): those about a point, infinite ones among them.

They are given by elements that generate them: what a rotation by one radian leaves as
it is, every rotation about the same axis does, as its powers come near to all of them.
So nothing need be integrated, and a tensor is invariant under a group exactly where it
is so under a few matrices.

The groups of space have their principal axis along k, the third array axis, and the
next one along i, as in the tables of point groups; those of the plane reflect along j.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from eqjax.groups import html
from eqjax.groups.angles import planar
from eqjax.groups.group import Group
from eqjax.groups.naming import HERMANN_MAUGUIN
from eqjax.groups.standard import dihedral, full_octahedral

_CLOSE = 1e-9
_NAMES = {"Cinf": "C∞", "Dinf": "D∞", "K": "SO(3)", "Kh": "O(3)"}
_INFINITE_MAUGUIN = {"∞": "C∞", "∞m": "C∞v", "∞/m": "C∞h", "∞2": "D∞", "∞/mm": "D∞h"}


@dataclasses.dataclass(frozen=True)
class ClosedGroup:
    """A closed subgroup of O(3) or O(2) with a name.

    Compares as `Group` does, with which it mixes: `<=` and `<` mean "is a subgroup of".

    Attributes:
      name: Schoenflies symbol, such as "D4h", or "O(3)", "SO(3)", "C∞v"; in the plane
        "O(2)", "SO(2)", "D5".
      generators: (count, d, d) matrices, whose products come near to every element.
      order: number of elements, which may be infinite.

    >>> O3 = orthogonal()
    >>> O3.subgroup("Cinfv")
    ClosedGroup(C∞v)
    >>> O3.subgroup("C∞v") < O3.subgroup("D∞h") < O3
    True
    >>> O3.subgroup("C4v") < O3.subgroup("C∞v"), O3.subgroup("O") < O3.subgroup("Th")
    (True, False)
    """

    name: str
    generators: np.ndarray = dataclasses.field(repr=False, compare=False)
    order: float = dataclasses.field(repr=False, compare=False)
    _holds: Callable[[np.ndarray], bool] = dataclasses.field(repr=False, compare=False)
    _draw: Callable[[np.random.Generator, int], np.ndarray] = dataclasses.field(
        repr=False, compare=False
    )

    @property
    def dimension(self) -> int:
        """Number of spatial axes that the matrices act on."""
        return self.generators.shape[-1]

    @property
    def ambient(self) -> ClosedGroup:
        """O(3), or O(2)."""
        return orthogonal(self.dimension)

    @property
    def smallest(self) -> ClosedGroup:
        """The group that holds the identity alone."""
        return self.ambient.subgroups[-1]

    @property
    def family(self) -> str:
        """The name."""
        return self.name

    @functools.cached_property
    def subgroups(self) -> tuple[ClosedGroup, ...]:
        """All subgroups that have a name here, largest first, this one among them."""
        named = _named() if self.dimension == 3 else _named_in_plane()
        return tuple(H for H in named if self >= H)

    @functools.cached_property
    def matrices(self) -> np.ndarray:
        """(order, d, d), all elements of a finite group, the identity first."""
        if math.isinf(self.order):
            raise ValueError(f"{self.name} has no end of elements")
        return _closure(self.generators)

    def subgroup(self, name: str) -> ClosedGroup:
        """Return the subgroup of this name.

        Args:
          name: Schoenflies or Hermann-Mauguin symbol; "inf" may stand for "∞".

        Raises:
          ValueError: there is no such subgroup; the message names the nearest ones.
        """
        if not isinstance(name, str):
            raise TypeError(f"name must be a string, such as 'C4v', got {name!r}")
        plain = name.replace("inf", "∞")
        wanted = {**_NAMES, **HERMANN_MAUGUIN, **_INFINITE_MAUGUIN}.get(plain, plain)
        known = {H.name: H for H in self.subgroups}
        if wanted not in known:
            close = difflib.get_close_matches(wanted, known, n=3, cutoff=0.3)
            raise ValueError(
                f"{self.name} has no subgroup {name!r} with its axes along "
                f"{'k and i' if self.dimension == 3 else 'j'}; "
                f"nearest: {', '.join(close) or 'none'}; all: {', '.join(known)}"
            )
        return known[wanted]

    def meet(self, *others: ClosedGroup) -> ClosedGroup:
        """Return the largest subgroup with a name that all of them contain."""
        return next(H for H in self.subgroups if all(H <= K for K in others))

    def keeping(self, holds: Callable[[np.ndarray], bool]) -> ClosedGroup:
        """Return the largest subgroup with a name whose generators keep something.

        Args:
          holds: as for `Group.keeping`.
        """
        return next(H for H in self.subgroups if all(map(holds, H.generators)))

    def sample(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Return (count, d, d) elements, drawn uniformly.

        >>> SO3 = orthogonal().subgroup("SO(3)")
        >>> matrices = SO3.sample(np.random.default_rng(0), 5)
        >>> np.linalg.det(matrices).round(6).tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0]
        """
        return self._draw(rng, count)

    def contains(self, matrix: np.ndarray) -> bool:
        """Tell whether an orthogonal (d, d) matrix is an element."""
        return self._holds(np.asarray(matrix, float))

    def __ge__(self, other: object) -> bool:
        if isinstance(other, Group):
            same = other.dimension == self.dimension
            return same and all(map(self.contains, other.matrices))
        if not isinstance(other, ClosedGroup):
            return NotImplemented
        same = other.dimension == self.dimension
        return same and all(map(self.contains, other.generators))

    def __gt__(self, other: object) -> bool:
        return self.__ge__(other) and not self <= other

    def __le__(self, other: object) -> bool:
        if isinstance(other, Group):
            matrices = finite_matrices(self)
            if matrices is None:
                return False
            known = {m.tobytes() for m in other.matrices}
            return all(m.tobytes() in known for m in matrices)
        if not isinstance(other, ClosedGroup):
            return NotImplemented
        return other >= self

    def __lt__(self, other: object) -> bool:
        return self.__le__(other) and not self >= other

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"ClosedGroup({self.name})"

    def _repr_html_(self) -> str:
        """Return its name, and those of its subgroups."""
        order = "infinite" if math.isinf(self.order) else f"{self.order:.0f}"
        names = ", ".join(H.name for H in self.subgroups[1:]) or "none"
        text = f"subgroups with a name, in the same frame: {names}"
        return html.page([html.line(f"{self!r}, order {order}"), html.line(text)])


Symmetry = Group | ClosedGroup


def orthogonal(dimension: int = 3) -> ClosedGroup:
    """Return O(3) or O(2), all rotations and reflections about a point.

    >>> orthogonal().subgroup("SO(3)").order
    inf
    >>> [H.name for H in orthogonal().subgroup("4mm").subgroups]
    ['C4v', 'C2v', 'C4', 'C2', 'C1']
    >>> [H.name for H in orthogonal(2).subgroups][:4]
    ['O(2)', 'SO(2)', 'D16', 'D15']
    """
    if dimension not in (2, 3):
        raise ValueError(f"dimension should be 2 or 3, got {dimension!r}")
    return (_named() if dimension == 3 else _named_in_plane())[0]


def comparable(a: Symmetry, b: Symmetry) -> bool:
    """Tell whether a layer that is tied to one group may be tied to another.

    Groups of one ambient group may, and closed subgroups of O(3) and any of a volume.
    """
    if isinstance(a, Group) and isinstance(b, Group):
        return a.ambient == b.ambient
    return a.dimension == b.dimension


def exact_part(group: Symmetry) -> Group:
    """Return the elements that move pixels onto pixels, of closed ones as in a cube."""
    if isinstance(group, Group):
        return group.exact_subgroup
    return exact_ambient(group).keeping(group.contains)


def exact_ambient(group: Symmetry) -> Group:
    """Return the ambient group; of closed ones, that of the cube or the square."""
    if isinstance(group, Group):
        return group.ambient
    return full_octahedral() if group.dimension == 3 else dihedral(4)


def finite_matrices(group: Symmetry) -> np.ndarray | None:
    """Return all elements; None of closed groups that pixels do not follow."""
    if isinstance(group, Group):
        return group.matrices
    whole = np.rint(group.generators)
    if math.isinf(group.order) or np.abs(whole - group.generators).max() > _CLOSE:
        return None
    return np.rint(group.matrices).astype(np.int64)


def _closure(generators: np.ndarray) -> np.ndarray:
    found = [np.eye(generators.shape[-1])]
    for matrix in found:  # grows while it is read
        for generator in generators:
            new = generator @ matrix
            if not _among(new, np.stack(found)):
                found.append(new)
    return np.stack(found)


def _among(matrix: np.ndarray, matrices: np.ndarray) -> bool:
    return bool((np.abs(matrices - matrix).max((1, 2)) < _CLOSE).any())


def _turn(angle: float, axis: str = "k") -> np.ndarray:
    """Return the rotation by an angle in radians about an array axis."""
    first, second = {"i": (1, 2), "j": (2, 0), "k": (0, 1)}[axis]
    cosine, sine = _exact(math.cos(angle)), _exact(math.sin(angle))
    matrix = np.eye(3)
    matrix[[first, first, second, second], [first, second, first, second]] = (
        cosine,
        -sine,
        sine,
        cosine,
    )
    return matrix


def _exact(value: float) -> float:
    return round(value) if abs(value - round(value)) < 1e-15 else value


_MIRROR = {axis: np.diag([1.0 - 2 * (a == axis) for a in "ijk"]) for axis in "ijk"}
_INVERSION = -np.eye(3)
_CYCLE = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])


def _finite(name: str, *generators: np.ndarray) -> ClosedGroup:
    given = np.stack([generators[0] @ generators[0].T, *generators])
    elements = _closure(given)
    return ClosedGroup(
        name,
        given,
        len(elements),
        functools.partial(_among, matrices=elements),
        lambda rng, count: elements[rng.integers(len(elements), size=count)],
    )


def _infinite(
    name: str, holds: Callable[[float, float], bool], *generators: np.ndarray
) -> ClosedGroup:
    """Return a group of matrices that keep the axis k, up to its sign.

    Args:
      name: of the group.
      holds: (sign of the axis, determinant) -> whether such a matrix is an element.
      *generators: beside the rotations about k.
    """

    def contains(matrix: np.ndarray) -> bool:
        sign = matrix[2, 2]
        keeps = abs(abs(sign) - 1) < _CLOSE
        return keeps and holds(np.sign(sign), np.linalg.det(matrix))

    others = _closure(np.stack([np.eye(3), *generators]))

    def draw(rng: np.random.Generator, count: int) -> np.ndarray:
        angles = rng.uniform(0, 2 * math.pi, count)
        turns = np.tile(np.eye(3), (count, 1, 1))
        turns[:, 0, 0] = turns[:, 1, 1] = np.cos(angles)
        turns[:, 1, 0], turns[:, 0, 1] = np.sin(angles), -np.sin(angles)
        return turns @ others[rng.integers(len(others), size=count)]

    given = np.stack([_turn(1.0), *generators])
    return ClosedGroup(name, given, math.inf, contains, draw)


def _draw_orthogonal(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return matrices of O(3), by the QR decomposition of normal ones."""
    q, r = np.linalg.qr(rng.normal(size=(count, 3, 3)))
    return q * np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None]


def _draw_rotations(rng: np.random.Generator, count: int) -> np.ndarray:
    matrices = _draw_orthogonal(rng, count)
    return matrices * np.linalg.det(matrices)[:, None, None]


@functools.cache
def _named() -> tuple[ClosedGroup, ...]:
    """Return O(3) and all of its subgroups that have a name, largest first."""
    turn_i = _turn(math.pi, "i")
    sphere = (_turn(1.0), _turn(1.0, "i"))
    infinite = (
        ClosedGroup(
            "O(3)",
            np.stack([*sphere, _INVERSION]),
            math.inf,
            lambda matrix: True,
            _draw_orthogonal,
        ),
        ClosedGroup(
            "SO(3)",
            np.stack(sphere),
            math.inf,
            lambda matrix: bool(np.linalg.det(matrix) > 0),
            _draw_rotations,
        ),
        _infinite("D∞h", lambda sign, det: True, _MIRROR["i"], _MIRROR["k"]),
        _infinite("D∞", lambda sign, det: det > 0, turn_i),
        _infinite("C∞v", lambda sign, det: sign > 0, _MIRROR["i"]),
        _infinite("C∞h", lambda sign, det: sign * det > 0, _MIRROR["k"]),
        _infinite("C∞", lambda sign, det: sign > 0 and det > 0),
    )
    half = _turn(math.pi)
    finite = [
        _finite("Oh", _turn(math.pi / 2), _CYCLE, _INVERSION),
        _finite("O", _turn(math.pi / 2), _CYCLE),
        _finite("Td", _MIRROR["k"] @ _turn(math.pi / 2), _CYCLE),
        _finite("Th", half, _CYCLE, _INVERSION),
        _finite("T", half, _CYCLE),
        _finite("S4", _MIRROR["k"] @ _turn(math.pi / 2)),
        _finite("S6", _MIRROR["k"] @ _turn(math.pi / 3)),
        _finite("D2d", _MIRROR["k"] @ _turn(math.pi / 2), turn_i),
        _finite("D3d", _MIRROR["k"] @ _turn(math.pi / 3), turn_i),
        _finite("Cs", _MIRROR["k"]),
        _finite("Ci", _INVERSION),
        _finite("C1", np.eye(3)),
    ]
    for n in (2, 3, 4, 6):
        turn = _turn(2 * math.pi / n)
        finite += [
            _finite(f"D{n}h", turn, turn_i, _MIRROR["k"]),
            _finite(f"D{n}", turn, turn_i),
            _finite(f"C{n}v", turn, _MIRROR["i"]),
            _finite(f"C{n}h", turn, _MIRROR["k"]),
            _finite(f"C{n}", turn),
        ]
    finite.sort(key=lambda H: -H.order)
    return (*infinite, *finite)


_FINEST = 16  # rotations of the finite groups of the plane that have a name here


@functools.cache
def _named_in_plane() -> tuple[ClosedGroup, ...]:
    """Return O(2) and all of its subgroups that have a name, largest first."""
    turn, flip = _turn(1.0)[:2, :2], np.diag([1.0, -1.0])

    def draw(rng: np.random.Generator, count: int) -> np.ndarray:
        angles = rng.uniform(0, 2 * math.pi, count)
        return np.stack([_turn(angle)[:2, :2] for angle in angles])

    def draw_any(rng: np.random.Generator, count: int) -> np.ndarray:
        flips = np.stack([np.eye(2), flip])
        return draw(rng, count) @ flips[rng.integers(2, size=count)]

    found = [
        ClosedGroup(
            "O(2)", np.stack([turn, flip]), math.inf, lambda matrix: True, draw_any
        ),
        ClosedGroup(
            "SO(2)",
            turn[None],
            math.inf,
            lambda matrix: bool(np.linalg.det(matrix) > 0),
            draw,
        ),
    ]
    finite = []
    for n in range(1, _FINEST + 1):
        turn = planar(Fraction(1, n))
        finite += [_finite(f"D{n}", turn, flip), _finite(f"C{n}", turn)]
    return (*found, *sorted(finite, key=lambda H: -H.order))
