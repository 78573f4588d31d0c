"""The test by held-out losses: its level is exact, and it sees what breaks a group."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqjax as eq

D4 = eq.dihedral(4)
SIZE = 6


class Linear(nn.Module):
    """Fixed filters, one per class: any function that images can be read by."""

    seed: int = 0

    def __call__(self, x):
        filters = jax.random.normal(jax.random.key(self.seed), (SIZE, SIZE, 2))
        return jnp.einsum("nijc,ijk->nk", x, filters)


class Chirality(nn.Module):
    """Tells an image from its mirror images, and not from itself turned."""

    def __call__(self, x):
        filters = jax.random.normal(jax.random.key(0), (1, SIZE, SIZE, 1))
        turned = jnp.concatenate([eq.transform(filters, u, group=D4) for u in range(8)])
        scores = jnp.einsum("nijc,uij->nu", x, turned[..., 0])
        mirrors = jnp.array([np.linalg.det(m) < 0 for m in D4.matrices])
        plain = jnp.where(mirrors, -jnp.inf, scores).max(1)
        mirrored = jnp.where(mirrors, scores, -jnp.inf).max(1)
        return 3 * jnp.stack([plain, mirrored], -1)


def images(count, seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, SIZE, SIZE, 1)).astype(np.float32)


def labels(model, x):
    return np.asarray(model.apply({}, x)).argmax(-1)


def test(model, x, y, **settings):
    options = {"group": D4, "key": jax.random.key(1), **settings}
    return eq.held_out_test({}, model=model, x=x, y=y, **options)


test.__test__ = False


def test_a_true_group_is_rejected_as_often_as_the_level_says():
    """Images moved by random elements of C4, read by a network without symmetry."""
    C4, rejected, runs = D4.subgroup("C4"), 0, 200
    for seed in range(runs):
        x = images(30, seed)
        y = labels(Linear(1), x)
        moved = eq.augment(jax.random.key(seed), jnp.asarray(x), group=C4)
        report = test(
            Linear(2), np.asarray(moved), y, groups=(C4,), level=0.1, draws=99
        )
        rejected += report.network["C4"].rejected
    # Binomial of 200 and 0.1: mean 20, deviation 4.2; four of them each way.
    assert 3 <= rejected <= 37


def test_classes_that_a_reflection_exchanges_are_seen():
    """To a network with D4 these two classes are one, and its gradient is blind."""
    x = images(200, 0)
    report = test(Chirality(), x, labels(Chirality(), x))
    assert report.maximal == (D4.subgroup("C4"),)
    assert report.network["D4"].p == 0.001
    assert report.network["C4"].evidence == pytest.approx(1, abs=1e-4)
    assert report.network["D4"].moved > 2 * report.loss


def test_data_without_symmetry_have_none():
    x = images(200, 0)
    report = test(Linear(), x, labels(Linear(), x))
    assert report.maximal == (D4.smallest,)
    assert "not rejected: C1" in str(report)
    assert report.numbers()["network"]["D4"]["rejected"]


def test_the_statistic_is_what_the_definition_says():
    x = images(20, 3)
    y = labels(Linear(1), x)
    report = test(Linear(), x, y)
    for H in D4.subgroups:
        losses = []
        for u in H.elements:
            logits = np.asarray(
                Linear().apply({}, eq.transform(jnp.asarray(x), u, group=D4))
            )
            log_sum = np.log(np.exp(logits).sum(-1))
            losses.append(log_sum - logits[np.arange(20), y])
        np.testing.assert_allclose(report.network[H.name].moved, np.mean(losses), 1e-5)


def test_masks_move_with_their_images():
    class Doubled(nn.Module):
        def __call__(self, x):
            return jnp.concatenate([-9 * x, 9 * x], -1)

    x = images(10, 0)
    y = (x[..., 0] > 0).astype(int)

    def move(y, u):
        return eq.transform(jnp.asarray(y)[..., None], u, group=D4)[..., 0]

    def loss(outputs, y):
        picked = jnp.take_along_axis(jax.nn.log_softmax(outputs), y[..., None], -1)
        return -picked.mean((1, 2, 3))

    report = test(Doubled(), x, y, loss_fn=loss, move_targets=move)
    assert report.maximal == (D4,)
    with pytest.raises(ValueError, match="move_targets="):
        test(Doubled(), x, y, loss_fn=loss)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"group": eq.dihedral(8)}, "does not map the pixels"),
        ({"x": images(4, 0)[:, :, :4]}, "does not map the pixels"),
        ({"level": 0.001, "draws": 99}, "draws must be at least 999"),
        ({"groups": (eq.dihedral(8).subgroup("C8"),)}, "must be subgroups of"),
        ({"x": images(4, 0)[:0], "y": np.zeros(0, int)}, "no samples|at least one"),
        ({"x": np.full((4, SIZE, SIZE, 1), np.nan, np.float32)}, "not finite"),
    ],
)
def test_bad_arguments_are_errors(change, message):
    x = images(4, 0)
    given = {"x": x, "y": np.arange(4) % 2, **change}
    with pytest.raises(ValueError, match=message):
        test(Linear(), **given)


def test_a_network_that_knows_nothing_says_so():
    x, y = images(80, 0), np.arange(80) % 2
    told = "may be too ignorant"
    ignorant = test(Linear(2), np.zeros_like(x), y)
    assert ignorant.loss == pytest.approx(ignorant.chance) == pytest.approx(np.log(2))
    assert told in str(ignorant)
    assert told not in str(test(Chirality(), x, labels(Chirality(), x)))
