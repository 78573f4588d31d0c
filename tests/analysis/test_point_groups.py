"""The test of closed subgroups of O(3): its level, its power, and networks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqjax as eq
from eqjax.analysis.gradients import ProbedLayer
from eqjax.analysis.point_groups import _moved, closed_gains, point_test
from tests.tolerances import DOUBLE

O3 = eq.orthogonal()
NAMES = ("O(3)", "D∞h", "C∞v", "C∞", "D4h", "C2v")
LATTICE = [H for H in O3.subgroups if H.name in (*NAMES, "C1")]
LAYER = eq.IrrepsLinear("0e + 1o", group=O3, irreps_in="1o + 2e")
PROBED = ProbedLayer(("layer",), LAYER, (8, 4, 1, 1))
BLOCKS, LEVEL, REPEATS = 30, 0.1, 100


def tells(H, K):
    """Whether the layer has directions that K allows and H does not."""
    return PROBED.table(H).num_orbits < PROBED.table(K).num_orbits


def moved_at_random(group, rng):
    """Gradients of blocks whose distribution is invariant under a group."""
    table = PROBED.table(group)
    pattern = table.spread(np.ones(table.num_orbits)).reshape(-1)
    plain = pattern + 0.5 * rng.normal(size=(BLOCKS, 32))
    return _moved(PROBED, plain[..., None], group.sample(rng, BLOCKS))[..., None]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_true_groups_are_rejected_as_often_as_the_level_says(name):
    truth = O3.subgroup(name)
    wrong = named = 0
    for repeat in range(REPEATS):
        rng = np.random.default_rng([repeat, len(name)])
        found = moved_at_random(truth, rng)
        network, _ = point_test([PROBED], [found], LATTICE, 39, rng)
        rejected = {H for H, row in network.items() if row.adjusted <= LEVEL}
        wrong += any(truth >= H for H in rejected)
        named += all(H in rejected for H in LATTICE if truth < H and tells(H, truth))
    allowed = LEVEL * REPEATS
    assert wrong <= allowed + 3 * (allowed * (1 - LEVEL)) ** 0.5, (wrong, named)
    assert named > 0.8 * REPEATS, (wrong, named)


@pytest.mark.parametrize("H", O3.subgroups, ids=str)
def test_elements_are_drawn_from_the_group_uniformly(H):
    rng = np.random.default_rng(0)
    drawn = H.sample(rng, 4_000)
    assert all(H.contains(m) for m in drawn[:50])
    np.testing.assert_allclose(
        drawn @ drawn.transpose(0, 2, 1) - np.eye(3), 0, atol=1e-9
    )
    # The mean of a representation over the group is the projection on what it keeps.
    fiber = eq.IrrepsFiber("0o + 1o + 2e")
    means = np.mean([fiber.matrix(m) for m in drawn[:1_500]], 0)
    table = PROBED.layer.clone(irreps_in="0o + 1o + 2e", irreps_out="0e").ties_of(H)
    basis = table["kernel"].table
    full = basis.spread(np.diag(basis.size**-0.5)).reshape(9, -1)
    np.testing.assert_allclose(means, full @ full.T, atol=0.12)


class Points(eq.IrrepsLinear):
    """A map at every point, and the sum over points."""

    def __call__(self, x):
        return super().__call__(x).sum(-2)


@pytest.fixture(scope="module")
def field():
    """The test of a network of positions in a field along the last axis."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 5, 3)).astype(np.float32)
    model = Points("0e", group=O3, irreps_in="1o", use_bias=False)

    def loss_fn(outputs, y):
        return (jnp.sum(outputs, -1) - y[:, 0]) ** 2

    return functools.partial(
        eq.symmetry_test,
        model.init(jax.random.key(0), x[:1]),
        model=model,
        x=x,
        y=(x[..., 2:] ** 3).sum(1),
        key=jax.random.key(1),
        loss_fn=loss_fn,
        draws=99,
        level=0.02,
    )


def test_a_network_in_a_field_names_the_axis(field):
    report = field(irreps_in="1o")
    assert report.group == O3
    assert [H.name for H in report.maximal] == ["C∞v"]
    assert report.network["C∞v"].gain > 0
    assert "not rejected: C∞v" in str(report)
    assert report.notes == ()
    with pytest.raises(ValueError, match="say by irreps_in"):
        field()
    with pytest.raises(ValueError, match="groups must be subgroups"):
        field(irreps_in="1o", groups=(eq.dihedral(4),))


def test_what_a_report_cannot_tell_is_said(field):
    def loss_fn(outputs, y):  # weighs samples by where the first point is
        return (jnp.sum(outputs, -1) - y[:, 2]) ** 2

    y = field.keywords["x"][:, 0]
    report = field(irreps_in="1o", loss_fn=loss_fn, y=y, move_targets=turn_first)
    assert report.group.name == "C∞v"
    assert "does not keep O(3), so that only subgroups of C∞v" in report.notes[0]
    report = field(irreps_in="1o", block_size=400)
    assert "one block of samples cannot tell" in report.notes[-1]


def turn_first(y, matrix):
    return y @ np.asarray(matrix, y.dtype).T


def test_gains_are_those_of_the_new_directions():
    rng = np.random.default_rng(0)
    found = 1 + 0.1 * rng.normal(size=(BLOCKS, 32, 1)).astype(np.float32)
    gains = closed_gains(PROBED, found, 10, LATTICE)
    assert np.isnan(gains[O3].nats) or gains[O3].nats == 0
    counts = {H: gains[H].parameters for H in LATTICE}
    assert all(counts[H] <= counts[K] for H in LATTICE for K in LATTICE if H >= K)
    assert gains[LATTICE[-1]].parameters == 32 - PROBED.table(O3).num_orbits
    full = PROBED.table(O3.subgroup("C∞v"))
    inside = full.spread(full.mean(found.mean(0).reshape(8, 4, 1, 1)))
    again = full.spread(full.mean(inside))
    np.testing.assert_allclose(again, inside, atol=1e4 * DOUBLE)
