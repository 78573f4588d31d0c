"""Hill climbing: its moves keep the function, and the best network goes on."""

import jax
import numpy as np
import optax
import pytest

import eqjax as eq
from eqjax import search
from eqjax.search.climbing import Climber, _moved

D4 = eq.dihedral(4)
MODEL = eq.exact(
    eq.Architecture.parse(D4, "D4 D4 C4"),
    features=(2, 3),
    kernel_size=3,
    pool_after=(1,),
    head_features=4,
    classes=2,
)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 8, 8, 1)).astype(np.float32)
Y = np.arange(16) % 2


@pytest.mark.parametrize("move", [search.widen, search.deepen, search.enlarge])
@pytest.mark.parametrize("seed", range(3))
def test_growing_moves_keep_the_function(move, seed):
    variables = jax.jit(MODEL.init)(jax.random.key(seed), X)
    parent = Climber(MODEL, variables, 0.0, ())
    rng = np.random.default_rng(seed)
    model, grown, names = _moved(parent, (move,), 2, X, rng, None)
    assert names == (move.__name__,) * 2
    before = jax.jit(MODEL.apply)(variables, X)
    np.testing.assert_allclose(jax.jit(model.apply)(grown, X), before, atol=1e-4)
    assert eq.training.count_parameters(grown["params"]) > (
        eq.training.count_parameters(variables["params"])
    )


def test_a_relaxation_keeps_the_function_and_groups_stay_in_order():
    variables = jax.jit(MODEL.init)(jax.random.key(0), X)
    before = jax.jit(MODEL.apply)(variables, X)
    for seed in range(8):
        moved = search.regroup(MODEL, np.random.default_rng(seed))
        assert moved.model.architecture.is_monotone
        own = {"source": MODEL, "target": moved.model, "inputs": X}
        carried, _ = eq.morph(variables, **own)
        pairs = zip(
            moved.model.architecture.groups, MODEL.architecture.groups, strict=True
        )
        if all(H <= G for H, G in pairs):
            after = jax.jit(moved.model.apply)(carried, X)
            np.testing.assert_allclose(after, before, atol=1e-4)


def climb(**settings):
    own = {"optimizer": optax.adam, "climbs": 2, "children": 2, "moves_per_child": 1}
    lengths = {"first_steps": 3, "steps": 2, "batch_size": 8}
    return eq.hill_climb(MODEL, (X, Y), (X, Y), **{**own, **lengths, **settings})


@pytest.mark.slow
def test_the_best_goes_on_and_a_climb_resumes_to_the_same():
    seen = []
    found = climb(on_climb=lambda number, tried, best: seen.append((number, best)))
    assert [number for number, _ in seen] == [0, 1, 2]
    for children, (_, best) in zip(found.history, seen, strict=True):
        assert best.error == min(child.error for child in children)
    assert found.history[1][0].moves == ()  # the unchanged one is among them
    again = climb(resume=seen[1])
    assert again.best.model == found.best.model
    jax.tree.map(
        np.testing.assert_array_equal, again.best.variables, found.best.variables
    )
    assert len(str(found).splitlines()) == 4


def test_without_moves_it_is_a_training_with_restarts():
    found = climb(moves=(), children=1)
    assert all(len(children) == 1 for children in found.history)
    assert found.best.model == MODEL


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("climbs", 0),
        ("children", 1),
        ("moves_per_child", 0),
        ("first_steps", 1),
        ("steps", 1),
    ],
)
def test_bad_numbers(name, least):
    wrong = least - 1
    with pytest.raises(ValueError, match=f"^{name} must be at least {least}, got "):
        climb(**{name: wrong})
