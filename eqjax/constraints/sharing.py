"""Sharing that is learned: a matrix says which entries of a full array are alike.

K = A F with F free and A a square matrix over the entries of the array, the same for
all pairs of channels. Every group is such a matrix, the average over its orbits, and
the layers start at that of their group. Learned are the rows of a softmax (Yeh et al.
2022), a doubly stochastic matrix (weight-sharing CNNs, 2024), or any matrix at all
(meta-learned symmetries, MSR; Zhou et al. 2021).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from eqjax import kernels
from eqjax.constraints.base import (
    ConstrainedLayer,
    Constraint,
    Extra,
    Extras,
    Parts,
)
from eqjax.constraints.collections import MIXTURE, PARAMS
from eqjax.groups.checks import check_number
from eqjax.groups.group import Group
from eqjax.kernels.tied import Table, Tie

Matrix = Literal["stochastic", "doubly stochastic", "free"]
SINKHORN_STEPS = 10
LARGEST = 10_000  # entries of a full array: a matrix of 400 MB


@dataclasses.dataclass(frozen=True)
class LearnedSharing(Constraint):
    """A learned matrix that says which entries of a free array are shared.

    K = (1 - own) S F + own F. S starts at the average over the orbits of the layer's
    group, of which a `spread` goes to all entries alike, and what is learned is added
    to it, or to its logarithm.

    Attributes:
      matrix: "stochastic", every row of S a softmax; "doubly stochastic", every column
        adds up to 1, too; or "free".
      spread: share of a row that starts outside of its orbit, in (0, 1]; 1 for no
        knowledge of the group. Not for a free matrix, which has none.
      own: share of every entry that is its own, so that the layer can hold any array;
        0 as in the papers, where what is carried into it is averaged by its group.
      trace: weight of sum_j sqrt(sum_i S_ij^2) / n in the loss, which is least where
        few columns are used; in nats per sample.
      entropy: weight of the mean entropy of the rows, which makes them choose.
      hard: S is the choice of every row, its largest entry, and no longer learned.
      apart: S is in the collection `mixture`, apart from the weights, for a search to
        train by an optimizer of its own; else it is trained with the weights.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> layer = eq.LiftingConv(2, 3, group=D4, constraint=LearnedSharing())
    >>> variables = layer.init(jax.random.key(0), jnp.ones((1, 6, 6, 1)))
    >>> variables["params"]["kernel_sharing"].shape  # 9 taps x 8 elements
    (72, 72)
    """

    partwise: ClassVar[bool] = False
    source: ClassVar[str] = "Yeh et al. 2022"

    matrix: Matrix = "stochastic"
    spread: float = 0.1
    own: float = 0.1
    trace: float = 0.0
    entropy: float = 0.0
    hard: bool = False
    apart: bool = False

    def __post_init__(self):
        """Reject settings that no layer can have."""
        if self.matrix not in get_args(Matrix):
            known = ", ".join(map(repr, get_args(Matrix)))
            raise ValueError(f"matrix must be one of {known}, got {self.matrix!r}")
        check_number("spread", self.spread)
        check_number("own", self.own)
        check_number("trace", self.trace)
        check_number("entropy", self.entropy)
        if not 0 < self.spread <= 1:
            raise ValueError(f"spread must be in (0, 1], got {self.spread}")
        if not 0 <= self.own < 1:
            raise ValueError(f"own must be in [0, 1), got {self.own}")
        for name in ("trace", "entropy"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be at least 0, got {value}")
            if value and self.matrix == "free":
                raise ValueError(
                    f"{name} is of rows that add up to 1, not of free ones"
                )
        if self.hard and self.matrix == "free":
            raise ValueError("a free matrix chooses nothing that could be made hard")

    def check(self, layer: ConstrainedLayer) -> None:
        """Raise ValueError where a kernel has no single entries to share."""
        if getattr(layer, "harmonics", None) is not None:
            raise ValueError(
                "LearnedSharing shares single entries of a kernel, got one of circular "
                "harmonics; basis='pixels' has taps, over a group of right angles"
            )

    def parts(self, group: Group) -> dict[str, Group]:
        """Return the trivial group."""
        return {"": group.smallest}

    def initial_scale(self, suffix: str, group: Group) -> float:
        """Make up for what the averages take away from what is drawn."""
        del suffix
        own = 0.0 if self.hard else self.own
        spread = 0.0 if self.matrix == "free" else self.spread
        each = (1 - own) * (1 - spread) / group.order
        kept = (own + each) ** 2 + (group.order - 1) * each**2
        return max(kept, 0.25 / group.order) ** -0.5

    def symmetry(self, group: Group) -> Group:
        """Return the trivial group."""
        return group.smallest

    def extras(self, parts: Parts, group: Group) -> dict[str, Extra]:
        """Return what is added to S for every full array, (entries, entries)."""
        del group
        found = {}
        for name, each in parts.items():
            entries = math.prod(each[""].tie.orbits.shape)
            if entries > LARGEST:
                raise ValueError(
                    f"a matrix of the sharing of {entries:,} entries does not fit; at "
                    f"most {LARGEST:,}: choose fewer taps or a smaller ambient group"
                )
            zeros = jnp.zeros((entries, entries), jnp.float32)
            found[self.name_of(name)] = Extra(MIXTURE if self.apart else PARAMS, zeros)
        return found

    def name_of(self, array: str) -> str:
        """Return what the variable is called that shares a full array's entries."""
        return f"{array}_sharing"

    def sharing(
        self, added: Float[Array, "entries entries"], table: Table
    ) -> Float[Array, "entries entries"]:
        """Return S.

        Args:
          added: what is learned.
          table: orbits of the layer's group on the full array.
        """
        index = jnp.asarray(table.cells)
        size = jnp.asarray(table.size, added.dtype)[index]
        start = (index[:, None] == index) / size
        if self.matrix == "free":
            return start + added
        start = (1 - self.spread) * start + self.spread / len(index)
        logits = jnp.log(start) + added
        if self.matrix == "doubly stochastic":
            logits = _sinkhorn(logits)
        if self.hard:
            return jax.nn.one_hot(_choice(logits), len(index), dtype=added.dtype)
        return jax.nn.softmax(logits)

    def assignment(
        self, added: Float[Array, "entries entries"], table: Table
    ) -> Int[np.ndarray, " entries"]:
        """Return the number of the cluster that every entry of the array belongs to.

        Entries are shared where their rows of S are alike, by average linkage. Where
        rows have decided, that is for one column; before, the members of an orbit are
        still together, whichever of their equal columns is ahead.

        Args:
          added: what is learned.
          table: orbits of the layer's group on the full array.
        """
        return clusters(np.asarray(self.sharing(jnp.asarray(added), table)))

    def combine(
        self, parts: Parts, extras: Extras, tables: Mapping[str, Table]
    ) -> dict[str, jax.Array]:
        """Return (1 - own) S F + own F."""
        found = {}
        for name, each in parts.items():
            free = each[""].full
            shared = self.sharing(extras[self.name_of(name)], tables[name])
            own = 0.0 if self.hard else self.own
            flat = free.reshape(len(shared), -1)
            mixed = jnp.matmul(shared.astype(flat.dtype), flat, precision="highest")
            found[name] = ((1 - own) * mixed + own * flat).reshape(free.shape)
        return found

    def penalty(
        self, parts: Parts, extras: Extras, tables: Mapping[str, Table]
    ) -> jax.Array | None:
        """Return what keeps columns few and rows decided."""
        if self.hard or not (self.trace or self.entropy):
            return None
        total = jnp.zeros(())
        for name in parts:
            shared = self.sharing(extras[self.name_of(name)], tables[name])
            columns = jnp.sum(shared**2, 0)
            used = jnp.sum(jnp.sqrt(jnp.where(columns > 0, columns, 1e-30)))
            rows = jnp.sum(jax.scipy.special.entr(shared), -1)
            total += self.trace * used / len(shared) + self.entropy * jnp.mean(rows)
        return total

    def absorb(
        self, full: jax.Array, ties: Mapping[str, Tie], table: Table
    ) -> dict[str, jax.Array]:
        """Return F for K: its symmetric and its other part, each over its factor."""
        symmetric = kernels.reynolds(full, table)
        if self.hard:
            return {"": kernels.project(symmetric, ties[""])}
        axes = tuple(range(len(table.shape)))
        mean = jnp.mean(symmetric, axes)
        spread = 0.0 if self.matrix == "free" else self.spread * (1 - self.own)
        free = mean + (symmetric - mean) / (1 - spread) if spread < 1 else symmetric
        if self.own:
            free = free + (full - symmetric) / self.own
        return {"": kernels.project(free, ties[""])}


def _choice(rows: Float[Array, "n n"]) -> Int[Array, " n"]:
    """Return the largest entry of every row, the first of those equal to rounding."""
    largest = rows.max(-1, keepdims=True)
    return jnp.argmax(rows >= largest - 1e-4 * jnp.abs(largest), -1)


def _sinkhorn(logits: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Return logits whose softmax has columns that add up to 1, too."""

    def balance(now, _):
        now = jax.nn.log_softmax(now, 0)
        return jax.nn.log_softmax(now, 1), None

    return jax.lax.scan(balance, logits, length=SINKHORN_STEPS)[0]


def clusters(
    rows: Float[np.ndarray, "n features"], apart: float = 2 / 3
) -> Int[np.ndarray, " n"]:
    """Return the number of the cluster of every row, by average linkage.

    Args:
      rows: to be clustered, by their direction.
      apart: clusters end where 1 - cosine is larger in the mean.

    >>> clusters(np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])).tolist()
    [0, 0, 1]
    """
    from scipy.cluster import hierarchy  # slow to import, and of use here alone
    from scipy.spatial.distance import pdist

    if len(rows) == 1:
        return np.zeros(1, int)
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    unit = rows / np.where(length > 0, length, 1)
    # |a - b|^2 / 2 is 1 - cosine; rows of zeros are apart from all others by 1/2.
    between = pdist(unit, "sqeuclidean") / 2
    tree = hierarchy.linkage(between, "average")
    return hierarchy.fcluster(tree, apart, "distance") - 1


def partition_distance(first: Any, second: Any) -> int:
    """Return how many elements must change their cluster to make two partitions alike.

    n minus the largest number of elements that a one-to-one match of clusters leaves in
    matched ones (Hungarian method).

    Args:
      first: (n,) integers, the cluster of every element.
      second: (n,) the same of the other partition.

    Raises:
      ValueError: they are not of equal length.

    >>> partition_distance([0, 0, 1, 1], [5, 5, 5, 2])
    1
    """
    from scipy.optimize import linear_sum_assignment

    first, second = np.ravel(first), np.ravel(second)
    for name, each in (("first", first), ("second", second)):
        if each.size and each.dtype.kind not in "biu":
            raise ValueError(f"{name} must be whole numbers, got {each.dtype}")
    if first.shape != second.shape:
        raise ValueError(
            f"partitions need as many elements, got {len(first)} and {len(second)}"
        )
    rows = np.unique(first, return_inverse=True)[1]
    columns = np.unique(second, return_inverse=True)[1]
    shared = np.zeros((rows.max(initial=-1) + 1, columns.max(initial=-1) + 1), int)
    np.add.at(shared, (rows, columns), 1)
    return len(first) - int(shared[linear_sum_assignment(shared, maximize=True)].sum())
