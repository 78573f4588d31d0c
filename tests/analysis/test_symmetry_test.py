"""The symmetry test: its gradients, its level, its power, and bad input."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

import eqjax as eq
from eqjax import training
from eqjax.analysis.gradients import block_gradients, moved_by, probed_layers
from eqjax.analysis.randomization import closed_test, gram_products, lattice_of
from eqjax.morphism.matching import tied_model

D4 = eq.dihedral(4)


def network(groups="D4 D4 D4", **settings):
    architecture = eq.Architecture.parse(D4, groups)
    kind = {"features": (2, 2), "kernel_size": 3, "pool_after": (), "classes": 2}
    return eq.exact(architecture, **{**kind, **settings})


def sample(n, seed=0, size=6):
    """Images whose left and right differ by class: no symmetry but D1 and C1."""
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=n)
    x = rng.normal(size=(n, size, size, 1)).astype(np.float32)
    x[:, :2, :2, 0] += 1.0 + y[:, None, None]  # a corner: kept by a diagonal mirror
    return x, y


def moved(x, group, seed=1):
    """Every image after a random element: invariant under the group."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(group.elements, len(x))
    return np.stack(
        [
            np.asarray(eq.transform(image[None], int(u), group=D4))[0]
            for image, u in zip(x, chosen, strict=True)
        ]
    )


def initial(model, x, seed=0):
    return jax.jit(model.init)(jax.random.key(seed), x[:1])


def test_a_probe_gives_the_gradient_of_the_full_kernel():
    model, (x, y) = network(), sample(8)
    variables = initial(model, x)
    found = tied_model(model, x[:1])
    layers = probed_layers(found, variables)
    settings = {"model": model, "loss_fn": training.cross_entropy}
    gradients = block_gradients(variables, layers, [(x, y)], **settings)

    def loss(variables):
        return training.cross_entropy(model.apply(variables, x), y).loss.mean()

    expected = jax.grad(loss)(variables)["params"]
    for each, own in zip(layers, gradients, strict=True):
        table = each.table(each.layer.group)
        summed = np.zeros((table.num_orbits, each.channels), np.float32)
        np.add.at(summed, table.index.reshape(-1), own[0])
        tied = expected[each.path[0]]["kernel"].reshape(summed.shape)
        np.testing.assert_allclose(summed, tied, rtol=1e-4, atol=1e-6)


def test_the_gradient_at_moved_images_is_the_moved_gradient():
    model, (x, y) = network(), sample(8)
    variables = initial(model, x)
    layers = probed_layers(tied_model(model, x[:1]), variables)
    settings = {"model": model, "loss_fn": training.cross_entropy}
    for u in D4.elements:
        turned = np.asarray(eq.transform(x, u, group=D4))
        blocks = [(x, y), (turned, y)]
        for each, own in zip(
            layers, block_gradients(variables, layers, blocks, **settings), strict=True
        ):
            expected = moved_by(own[0], each.table(D4), u)
            assert np.linalg.norm(own[1] - expected) < 1e-5 * np.linalg.norm(own[0])


def vectors(group, blocks, signal, rng):
    """Vectors on which the group acts by its regular representation."""
    return rng.normal(size=(blocks, 3, group.order)) + signal


def grams_of(g, group):
    """<g_b, u . g_c> with (u . g)(a) = g(u^-1 a)."""
    blocks = len(g)
    found = []
    for u in range(group.order):
        source = group.product[group.inverse[u]]
        turned = g[..., source]
        found.append(g.reshape(blocks, -1) @ turned.reshape(blocks, -1).T)
    return np.stack(found).astype(np.float32)


def test_statistics_equal_those_of_vectors_that_are_moved_one_by_one():
    rng = np.random.default_rng(0)
    g = vectors(D4, 7, 0.3, rng)
    for group in lattice_of(D4.subgroups)[:-1]:
        products = functools.partial(gram_products, gram=grams_of(g, D4), whole=D4)
        results, _ = closed_test([products], 7, (group,), 19, np.random.default_rng(3))
        drawn = np.random.default_rng(3).integers(group.order, size=(20, 7))
        drawn[0] = 0
        values = []
        for positions in drawn:
            mean = np.zeros_like(g[0])
            for b, position in enumerate(positions):
                u = group.elements[position]
                mean += g[b][:, D4.product[D4.inverse[u]]] / 7
            turned = [mean[:, D4.product[D4.inverse[u]]] for u in group.elements]
            values.append(np.sum((mean - np.mean(turned, 0)) ** 2))
        expected = (1 + np.sum(np.array(values[1:]) >= values[0])) / 20
        assert results[group].p == expected
        assert results[group].statistic == pytest.approx(values[0], rel=1e-4)
        assert results[group].evidence == pytest.approx(
            values[0] / np.mean(values[1:]), rel=1e-4
        )


def test_p_values_are_uniform_where_the_null_is_true():
    rng = np.random.default_rng(0)
    groups = lattice_of(D4.subgroups)
    seen = {group: [] for group in groups}
    rejected = 0
    for _ in range(300):
        # Distributions with D4: each vector is moved by a random element.
        g = vectors(D4, 12, np.arange(D4.order), rng)
        for b, u in enumerate(rng.integers(D4.order, size=12)):
            g[b] = g[b][:, D4.product[D4.inverse[u]]]
        products = functools.partial(gram_products, gram=grams_of(g, D4), whole=D4)
        results, _ = closed_test([products], 12, groups, 39, rng)
        for group in groups:
            seen[group].append(results[group].p)
        rejected += any(outcome.adjusted <= 0.05 for outcome in results.values())
    assert set(seen.pop(D4.smallest)) == {1.0}
    for p in seen.values():
        jittered = np.array(p) - rng.uniform(0, 1 / 40, size=len(p))
        assert stats.kstest(jittered, "uniform").pvalue > 1e-3
    assert rejected <= stats.binom(300, 0.05).ppf(0.999)


@pytest.fixture(scope="module")
def corner():
    """A D4 network trained on corners, and corners with the symmetry of a mirror."""
    x, y = sample(1600)
    mirror = D4.subgroup("D1:i-j")
    x = moved(x, mirror)
    model = network()
    optimizer = optax.adam(0.01)
    state = training.init_state(jax.random.key(0), model, optimizer, x[:32])
    rng = np.random.default_rng([1, 1])
    drawn = training.batches(training.Split(x, y), 32, 150, rng)
    state, _ = training.train(state, drawn, model=model, optimizer=optimizer)
    return model, state.variables, x, y, mirror


def test_the_true_group_is_named(corner):
    model, variables, x, y, mirror = corner
    report = eq.symmetry_test(
        variables, model=model, x=x, y=y, key=jax.random.key(0), block_size=4
    )
    assert report.maximal == (mirror,)
    assert not report.network[mirror.name].rejected
    assert report.network["C2"].rejected
    assert report.network["C2"].evidence > 3
    assert report.network["D4"].p <= 0.05
    assert report.network["C1"].p == 1
    assert not report.network["C1"].rejected
    assert report.layers["conv1"]["C1"].gain > 0
    row = report.layers["conv1"]["C4"]
    assert row is report.layers[("conv1",)]["C4"]
    table = eq.kernels.kernel_table
    fibers = eq.LiftingConv(2, 3, group=D4).fibers
    orbits = [table(H, (3, 3), *fibers).num_orbits for H in (D4.subgroup("C4"), D4)]
    assert np.isfinite(row.gain)  # of one layer and a wrong group, of either sign
    assert row.added_parameters == 2 * (orbits[0] - orbits[1])
    assert report.layers["conv1"]["D4"].gain == 0
    assert "not rejected: D1:i-j" in str(report)
    assert report.numbers()["layers"]["conv1"]["C4"]["p"] == row.p
    assert len(report.draw().axes) >= 2


def test_layers_in_several_passes_give_the_same(corner):
    model, variables, x, y, _ = corner
    settings = {"model": model, "x": x[:60], "y": y[:60], "draws": 99}
    one, many = (
        eq.symmetry_test(variables, key=jax.random.key(0), memory=memory, **settings)
        for memory in (2**30, 1)
    )
    for name, row in one.network.items():
        assert many.network[name].p == row.p
        assert many.network[name].evidence == pytest.approx(row.evidence, rel=1e-4)


def test_one_sample_cannot_tell(corner):
    model, variables, x, y, _ = corner
    report = eq.symmetry_test(
        variables, model=model, x=x[:1], y=y[:1], key=jax.random.key(0)
    )
    assert report.maximal == (D4,)
    assert all(row.p == 1 and not row.rejected for row in report.network.values())
    assert "one block" in str(report)


def test_a_layer_without_gradient_says_nothing(corner):
    model, variables, x, y, _ = corner
    zeros = jax.tree.map(jnp.zeros_like, variables["params"]["logits"])
    params = {**variables["params"], "logits": zeros}
    report = eq.symmetry_test(
        {**variables, "params": params},
        model=model,
        x=x[:40],
        y=y[:40],
        key=jax.random.key(0),
        draws=19,
    )
    for rows in report.layers.values():
        assert all(row.p == 1 and row.evidence == 1 for row in rows.values())
    assert "says nothing" in str(report)


def test_gradients_that_are_not_finite_are_named(corner):
    model, variables, x, y, _ = corner
    x = x[:40].copy()
    x[13] = np.nan
    with pytest.raises(ValueError, match="conv1 is not finite in 1 of 40 blocks"):
        eq.symmetry_test(variables, model=model, x=x, y=y[:40], key=jax.random.key(0))


def test_images_that_are_not_square_keep_the_groups_of_their_grid():
    model = network()
    x, y = sample(20)
    x = x[:, :, :4]
    report = eq.symmetry_test(
        initial(model, x), model=model, x=x, y=y, key=jax.random.key(0), draws=19
    )
    assert report.group == D4.subgroup("D2:i")
    assert set(report.network) == {"D2:i", "C2", "D1:i", "D1:j", "C1"}
    assert "does not map images" in str(report)


def test_a_model_without_symmetric_layers_is_refused():
    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(x.reshape(len(x), -1))

    x, y = sample(8)
    model = Plain()
    with pytest.raises(ValueError, match="no layer of eqjax with a kernel"):
        eq.symmetry_test(
            initial(model, x), model=model, x=x, y=y, key=jax.random.key(0)
        )


def test_layers_of_others_that_break_the_group_are_noticed():
    class Broken(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = eq.LiftingConv(2, 3, group=D4)(x)
            x = nn.relu(nn.Conv(4, (3, 3))(x.reshape(*x.shape[:3], -1)))
            return nn.Dense(2)(x.mean((1, 2)))

    x, y = sample(20)
    model = Broken()
    report = eq.symmetry_test(
        initial(model, x), model=model, x=x, y=y, key=jax.random.key(0), draws=19
    )
    assert report.group.order == 1
    assert list(report.network) == ["C1"]
    assert "does not keep D4" in str(report)


@pytest.mark.parametrize("constraint", [eq.ResidualPathway(), eq.Mixture((D4,))])
def test_any_constraint_has_a_row_for_what_it_is_sure_to_keep(constraint):
    model = network(constraint=constraint)
    x, y = sample(20)
    report = eq.symmetry_test(
        initial(model, x), model=model, x=x, y=y, key=jax.random.key(0), draws=19
    )
    assert report.group == constraint.symmetry(D4)


def test_a_large_ambient_group():
    Oh = eq.full_octahedral()

    class Volumes(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(eq.LiftingConv(1, 3, group=Oh)(x))
            return nn.Dense(2)(eq.InvariantHead(2, group=Oh)(x))

    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 3, 3, 3, 1)).astype(np.float32)
    y = rng.integers(2, size=12)
    model = Volumes()
    few = [Oh.subgroup("Oh"), *Oh.covers[:2]]
    report = eq.symmetry_test(
        initial(model, x),
        model=model,
        x=x,
        y=y,
        key=jax.random.key(0),
        draws=19,
        groups=few,
    )
    assert report.group == Oh
    assert len(report.network) == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"level": 0}, "level must be between 0 and 1"),
        ({"draws": 5}, "draws must be at least 19"),
        ({"block_size": 0}, "block_size must be at least 1"),
        ({"block_size": 99}, "block_size must be at most 8"),
        ({"groups": [eq.flip()]}, "must be subgroups of"),
        ({"y": np.full(8, 2)}, "label 2 of sample 0"),
    ],
)
def test_bad_settings(settings, message):
    x, y = sample(8)
    model = network()
    arguments = {"x": x, "y": y, **settings}
    with pytest.raises(ValueError, match=message):
        eq.symmetry_test(
            initial(model, x), model=model, key=jax.random.key(0), **arguments
        )


def test_maps_of_the_pixels_are_not_left_behind():
    x, y = sample(8)
    model = network()
    variables, key = initial(model, x), jax.random.key(0)
    settings = {"model": model, "x": x, "key": key, "draws": 19}
    masks = {"class": y, "mask": np.zeros(x.shape[:-1], int)}

    def loss_fn(outputs, targets):
        return eq.training.cross_entropy(outputs, targets["class"])

    with pytest.raises(ValueError, match="and would stay where they are"):
        eq.symmetry_test(variables, y=masks, loss_fn=loss_fn, **settings)
    stay = eq.symmetry_test(
        variables, y=masks, loss_fn=loss_fn, move_targets=lambda y, u: y, **settings
    )
    plain = eq.symmetry_test(variables, y=y, **settings)
    assert stay.network["C4"].p == plain.network["C4"].p


def test_layers_under_scan_are_refused():
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return eq.GroupConv(2, 3, group=D4)(x), None

    class Deep(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = eq.LiftingConv(2, 3, group=D4)(x)
            deep = nn.scan(
                Block,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=2,
            )
            x, _ = deep()(x, None)
            return nn.Dense(2)(eq.InvariantHead(2, group=D4)(x))

    x, y = sample(8)
    model = Deep()
    with pytest.raises(ValueError, match="stacked by nn.scan"):
        eq.symmetry_test(
            initial(model, x), model=model, x=x, y=y, key=jax.random.key(0)
        )
