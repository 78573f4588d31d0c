"""The standard groups of a line, a plane and a volume."""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from eqjax.groups.angles import FINEST, planar
from eqjax.groups.group import Group

_ROTATION_IJ = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
_CYCLE = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]])


def flip() -> Group:
    """Return the two-element group that reverses a line.

    >>> flip().element_names
    ('identity', 'reflection i')
    """
    return Group.from_generators([[[-1]]])


def cyclic(n: int) -> Group:
    """Return the group of n rotations of the plane.

    With n in 1, 2, 4 they move pixels onto pixels; by other angles they do so
    approximately, see `Group.exact`.

    >>> cyclic(4).element_names
    ('identity', 'rotation by 90°', 'rotation by 180°', 'rotation by 270°')
    >>> [H.name for H in cyclic(12).subgroups]
    ['C12', 'C6', 'C4', 'C3', 'C2', 'C1']
    """
    return Group(np.stack(_rotations(n, "cyclic")))


def dihedral(n: int) -> Group:
    """Return the group of n rotations and n reflections of the plane.

    The rotations come first, then each rotation after the left-right flip. For n other
    than 1, 2, 4 some are approximate on pixels, see `Group.exact`.

    >>> [H.name for H in dihedral(2).subgroups]
    ['D2', 'C2', 'D1:i', 'D1:j', 'C1']
    >>> [H.name for H in dihedral(8).subgroups if H.family == "D4"]
    ['D4:i', 'D4:22.5°']
    """
    rotations = _rotations(n, "dihedral")
    return Group(np.stack(rotations + _rotations(n, "dihedral", reflected=True)))


def octahedral() -> Group:
    """Return the 24 rotations of the cube.

    >>> octahedral().order, octahedral().subgroup("C3", index=0).element_names[1]
    (24, 'rotation by 120° about i+j+k')
    """
    return Group.from_generators([_ROTATION_IJ, _CYCLE])


def full_octahedral() -> Group:
    """Return the 48 symmetries of the cube, reflections included.

    >>> full_octahedral().order, len(full_octahedral().subgroups)
    (48, 98)
    """
    return Group.from_generators([_ROTATION_IJ, _CYCLE, -np.eye(3, dtype=np.int64)])


def _rotations(n: int, kind: str, *, reflected: bool = False) -> list[np.ndarray]:
    if not isinstance(n, (int, np.integer)) or not 1 <= n <= FINEST:
        raise ValueError(
            f"{kind}(n) takes a whole number from 1 to {FINEST}, got {n!r}"
        )
    return [planar(Fraction(k, int(n)), reflected=reflected) for k in range(n)]


# The ambient groups that experiments know by name.
STANDARD: dict[str, Callable[[], Group]] = {
    "D4": lambda: dihedral(4),
    "C4": lambda: cyclic(4),
    "D2": lambda: dihedral(2),
    "C2": lambda: cyclic(2),
    "D1": lambda: dihedral(1),
    "C1": lambda: cyclic(1),
    "flip": flip,
    "O": octahedral,
    "Oh": full_octahedral,
}


@functools.cache
def standard_group(name: str) -> Group:
    """Return the ambient group of a name in `STANDARD`, C8, D16, or of its generators.

    Args:
      name: or generators as JSON, a list of matrices, each a list of its rows.

    Raises:
      ValueError: there is none; the message names the nearest.

    >>> standard_group("C4").order, standard_group("[[[0, 1], [1, 0]]]").name
    (4, 'D1')
    """
    if name.lstrip().startswith("["):
        try:
            return Group.from_generators(json.loads(name))
        except json.JSONDecodeError as error:
            raise ValueError(
                "generators should be a list of matrices, as [[[0, -1], [1, 0]]], "
                f"got {name!r}: {error}"
            ) from None
    planar_name = re.fullmatch(r"([CD])([1-9]\d*)", name)
    if planar_name and name not in STANDARD:
        kind, n = planar_name.groups()
        return {"C": cyclic, "D": dihedral}[kind](int(n))
    if name not in STANDARD:
        near = difflib.get_close_matches(name, STANDARD, 1, 0)[0]
        raise ValueError(
            f"there is no ambient group {name!r}, nearest: {near!r}; known are "
            f"{', '.join(STANDARD)}, and C8, D16, ... of any number"
        )
    return STANDARD[name]()
