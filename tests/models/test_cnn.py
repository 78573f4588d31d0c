import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqjax as eq
from eqjax import training
from tests.tolerances import BROKEN, SINGLE

D4 = eq.dihedral(4)
SIX = ("C1", "C2", "C4", "D1", "D2", "D4")
SMALL = {
    "features": (2, 2, 3),
    "kernel_size": 3,
    "pool_after": (1, 2),
    "head_features": 4,
    "classes": 3,
}


def shapes(model, size=28):
    x = jax.ShapeDtypeStruct((1, size, size, 1), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), x)


@pytest.mark.parametrize(
    ("name", "expected"), [("D4", 891_098), ("C4", 1_761_898), ("C1", 6_986_698)]
)
def test_parameter_counts_of_the_paper(name, expected):
    model = eq.paper(eq.Architecture.uniform(D4.subgroup(name), 8))
    assert training.count_parameters(shapes(model)["params"]) == expected


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        (eq.Mixture(tuple(map(D4.subgroup, SIX))), 18_307_098),
        ((eq.Tied(), *[eq.ResidualPathway()] * 7), 7_854_298),
    ],
    ids=["mixed", "residual"],
)
def test_parameter_counts_of_the_paper_for_other_constraints(constraint, expected):
    model = eq.paper(eq.Architecture.uniform(D4, 8), constraint=constraint)
    assert training.count_parameters(shapes(model)["params"]) == expected


def test_a_networks_symmetry_is_that_of_its_constraints():
    architecture = eq.Architecture.uniform(D4, 4)
    C4, C2 = D4.subgroup("C4"), D4.subgroup("C2")
    one = eq.exact(architecture, **SMALL, constraint=eq.Mixture((D4, C4)))
    assert one.symmetry((8, 8)) == C4
    each = (eq.Tied(), eq.Tied(), eq.Mixture((C4, C2)), eq.Tied())
    assert one.clone(constraint=each).symmetry((8, 8)) == C2
    assert one.clone(constraint=eq.PartialGroup()).symmetry((8, 8)).order == 1
    with pytest.raises(ValueError, match="one for each of the 4 layers.*got 2"):
        one.clone(constraint=each[:2])


def test_counts_of_other_ambient_groups_with_the_same_real_channels():
    model = eq.paper(
        eq.Architecture.uniform(eq.cyclic(4), 8), features=(32,) * 4 + (64,) * 4
    )
    assert training.count_parameters(shapes(model)["params"]) == 1_761_898


def trained(model, size, steps=3):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(8, size, size, 1)), jnp.float32)
    y = jnp.asarray(rng.integers(3, size=8))
    import optax

    optimizer = optax.adam(0.01)
    state = training.init_state(jax.random.key(0), model, optimizer, x)
    state, _ = training.train(state, [(x, y)] * steps, model=model, optimizer=optimizer)
    return jax.jit(lambda x: model.apply(state.variables, x)), x


@pytest.mark.parametrize("size", [8, 9, 12])
def test_a_trained_exact_network_is_invariant_to_its_symmetry(size):
    architecture = eq.Architecture.parse(D4, "D4 D2:i+j D2:i+j D1:i+j")
    model = eq.exact(architecture, **SMALL)
    fn, x = trained(model, size)
    kept = model.symmetry((size, size))
    assert kept.name == "D1:i+j"
    for u in range(8):
        moved = fn(eq.transform(x, u, group=D4))
        error = np.linalg.norm(moved - fn(x)) / np.linalg.norm(fn(x))
        assert error < SINGLE if u in kept else error > BROKEN


def test_the_papers_network_says_that_it_is_not_exact():
    architecture = eq.Architecture.uniform(D4, 3)
    model = eq.paper(architecture, **SMALL)
    assert model.symmetry((8, 8)).order == 1
    fn, x = trained(model, 8)
    assert eq.equivariance_error(fn, x, group=D4) > BROKEN
    pooled = eq.exact(eq.Architecture.uniform(D4, 4), **SMALL, pooling="3x3")
    assert pooled.symmetry((8, 8)).name == "D1:i-j"
    assert pooled.symmetry((9, 9)).name == "D4"
    assert eq.exact(eq.Architecture.uniform(D4, 9)).symmetry((28, 28)).name == "D4"


def test_exact_networks_survive_sizes_of_either_parity():
    model = eq.exact(eq.Architecture.uniform(D4, 4), **SMALL)
    assert model.symmetry((28, 28)).name == "D4"
    assert model.symmetry((9, 9)).name == "D4"
    assert model.symmetry((8, 12)).name == "D2:i"


@pytest.mark.parametrize(
    ("group", "space"),
    [
        (D4.subgroup("D2:i"), (28, 14)),
        (D4.subgroup("D2:i"), (10, 7)),
        (D4.subgroup("D2:i"), (5, 12)),
        (D4, (12, 12)),
        (D4, (7, 7)),
        (D4.subgroup("C4"), (6, 6)),
        (eq.flip(), (14,)),
        (eq.full_octahedral().subgroup("C4:k"), (6, 6, 7)),
    ],
)
def test_every_axis_is_halved_in_a_way_that_keeps_its_reversal(group, space):
    model = eq.exact(
        eq.Architecture.uniform(group, 3),
        features=(1, 1),
        kernel_size=3,
        pool_after=(1, 2),
        head_features=2,
        classes=2,
    )
    assert model.symmetry(space) == group
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, *space, 1)), jnp.float32)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    fn = jax.jit(lambda x: model.apply(variables, x))
    assert eq.equivariance_error(fn, x, group=group) < SINGLE


def test_bfloat16():
    model = eq.exact(eq.Architecture.uniform(D4, 4), **SMALL, dtype=jnp.bfloat16)
    x = jnp.ones((1, 8, 8, 1))
    logits, variables = model.init_with_output(jax.random.key(0), x)
    assert logits.dtype == jnp.float32
    assert variables["params"]["conv1"]["kernel"].dtype == jnp.float32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "batch"}, "norm must be one of .*'batch'"),
        ({"pooling": "2x2"}, "pooling must be one of"),
        ({"head": "linear"}, "head must be one of"),
        ({"parametrization": "free"}, "parametrization must be one of"),
        ({"pool_after": (4,)}, r"convolutions 1 to 3, got \(4,\)"),
        ({"features": (2, 2)}, "2 convolutions and 'invariant' head need 3 groups"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        eq.exact(eq.Architecture.uniform(D4, 4), **{**SMALL, **settings})
