"""The standard groups of a line, a plane and a volume."""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Callable

import numpy as np

from eqjax.groups.group import Group

_ROTATION = np.array([[0, -1], [1, 0]])
_REFLECTION = np.array([[1, 0], [0, -1]])
_ROTATION_IJ = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
_CYCLE = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]])


def flip() -> Group:
    """Return the two-element group that reverses a line.

    >>> flip().element_names
    ('identity', 'reflection i')
    """
    return Group.from_generators([[[-1]]])


def cyclic(n: int) -> Group:
    """Return the group of n rotations of the plane, n in 1, 2, 4.

    >>> cyclic(4).element_names
    ('identity', 'rotation by 90°', 'rotation by 180°', 'rotation by 270°')
    """
    rotations = _right_angle_rotations(n, "cyclic")
    return Group(np.stack(rotations))


def dihedral(n: int) -> Group:
    """Return the group of n rotations and n reflections of the plane, n in 1, 2, 4.

    The rotations come first, then each rotation after the left-right flip.

    >>> [H.name for H in dihedral(2).subgroups]
    ['D2', 'C2', 'D1:i', 'D1:j', 'C1']
    """
    rotations = _right_angle_rotations(n, "dihedral")
    return Group(np.stack(rotations + [r @ _REFLECTION for r in rotations]))


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


def _right_angle_rotations(n: int, kind: str) -> list[np.ndarray]:
    if n not in (1, 2, 4):
        raise ValueError(
            f"{kind}(n) takes n = 1, 2 or 4, got {n!r}: only right angles are exact on "
            f"a pixel grid; try {kind}(4)"
        )
    return [np.linalg.matrix_power(_ROTATION, k * (4 // n)) for k in range(n)]


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
    """Return the ambient group of a name in `STANDARD`, or of its generators.

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
    if name not in STANDARD:
        near = difflib.get_close_matches(name, STANDARD, 1, 0)[0]
        raise ValueError(
            f"there is no ambient group {name!r}, nearest: {near!r}; known are "
            f"{', '.join(STANDARD)}"
        )
    return STANDARD[name]()
