"""Which children may survive at all: a preference for symmetry, where scores are alike.

A rule is a function (architectures, losses) -> positions; losses are those of every
validation sample, (children, samples), finite, of the same samples for all children.
Only children at these positions are selected from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from eqjax.models.architecture import Architecture
from eqjax.training.evaluation import mean_and_error

Parsimony = Callable[[Sequence[Architecture], np.ndarray], list[int]]


def one_standard_error(
    architectures: Sequence[Architecture], losses: np.ndarray
) -> list[int]:
    """Return the children that no child with more symmetry makes needless.

    Children are looked at from the most symmetric on. A child stands if, against every
    standing one that has more symmetry (in some layers a larger group, in none a
    smaller or another), its losses are lower by more than one standard error: of the
    mean of the differences, sample by sample. As the samples are the same, what is hard
    for both cancels; much smaller differences are seen than between two means.

    Without any true difference a relaxed child still stands in one of six comparisons:
    it is a preference, no test. For a test see `verdict`.

    Args:
      architectures: of the children.
      losses: (children, samples), of the same samples.

    Returns:
      Positions, ascending.

    Raises:
      ValueError: losses have another shape, or there is no second sample.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> names = ("D4 D4", "D4 C4", "D4 D2:i")
    >>> children = [eq.Architecture.parse(D4, n) for n in names]
    >>> whole = np.array([1.0, 2.0, 3.0, 9.0])
    >>> losses = [whole, whole + [0.1, -0.1, 0.1, -0.2], whole - [0.1, 0.2, 0.1, 0.1]]
    >>> one_standard_error(children, np.array(losses))
    [0, 2]
    """
    losses = np.asarray(losses, np.float64)
    if losses.ndim != 2 or len(losses) != len(architectures) or losses.shape[1] < 2:
        raise ValueError(
            f"expected losses of {len(architectures)} children on the same 2 samples "
            f"or more, got an array {losses.shape}"
        )
    standing: list[int] = []
    order = sorted(range(len(architectures)), key=lambda i: -architectures[i].log_order)
    for child in order:
        rivals = [
            i
            for i in standing
            if architectures[i] != architectures[child]
            and architectures[i].contains(architectures[child])
        ]
        if all(_clearly_lower(losses[child], losses[rival]) for rival in rivals):
            standing.append(child)
    return sorted(standing)


PARSIMONY: dict[str, Parsimony] = {
    "one-standard-error": one_standard_error,
}


def _clearly_lower(losses: np.ndarray, others: np.ndarray) -> bool:
    """Tell whether paired losses are lower by more than one standard error."""
    gain, error = mean_and_error(others - losses)
    return gain > error
