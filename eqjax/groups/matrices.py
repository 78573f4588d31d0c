"""Sets of orthogonal matrices: checks, closure and multiplication.

They are signed permutations, which move pixels onto pixels, and in the plane rotations
and reflections by any fraction of a turn.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from eqjax.groups.angles import FINEST, fraction_of, planar


def check_orthogonal(matrices: np.ndarray | Sequence) -> np.ndarray:
    """Return the matrices of a group as one array, without rounding errors.

    Args:
      matrices: of shape (n, d, d), or a single (d, d) matrix, d in 1, 2, 3.

    Returns:
      (n, d, d), integers if all are signed permutations.

    Raises:
      ValueError: the shape is another, or a matrix is neither a signed permutation nor
        turns the plane by a fraction of a turn.
    """
    try:
        array = np.asarray(matrices)
    except ValueError as error:
        raise ValueError("matrices of different dimensions do not mix") from error
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.shape[1] != array.shape[2] or len(array) == 0:
        raise ValueError(
            f"expected matrices of shape (count, d, d), got shape {array.shape}"
        )
    if array.dtype.kind not in "biuf":
        raise ValueError(f"expected matrices of numbers, got {array.dtype}")
    if array.shape[-1] > 3:
        raise ValueError(
            f"groups act on 1, 2 or 3 spatial axes, got {array.shape[-1]}x"
            f"{array.shape[-1]} matrices"
        )
    found = np.stack([_checked(i, matrix) for i, matrix in enumerate(array)])
    whole = np.rint(found).astype(np.int64)
    return whole if np.array_equal(whole, found) else found


def _checked(number: int, matrix: np.ndarray) -> np.ndarray:
    if is_exact(matrix):
        return matrix.astype(float)
    planar_and_finite = len(matrix) == 2 and np.isfinite(matrix).all()
    turned = fraction_of(matrix) if planar_and_finite else None
    if turned is None:
        also = f", nor turns the plane by 1/n of a turn, n <= {FINEST}"
        raise ValueError(
            f"matrix {number} is not a signed permutation (one entry +1 or -1 in each "
            f"row and column, zeros elsewhere){also if len(matrix) == 2 else ''}: "
            f"{matrix.tolist()}"
        )
    turn, reflected = turned
    return planar(turn, reflected=reflected)


def is_exact(matrix: np.ndarray) -> bool:
    """Tell whether a matrix is a signed permutation, which moves pixels onto pixels."""
    ones = np.ones(len(matrix))
    unit_rows = np.array_equal(np.abs(matrix).sum(0), ones)
    return unit_rows and np.array_equal((matrix * matrix).sum(1), ones)


def key(matrix: np.ndarray) -> bytes:
    """Return what equal matrices have in common, whatever their rounding errors."""
    return np.rint(matrix * 2.0**30).astype(np.int64).tobytes()


def product_table(matrices: np.ndarray) -> np.ndarray:
    """Return the (n, n) table whose entry [u, v] is the number of matrix u times v.

    Raises:
      ValueError: a matrix is there twice, or a product is missing.
    """
    number = {key(m): i for i, m in enumerate(matrices)}
    if len(number) < len(matrices):
        raise ValueError("a matrix is given twice")
    table = np.empty((len(matrices), len(matrices)), dtype=np.int64)
    for (u, a), (v, b) in itertools.product(enumerate(matrices), repeat=2):
        product = number.get(key(a @ b))
        if product is None:
            raise ValueError(
                f"the {len(matrices)} matrices do not close: {a.tolist()} times "
                f"{b.tolist()} is missing; use Group.from_generators to complete them"
            )
        table[u, v] = product
    return table


def generate(generators: np.ndarray | Sequence) -> np.ndarray:
    """Return the (n, d, d) matrices of the generated group, the identity first."""
    array = check_orthogonal(generators)
    seen = [np.eye(array.shape[-1], dtype=array.dtype)]
    keys = {key(seen[0])}
    for matrix in seen:  # grows while it is read: a breadth-first closure
        for generator in array:
            new = check_orthogonal(generator @ matrix)[0]
            if key(new) not in keys:
                keys.add(key(new))
                seen.append(new)
    return np.stack(seen)
