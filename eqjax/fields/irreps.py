"""Fields whose values transform by irreps of O(3) or O(2): scalars, vectors, tensors.

An optical flow, a velocity field or a diffusion tensor is a field whose values
transform under a representation rho of O(3): (u . f)(p) = rho(u) f(u^-1 p). So a fiber
need not be a set that the group permutes. It may be a space that the group turns, by an
orthogonal matrix for every element, and a set of fiber elements is the special case of
permutation matrices.

Reading such values in the frame of every group element gives scalars per element,

    lift(f)(p, a) = rho(a)^-1 f(p),

on which u acts as on any regular field; the adjoint, the mean of rho(a) f(p, a) over a,
takes a regular field back.

Irreps of O(3) are written as e3nn-jax writes them, "0e + 1o". Those of O(2), in the
plane, have no parity from degree 1 on: "0e + 0o + 1 + 2" are a scalar, one that changes
sign under reflections, a vector, and what turns twice as fast as a vector does.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eqjax.groups.angles import cos_sin, fraction_of
from eqjax.groups.checks import check_array, check_group
from eqjax.groups.group import Group

KEPT = 64  # matrices; those of more elements are not kept
UNIT = 1e-12  # entries of matrices that are nearer to 0 or 1 are meant to be there
_TERM = re.compile(r"(?:(\d+)x)?(\d+)([eo]?)")


class Irrep(NamedTuple):
    """An irrep of O(3), or of O(2) where `p` is None.

    Attributes:
      l: degree; in the plane, the frequency.
      p: parity under the inversion, in the plane of degree 0 under reflections.
    """

    l: int  # noqa: E741
    p: int | None

    @property
    def dim(self) -> int:
        """Number of components."""
        return 2 if self.p is None else 2 * self.l + 1

    def __str__(self) -> str:
        return f"{self.l}{ {1: 'e', -1: 'o', None: ''}[self.p] }"


@dataclasses.dataclass(frozen=True)
class IrrepsFiber:
    """A fiber of components of irreps, laid out as e3nn-jax has them.

    Takes the place of a `Fiber` in `GroupConv`, whose channels are then copies of all
    irreps: for `IrrepsFiber("0e + 1o")` and 8 channels, the field (batch, *space, 4, 8)
    holds eight scalars and eight vectors. Components of "1o" are in array axis order,
    as are those of "1" in the plane.

    Attributes:
      irreps: such as "0e + 1o", or an `e3nn_jax.Irreps`; "0e + 1" in the plane; kept as
        text.

    >>> fiber = IrrepsFiber("2x0e + 1o")
    >>> fiber.size
    5
    >>> fiber.matrix(-np.eye(3)).diagonal().tolist()
    [1.0, 1.0, -1.0, -1.0, -1.0]
    >>> IrrepsFiber("0e + 2x1").size  # of the plane
    5
    """

    irreps: str

    def __post_init__(self):
        """Keep the irreps as text, which compares and hashes."""
        terms = _parsed(str(self.irreps))
        if not terms:
            raise ValueError(f"expected irreps of O(3) or O(2), got {self.irreps!r}")
        text = "+".join(f"{copies}x{irrep}" for copies, irrep in terms)
        object.__setattr__(self, "irreps", text)

    @property
    def size(self) -> int:
        """Number of components."""
        return sum(copies * irrep.dim for copies, irrep in _parsed(self.irreps))

    @functools.cached_property
    def blocks(self) -> tuple[tuple[int, str, int], ...]:
        """(copies, irrep, components of one copy), in their order."""
        return tuple((mul, str(ir), ir.dim) for mul, ir in _parsed(self.irreps))

    def matrix(self, u: np.ndarray) -> np.ndarray:
        """Return rho(u), (size, size), for an orthogonal (3, 3) or (2, 2) matrix."""
        return representations(self.irreps, np.asarray(u)[None])[0]


def representations(irreps: str, matrices: np.ndarray) -> np.ndarray:
    """Return (count, dim, dim), rho(u) of orthogonal (count, d, d) matrices, float64.

    For irreps of O(3), matrices of a line or a plane leave the further axes as they
    are.

    Raises:
      ValueError: irreps of O(2), and matrices that act on no plane.
    """
    if len(matrices) > KEPT:
        return _represented(irreps, matrices)
    return _kept(irreps, matrices.astype(float).tobytes(), matrices.shape)


@functools.lru_cache(maxsize=1024)
def _kept(irreps: str, matrices: bytes, shape: tuple[int, ...]) -> np.ndarray:
    found = _represented(irreps, np.frombuffer(matrices).reshape(shape))
    found.flags.writeable = False
    return found


def _represented(irreps: str, matrices: np.ndarray) -> np.ndarray:
    terms = _parsed(irreps)
    size = sum(copies * irrep.dim for copies, irrep in terms)
    found = np.zeros((len(matrices), size, size))
    begin = 0
    for copies, irrep in terms:
        represented = _planar if irrep.p is None else _spatial
        own = represented(irrep, matrices)
        for _ in range(copies):
            part = slice(begin, begin + irrep.dim)
            found[:, part, part] = own
            begin += irrep.dim
    return found


def _planar(irrep: Irrep, matrices: np.ndarray) -> np.ndarray:
    """Return (count, 2, 2): turns by a multiple of the angle, and the same flip."""
    frequency = irrep.l
    if matrices.shape[-1] != 2:
        raise ValueError(
            f"{frequency} is an irrep of O(2), which acts on a plane; of O(3), on "
            f"{matrices.shape[-1]} axes, there are {frequency}e and {frequency}o"
        )
    found = []
    for matrix in matrices:
        exact = fraction_of(matrix)
        if exact is not None:
            cos, sin = cos_sin(frequency * exact[0])
        else:
            angle = frequency * math.atan2(matrix[1, 0], matrix[0, 0])
            cos, sin = math.cos(angle), math.sin(angle)
        sign = 1.0 if np.linalg.det(matrix) > 0 else -1.0
        found.append([[cos, -sin * sign], [sin, cos * sign]])
    return np.array(found)


def _spatial(irrep: Irrep, matrices: np.ndarray) -> np.ndarray:
    d = matrices.shape[-1]
    volume = np.tile(np.eye(3), (len(matrices), 1, 1))
    volume[:, :d, :d] = matrices
    assert irrep.p is not None
    return _irrep(irrep.l, irrep.p, volume)


def _irrep(degree: int, parity: int, volume: np.ndarray) -> np.ndarray:
    """Return (count, 2l + 1, 2l + 1): within the product of degrees l - 1 and 1."""
    import e3nn_jax

    signs = np.rint(np.linalg.det(volume))[:, None, None]
    if degree == 0:
        return np.ones_like(signs) if parity == 1 else signs
    if degree == 1:
        return volume * signs if parity == 1 else volume
    below = _irrep(degree - 1, 1, volume)
    coupling = e3nn_jax.clebsch_gordan(degree - 1, 1, degree).astype(float)
    coupling = coupling * math.sqrt(2 * degree + 1)
    found = np.einsum(
        "abc,uad,ube,def->ucf", coupling, below, volume * signs, coupling, optimize=True
    )
    whole = np.rint(found)
    found = np.where(np.abs(found - whole) < UNIT, whole, found)
    return found if parity == 1 else found * signs


@functools.lru_cache(maxsize=1024)
def _parsed(irreps: str) -> tuple[tuple[int, Irrep], ...]:
    """Return copies and irreps, in their order."""
    terms = [_TERM.fullmatch(term.strip()) for term in irreps.split("+")]
    planar = [t is not None and t[2] != "0" and not t[3] for t in terms]
    if not any(planar):
        return _parsed_by_e3nn(irreps)
    found = []
    for term, in_plane in zip(terms, planar, strict=True):
        if term is None or not (in_plane or (term[2] == "0" and term[3])):
            raise ValueError(
                "expected irreps of O(2), such as '2x0e + 0o + 4x1 + 2', or of O(3), "
                f"such as '0e + 1o + 2x2e', got {irreps!r}"
            )
        parity = {"e": 1, "o": -1, "": None}[term[3]]
        found.append((int(term[1] or 1), Irrep(int(term[2]), parity)))
    return tuple(found)


def _parsed_by_e3nn(irreps: str) -> tuple[tuple[int, Irrep], ...]:
    import e3nn_jax  # takes seconds to import

    try:
        terms = e3nn_jax.Irreps(irreps)
    except (ValueError, TypeError, AssertionError) as error:
        raise ValueError(
            "expected irreps of O(3), such as '0e + 1o + 2x2e', or of O(2), such as "
            f"'0e + 1 + 2x2', got {irreps!r}"
        ) from error
    return tuple((copies, Irrep(irrep.l, irrep.p)) for copies, irrep in terms)


def turned(
    x: jax.Array, fiber: IrrepsFiber, matrix: np.ndarray, *, axis: int = -1
) -> jax.Array:
    """Return x with its components along an axis multiplied by rho(matrix)."""
    rho = jnp.asarray(fiber.matrix(matrix), x.dtype)
    moved = jnp.tensordot(x, rho, [[axis], [1]], precision="highest")
    return jnp.moveaxis(moved, -1, axis)


def lift_irreps(x: jax.Array, irreps: str, *, group: Group) -> jax.Array:
    """Turn an image with values in irreps into a regular field.

    Args:
      x: (batch, *space, irreps.dim), channels laid out as e3nn-jax has them; "1o" is a
        vector with components in array axis order, of which there are three in a plane,
        too, the third along its normal. "1" is a vector within the plane.
      irreps: such as "1o" for a vector or "0e + 1o + 2e"; "1" in the plane.
      group: a subgroup of the ambient group, of a volume, a plane or a line.

    Returns:
      (batch, *space, |ambient|, irreps.dim).

    Raises:
      ValueError: the channels do not fit the irreps, or the axes the group.

    >>> import eqjax as eq
    >>> flow = jnp.ones((1, 6, 6, 2))
    >>> lift_irreps(flow, "1", group=eq.dihedral(4)).shape
    (1, 6, 6, 8, 2)
    """
    check_group("group", group)
    check_array("x", x)
    ambient, irreps = group.ambient, str(irreps)
    frames = representations(irreps, ambient.matrices)[ambient.inverse]
    _check(x, (frames.shape[-1],), irreps, group)
    return jnp.einsum(
        "...j,uij->...ui", x, jnp.asarray(frames, x.dtype), precision="highest"
    )


def lower_irreps(x: jax.Array, irreps: str, *, group: Group) -> jax.Array:
    """Turn a regular field into an image with values in irreps.

    The adjoint of `lift_irreps` up to the mean: what a lift has made comes back as it
    was, and any layer between the two keeps its symmetry.

    Args:
      x: (batch, *space, |ambient|, irreps.dim).
      irreps: of the values.
      group: a subgroup of the ambient group.

    Returns:
      (batch, *space, irreps.dim).

    Raises:
      ValueError: the channels do not fit the irreps, or the axes the group.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> vectors = jax.random.normal(jax.random.key(0), (1, 6, 6, 3))
    >>> field = lift_irreps(vectors, "1o", group=D4)
    >>> bool(jnp.allclose(lower_irreps(field, "1o", group=D4), vectors, atol=1e-6))
    True
    """
    check_group("group", group)
    check_array("x", x)
    irreps = str(irreps)
    matrices = representations(irreps, group.ambient.matrices)
    _check(x, matrices.shape[:2], irreps, group)
    weights = jnp.asarray(matrices / len(matrices), x.dtype)
    return jnp.einsum("...ui,uji->...j", x, weights, precision="highest")


def _check(x: jax.Array, last: tuple[int, ...], irreps: str, group: Group) -> None:
    axes = group.dimension
    if x.ndim != 1 + axes + len(last) or x.shape[1 + axes :] != last:
        raise ValueError(
            f"expected (batch, {axes} spatial axes, {', '.join(map(str, last))}) for "
            f"irreps {irreps!r} and {group!r}, got shape {x.shape}"
        )
