"""Laplace evidence: its formula, and that it knows noise from signal."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqjax as eq
from eqjax.analysis.gradients import ProbedLayer
from eqjax.analysis.laplace import _log_evidence

D4 = eq.dihedral(4)
LAYER = eq.LiftingConv(1, 3, group=D4)
PROBED = ProbedLayer((), LAYER, (3, 3, 1, 8, 1, 1))


def test_it_is_the_evidence_of_a_gaussian_model_orbit_by_orbit():
    rng = np.random.default_rng(0)
    prior = 3.0
    raw = rng.normal(size=(30, 72, 1))
    table = PROBED.table(D4)
    index = table.index.reshape(-1)

    def average(group):
        own = PROBED.table(group).index.reshape(-1)
        return (own[:, None] == own) / np.bincount(own)[own]

    left = raw - np.einsum("ij,bjc->bic", average(D4), raw)
    for name in ("C4", "D1:i", "C1"):
        H = D4.subgroup(name)
        expected = 0.0
        for orbit in range(table.num_orbits):
            inside = index == orbit
            part = (average(H) - average(D4))[np.ix_(inside, inside)]
            values, vectors = np.linalg.eigh(part)
            basis = vectors[:, values > 0.5]  # the directions that H allows
            each = left[:, inside, 0] @ basis
            fisher = each.T @ each
            whole = fisher + prior * np.eye(len(fisher))
            gradient = each.sum(0)
            expected += gradient @ np.linalg.inv(whole) @ gradient / 2
            expected -= np.log(np.linalg.det(whole / prior)) / 2
        assert _log_evidence(PROBED, left, prior, H) == pytest.approx(expected)


def gaussian(outputs, y):
    """The negative log-likelihood of noise of deviation 0.5, up to a constant."""
    return jnp.sum((outputs - y) ** 2, (1, 2, 3, 4)) / (2 * 0.5**2)


def teacher_and_student(truth, seed):
    """Outputs of a layer of some symmetry, and a D4 layer that was fitted to them."""
    keys = jax.random.split(jax.random.key(seed), 4)
    x = jax.random.normal(keys[0], (400, 5, 5, 1))
    teacher = eq.LiftingConv(1, 3, group=truth, use_bias=False)
    y = teacher.apply(teacher.init(keys[1], x), x)
    y = y + 0.5 * jax.random.normal(keys[2], y.shape)
    student = eq.LiftingConv(1, 3, group=D4, use_bias=False)
    variables = student.init(keys[3], x)

    def loss(params):
        return jnp.mean((student.apply({"params": params}, x) - y) ** 2)

    optimizer = optax.adam(0.05)
    params = variables["params"]
    state = optimizer.init(params)

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    for _ in range(200):
        params, state = step(params, state)
    assert loss(params) < (0.3 if truth == D4 else 3.0)
    return student, {"params": params}, np.asarray(x), np.asarray(y)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["D4", "C4", "D1:i"])
def test_it_names_the_symmetry_of_the_targets(name):
    truth = D4.subgroup(name)
    for seed in range(3):
        student, variables, x, y = teacher_and_student(truth, seed)
        rows = eq.laplace_evidence(
            variables,
            model=student,
            x=x,
            y=y,
            key=jax.random.key(9),
            loss_fn=gaussian,
        )
        row = rows[()]
        assert max(row.values()) - row[name] < 3  # nats, by chance
        others = [row[H.name] for H in D4.subgroups if not truth >= H]
        assert max(others, default=0) < row[name] + 3
        if truth != D4:
            assert row[name] > 100


@pytest.mark.parametrize("conditional", [True, False])
def test_noise_is_no_evidence(conditional):
    """Where all that is left is noise, every subgroup costs more than it explains."""
    student, variables, x, y = teacher_and_student(D4, 5)
    kind = {"model": student, "x": x, "y": y, "loss_fn": gaussian}
    rows = eq.laplace_evidence(
        variables, key=jax.random.key(1), conditional=conditional, **kind
    )
    (row,) = rows.values()
    assert row["D4"] == 0
    assert all(value < 0 for name, value in row.items() if name != "D4")


def test_the_groups_of_the_layers_are_there_whatever_groups_are_given():
    """Else a search among given groups would relax without any evidence for it."""
    student, variables, x, y = teacher_and_student(D4, 0)
    kind = {"model": student, "x": x, "y": y, "loss_fn": gaussian}
    rows = eq.laplace_evidence(
        variables, key=jax.random.key(1), groups=(D4.subgroup("C4"),), **kind
    )
    assert list(rows[()]) == ["D4", "C4"]
    assert rows[()]["D4"] == 0 > rows[()]["C4"]


def test_given_groups_and_precision_are_used():
    student, variables, x, y = teacher_and_student(D4.subgroup("C4"), 0)
    kind = {"model": student, "x": x, "y": y, "key": jax.random.key(9)}
    kind |= {"loss_fn": gaussian, "groups": (D4.subgroup("C4"),)}
    values = [
        eq.laplace_evidence(variables, precision=prior, conditional=False, **kind)[()][
            "C4"
        ]
        for prior in (1.0, 1e12)
    ]
    assert values[0] > 0
    assert abs(values[1]) < 0.01  # a prior at zero allows nothing


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": 0.0}, "must be positive"),
        ({"block_size": 200}, "800 samples"),
        ({"groups": (eq.cyclic(4),)}, "subgroups of .*D4.*, got .*C4"),
        ({"groups": ("C4",)}, "subgroups of .*D4.*, got 'C4'"),
    ],
)
def test_bad_settings(settings, message):
    student, variables, x, y = teacher_and_student(D4, 0)
    with pytest.raises(ValueError, match=message):
        eq.laplace_evidence(
            variables, model=student, x=x, y=y, key=jax.random.key(0), **settings
        )


def test_labels_that_the_model_does_not_have():
    """A cross-entropy takes the last class for a label beyond it, without a word."""
    groups = eq.Architecture.uniform(D4, 2)
    model = eq.exact(groups, features=(1,), pool_after=(), kernel_size=3, classes=2)
    x = np.zeros((8, 6, 6, 1), np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    with pytest.raises(ValueError, match="label"):
        eq.laplace_evidence(
            variables, model=model, x=x, y=np.arange(8), key=jax.random.key(0)
        )
