"""What a group is called, read off its matrices.

Families are C1, C2, C8, D1, D4 on a line and in the plane, and Schoenflies symbols in a
volume. Directions are written in the array axes i, j, k; others of the plane as angles.
Angles are counted from axis i towards axis j, which is counterclockwise on the screen,
as `numpy.rot90` has it; in a volume by the right hand about the axis.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from eqjax.groups.angles import degrees, fraction_of

# (rotations, rotations together with negated improper elements) -> Schoenflies symbol
# of a group that holds improper elements but not the inversion.
_MIXED_FAMILIES = {
    ("C1", "C2"): "Cs",
    ("C2", "C4"): "S4",
    ("C2", "D2"): "C2v",
    ("C3", "D3"): "C3v",
    ("C4", "D4"): "C4v",
    ("D2", "D4"): "D2d",
    ("T", "O"): "Td",
}
_CENTRED_FAMILIES = {
    "C1": "Ci",
    "C2": "C2h",
    "C3": "S6",
    "C4": "C4h",
    "D2": "D2h",
    "D3": "D3d",
    "D4": "D4h",
    "T": "Th",
    "O": "Oh",
}
# Hermann-Mauguin symbol -> family, of the crystallographic groups of space.
HERMANN_MAUGUIN = {
    "1": "C1",
    "-1": "Ci",
    "2": "C2",
    "m": "Cs",
    "2/m": "C2h",
    "222": "D2",
    "mm2": "C2v",
    "mmm": "D2h",
    "4": "C4",
    "-4": "S4",
    "4/m": "C4h",
    "422": "D4",
    "4mm": "C4v",
    "-42m": "D2d",
    "4/mmm": "D4h",
    "3": "C3",
    "-3": "S6",
    "32": "D3",
    "3m": "C3v",
    "-3m": "D3d",
    "6": "C6",
    "6/m": "C6h",
    "622": "D6",
    "6mm": "C6v",
    "6/mmm": "D6h",
    "-6": "C3h",
    "-62m": "D3h",
    "23": "T",
    "m-3": "Th",
    "432": "O",
    "-43m": "Td",
    "m-3m": "Oh",
}
_DIRECTIONS = {
    Fraction(0): "i",
    Fraction(1, 4): "j",
    Fraction(1, 8): "i+j",
    Fraction(3, 8): "i-j",
}  # by fraction of a turn


def family(matrices: np.ndarray) -> str:
    """Return the type of a group without its direction, such as C4 or D1.

    Args:
      matrices: all elements, of shape (order, d, d) with d in 1, 2, 3.
    """
    proper = matrices[np.linalg.det(matrices) > 0]
    if matrices.shape[-1] < 3:
        return f"{'C' if len(proper) == len(matrices) else 'D'}{len(proper)}"
    rotations = _rotation_family(proper)
    if len(proper) == len(matrices):
        return rotations
    rotation_parts = np.unique(_rotation_part(matrices), axis=0)
    if len(rotation_parts) == len(proper):  # holds the inversion
        return _CENTRED_FAMILIES[rotations]
    return _MIXED_FAMILIES[rotations, _rotation_family(rotation_parts)]


def axes(matrices: np.ndarray) -> tuple[str, ...]:
    """Return rotation axes and normals of reflections, the principal ones first.

    Args:
      matrices: all elements, of shape (order, d, d) with d in 1, 2, 3.
    """
    if matrices.shape[-1] < 3:
        normals = {normal for m in matrices if (normal := _normal(m)) is not None}
        known = list(_DIRECTIONS)
        ranks = {n: (known.index(n) if n in known else len(known), n) for n in normals}
        return tuple(_direction(n) for n in sorted(normals, key=ranks.__getitem__))
    ranked: dict[tuple[int, ...], tuple] = {}
    for matrix in matrices:
        described = _axis(matrix)
        if described is not None:
            vector, rank = described
            ranked[vector] = min(rank, ranked.get(vector, rank))
    return tuple(_axis_label(v) for v in sorted(ranked, key=ranked.__getitem__))


def with_angle(name: str) -> str:
    """Return the name of a planar group with its direction as `axes` writes it.

    >>> with_angle("D1:22.5"), with_angle("D2:45"), with_angle("C4")
    ('D1:22.5°', 'D2:i+j', 'C4')
    """
    family, colon, axes = name.partition(":")
    found = []
    for axis in axes.split(","):
        try:
            angle = Fraction(axis.removesuffix("°"))
        except ValueError:
            found.append(axis)
        else:
            found.append(_direction(angle / 360 % Fraction(1, 2)))
    return family + colon + ",".join(found)


def rank(axis: str) -> tuple[float, str]:
    """Return what directions are sorted by: axes first, then angles."""
    return (float(axis[:-1]), "") if axis.endswith("°") else (-1.0, axis)


def element(matrix: np.ndarray) -> str:
    """Return what an element does, such as "rotation by 90°".

    Args:
      matrix: of shape (d, d) with d in 1, 2, 3.
    """
    if len(matrix) < 3:
        normal = _normal(matrix)
        if normal is not None:
            return f"reflection {_direction(normal)}"
        turn = 0 if len(matrix) == 1 else _turn(matrix)[0]
        return f"rotation by {degrees(Fraction(turn))}" if turn else "identity"
    rotation = _rotation_part(matrix[None])[0]
    improper = not np.array_equal(rotation, matrix)
    described = _axis(matrix)
    if described is None:
        return "inversion" if improper else "identity"
    vector, _ = described
    angle = (_angle(rotation, vector) + 180 * improper) % 360
    if angle == 0:
        return f"reflection {_axis_label(vector)}"
    kind = "rotoreflection" if improper else "rotation"
    return f"{kind} by {angle}° about {_axis_label(vector)}"


def _normal(matrix: np.ndarray) -> Fraction | None:
    """Return the direction of a reflection's normal, from 0 to half a turn."""
    if len(matrix) == 1:
        return Fraction(0) if matrix[0, 0] < 0 else None
    turn, reflected = _turn(matrix)
    return (turn / 2 + Fraction(1, 4)) % Fraction(1, 2) if reflected else None


def _turn(matrix: np.ndarray) -> tuple[Fraction, bool]:
    found = fraction_of(matrix)
    assert found is not None, matrix  # groups have checked it
    return found


def _direction(turn: Fraction) -> str:
    return _DIRECTIONS.get(turn) or degrees(turn)


def _angle(rotation: np.ndarray, vector: tuple[int, ...]) -> int:
    """Return by how many degrees, above 0, a rotation turns about a direction."""
    angle = round(np.degrees(np.arccos((np.trace(rotation) - 1) / 2)))
    skew = rotation - rotation.T
    turns = np.dot((skew[2, 1], skew[0, 2], skew[1, 0]), vector)
    return angle if turns >= 0 else 360 - angle


def _rotation_part(matrices: np.ndarray) -> np.ndarray:
    """Return each matrix, negated where it reverses orientation."""
    determinants = np.rint(np.linalg.det(matrices)).astype(np.int64)
    return matrices * determinants[:, None, None]


def _rotation_family(rotations: np.ndarray) -> str:
    """Name a group of proper rotations of the cube by counts of its elements."""
    order = len(rotations)
    fourfold = np.any(np.trace(rotations, axis1=1, axis2=2) == 1)
    if order == 4:
        return "C4" if fourfold else "D2"
    return {1: "C1", 2: "C2", 3: "C3", 6: "D3", 8: "D4", 12: "T", 24: "O"}[order]


def _axis(matrix: np.ndarray) -> tuple[tuple[int, ...], tuple] | None:
    """Return the axis of a rotation or the normal of a reflection, and its rank."""
    rotation = _rotation_part(matrix[None])[0]
    powers = [np.eye(3, dtype=np.int64)]
    while not np.array_equal(power := powers[-1] @ rotation, powers[0]):
        powers.append(power)
    if len(powers) == 1:  # the identity or the inversion
        return None
    projector = np.sum(powers, axis=0)
    column = projector[:, np.flatnonzero(np.any(projector, axis=0))[0]]
    vector = np.sign(column) * np.sign(column[np.flatnonzero(column)[0]])
    improper = not np.array_equal(rotation, matrix)
    rank = (-len(powers), improper, int(np.abs(vector).sum()))
    key = tuple(int(v) for v in vector)
    return key, (*rank, tuple(-abs(v) for v in key), tuple(-v for v in key))


def _axis_label(vector: tuple[int, ...]) -> str:
    signed = zip(vector, "ijk", strict=True)
    terms = [("+" if value > 0 else "-") + axis for value, axis in signed if value]
    return "".join(terms).removeprefix("+")
