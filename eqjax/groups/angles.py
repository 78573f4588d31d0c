"""Rotations and reflections of the plane by exact fractions of a turn.

Angles are counted from axis i towards axis j. A reflection is the rotation by its angle
after the left-right flip diag(1, -1). Right angles come out as whole numbers, and what
is symmetric is bitwise so: cos(45°) is sin(45°).
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

FINEST = 720  # parts of a turn: a group of more rotations is taken for infinite
_CLOSE = 1e-9


def planar(turn: Fraction, *, reflected: bool = False) -> np.ndarray:
    """Return the (2, 2) matrix of a rotation, or of one after the left-right flip.

    >>> planar(Fraction(1, 4)).tolist()
    [[0.0, -1.0], [1.0, 0.0]]
    """
    cos, sin = cos_sin(turn)
    sign = -1.0 if reflected else 1.0
    return np.array([[cos, -sin * sign], [sin, cos * sign]]) + 0.0  # no -0


def cos_sin(turn: Fraction) -> tuple[float, float]:
    """Return cosine and sine of a fraction of a turn."""
    quarters, rest = divmod(4 * (turn % 1), 1)  # rest of a quarter, in [0, 1)
    small = math.pi / 2 * float(min(rest, 1 - rest))
    cos, sin = math.cos(small), math.sin(small)
    if rest == Fraction(1, 2):
        cos = sin = math.sqrt(0.5)
    elif rest > Fraction(1, 2):
        cos, sin = sin, cos
    for _ in range(quarters):
        cos, sin = -sin, cos
    return cos + 0.0, sin + 0.0


def fraction_of(matrix: np.ndarray) -> tuple[Fraction, bool] | None:
    """Return the turn of an orthogonal (2, 2) matrix, and whether it reflects.

    None where it is no rotation or reflection by a fraction of up to `FINEST` parts.

    >>> fraction_of(planar(Fraction(3, 16), reflected=True))
    (Fraction(3, 16), True)
    """
    matrix = np.asarray(matrix, float)
    turn = Fraction(math.atan2(matrix[1, 0], matrix[0, 0]) / (2 * math.pi))
    turn = turn.limit_denominator(FINEST) % 1
    reflected = bool(np.linalg.det(matrix) < 0)
    near = np.abs(planar(turn, reflected=reflected) - matrix).max() < _CLOSE
    return (turn, reflected) if near else None


def degrees(turn: Fraction) -> str:
    """Return an angle as people write it, such as 22.5°."""
    return f"{float(360 * turn):g}°"
