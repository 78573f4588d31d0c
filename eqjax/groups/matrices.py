"""Sets of signed permutation matrices: checks, closure and multiplication."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np


def check_signed_permutations(matrices: np.ndarray | Sequence) -> np.ndarray:
    """Return signed permutation matrices as an (n, d, d) int64 array.

    Args:
      matrices: of shape (n, d, d), or a single (d, d) matrix, d in 1, 2, 3.

    Raises:
      ValueError: the shape is another, or a matrix is not a signed permutation.
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
    if array.shape[-1] > 3:
        raise ValueError(
            f"groups act on 1, 2 or 3 spatial axes, got {array.shape[-1]}x"
            f"{array.shape[-1]} matrices"
        )
    ones = np.ones(array.shape[-1])
    for i, m in enumerate(array):
        unit_rows = np.array_equal(np.abs(m).sum(0), ones)
        if not (unit_rows and np.array_equal((m * m).sum(1), ones)):
            raise ValueError(
                f"matrix {i} is not a signed permutation (one entry +1 or -1 in each "
                f"row and column, zeros elsewhere): {m.tolist()}"
            )
    return array.astype(np.int64)


def product_table(matrices: np.ndarray) -> np.ndarray:
    """Return the (n, n) table whose entry [u, v] is the number of matrix u times v.

    Raises:
      ValueError: a matrix is there twice, or a product is missing.
    """
    number = {m.tobytes(): i for i, m in enumerate(matrices)}
    if len(number) < len(matrices):
        raise ValueError("a matrix is given twice")
    table = np.empty((len(matrices), len(matrices)), dtype=np.int64)
    for (u, a), (v, b) in itertools.product(enumerate(matrices), repeat=2):
        product = number.get((a @ b).tobytes())
        if product is None:
            raise ValueError(
                f"the {len(matrices)} matrices do not close: {a.tolist()} times "
                f"{b.tolist()} is missing; use Group.from_generators to complete them"
            )
        table[u, v] = product
    return table


def generate(generators: np.ndarray | Sequence) -> np.ndarray:
    """Return the (n, d, d) matrices of the generated group, the identity first."""
    array = check_signed_permutations(generators)
    seen = [np.eye(array.shape[-1], dtype=np.int64)]
    keys = {seen[0].tobytes()}
    for matrix in seen:  # grows while it is read: a breadth-first closure
        for generator in array:
            new = generator @ matrix
            if new.tobytes() not in keys:
                keys.add(new.tobytes())
                seen.append(new)
    return np.stack(seen)
