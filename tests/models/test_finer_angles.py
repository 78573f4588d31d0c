"""Networks over finer angles: exact where they can be, near elsewhere, and searched."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqjax as eq
from eqjax import training
from eqjax.population import encoding
from tests.layers.test_angles import smooth

D8 = eq.dihedral(8)
GROUPS = {"C8": eq.cyclic(8), "D8": D8, "C6": eq.cyclic(6)}


def network(group, **settings):
    architecture = eq.Architecture.uniform(group, 3)
    kind = {"features": (1, 2), "pool_after": (1,), "classes": 3, "pooling": "blur"}
    return eq.exact(architecture, **{**kind, **settings})


@pytest.mark.slow
@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("size", [14, 15])
def test_logits_are_exact_at_right_angles_and_near_at_others(name, size):
    group = GROUPS[name]
    model = network(group, head_features=8)
    x = smooth(size, 1).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    apply = jax.jit(lambda x: model.apply(variables, x))
    before = apply(x)
    exact = model.symmetry((size, size))
    assert exact == group.exact_subgroup
    for u in group.elements:
        gap = jnp.abs(apply(eq.transform(x, u, group=group)) - before).max()
        assert gap < (1e-4 if u in exact else 0.3)
    report = eq.symmetry(model, x, variables=variables)
    assert report.kept == exact
    assert len(report.approximate) == group.order - exact.order
    assert "approximate on pixels" in str(report)


def test_exact_groups_have_nothing_approximate():
    model = network(eq.dihedral(4), pooling="exact")
    report = eq.symmetry(model, jnp.ones((1, 12, 12, 1)))
    assert report.approximate == {}
    assert "approximate" not in str(report)
    assert network(eq.dihedral(4)).symmetry((12, 12)) == eq.dihedral(4)


@pytest.mark.slow
def test_relaxing_a_trained_network_keeps_its_function_and_its_optimizer():
    model = network(D8, head_features=8)
    optimizer = optax.adam(1e-2)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 12, 12, 1)), jnp.float32)
    y = np.arange(8) % 3
    state = training.init_state(jax.random.key(0), model, optimizer, x)
    for _ in range(3):
        state, _ = training.train_step(state, x, y, model=model, optimizer=optimizer)
    target = network(D8.subgroup("C8"), head_features=8)
    sides = {"source": model, "target": target, "inputs": x}
    variables, report = eq.morph(state.variables, **sides)
    np.testing.assert_allclose(
        target.apply(variables, x), model.apply(state.variables, x), atol=1e-4
    )
    assert all(change.relative_change < 1e-5 for change in report.layers)
    moved = eq.morph_optimizer(state.opt_state, **sides)
    relaxed = training.pack_state(variables, moved)
    after, _ = training.train_step(relaxed, x, y, model=target, optimizer=optimizer)
    before, _ = training.train_step(state, x, y, model=model, optimizer=optimizer)
    expected, _ = eq.morph(before.variables, **sides)
    got = target.apply(after.variables, x)
    kept = target.apply(expected, x)
    start = target.apply(variables, x)
    assert jnp.abs(got - start).max() > 1e-3
    # Tied mirrors and free ones step alike as far as the gradient has the mirror.
    cosine = jnp.vdot(got - start, kept - start) / (
        jnp.linalg.norm(got - start) * jnp.linalg.norm(kept - start)
    )
    assert cosine > 0.5


@pytest.mark.slow
def test_one_program_trains_members_of_all_groups():
    model = network(D8, head_features=8)
    x = jax.random.normal(jax.random.key(1), (4, 12, 12, 1))
    run = jax.jit(model.apply)
    for name in ("D8", "C8", "D4:22.5°", "D1:22.5°", "C1"):
        own = network(D8.subgroup(name), head_features=8)
        variables = jax.jit(own.init)(jax.random.key(2), x)
        state = encoding.encode(training.pack_state(variables, ()), model=own, inputs=x)
        np.testing.assert_allclose(
            run(state.variables, x), own.apply(variables, x), atol=1e-5
        )
    assert run._cache_size() == 1


def test_a_kernel_size_for_each_convolution():
    model = network(D8, kernel_size=(7, 3), head_features=8)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 12, 12, 1)))
    per_orbit = [variables["params"][f"conv{n}"]["kernel"].shape[0] for n in (1, 2)]
    assert per_orbit == [18, 6 * 16]
    with pytest.raises(ValueError, match="one for each of the 2 convolutions"):
        network(D8, kernel_size=(7, 5, 3))
    with pytest.raises(ValueError, match="pooling must be one of"):
        network(D8, pooling="none")


@pytest.mark.parametrize("name", ["C8", "C16", "D16"])
def test_the_network_of_e2cnn_is_as_wide_over_every_group(name):
    kind = {"C": eq.cyclic, "D": eq.dihedral}[name[0]]
    group = kind(int(name[1:]))
    model = eq.e2cnn(eq.Architecture.uniform(group, 7))
    assert [n * group.order for n in model.features] == [192, 384, 384, 768, 768, 512]
    small = eq.e2cnn(eq.Architecture.uniform(group, 7), width=1 / 12)
    shapes = jax.eval_shape(
        small.init_with_output, jax.random.key(0), jnp.ones((1, 29, 29, 1))
    )
    assert shapes[0].shape == (1, 10)


def test_saved_and_loaded(tmp_path):
    basis = eq.CircularHarmonics((0.0, 1.0), (0.3, 0.5), (0, 2))
    layers = (
        (eq.LiftingConv(2, 3, group=D8.subgroup("D4:22.5°"), basis=basis), (9, 9, 1)),
        (
            eq.IrrepsConv("0e+1", 3, group=eq.orthogonal(2), irreps_in="1"),
            (9, 9, 2),
        ),
    )
    for number, (layer, shape) in enumerate(layers):
        x = jax.random.normal(jax.random.key(0), (1, *shape))
        variables = layer.init(jax.random.key(1), x)
        folder = tmp_path / str(number)
        eq.save(folder, layer, variables, inputs=x)
        saved = eq.load(folder)
        assert saved.model == layer
        np.testing.assert_array_equal(
            saved.model.apply(saved.variables, x), layer.apply(variables, x)
        )
