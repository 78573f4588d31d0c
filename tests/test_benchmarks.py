"""What the benchmarks compare is the same work."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqjax as eq
from benchmarks.plain import PlainCNN
from benchmarks.report import seconds_in_turns
from benchmarks.search import Recompiling
from benchmarks.soak import verdict
from benchmarks.step import network
from eqjax.search import SearchLoop
from eqjax_experiments.data import catalogue
from eqjax_experiments.tasks.evolve import EvolutionTask, make_loop


def test_the_plain_network_has_the_width_of_the_equivariant_one():
    ours = network(1)
    plain = PlainCNN(tuple(8 * n for n in ours.features))
    x = jax.ShapeDtypeStruct((2, 28, 28, 1), jnp.float32)
    shapes = [
        jax.eval_shape(m.init, jax.random.key(0), x)["params"] for m in (ours, plain)
    ]
    for i in range(len(ours.features)):
        tied = shapes[0][f"conv{i + 1}"]["kernel"].shape
        free = shapes[1][f"PlainConv_{i}"]["kernel"].shape
        assert free[-1] == 8 * tied[-1]
        assert free[-2] == (8 * tied[-2] if i else 1)
        assert free[:2] == (5, 5)


@pytest.mark.slow
def test_the_recompiling_search_is_the_same_search():
    config = EvolutionTask(
        features=(1, 2),
        pool_after=(1, 2),
        kernel_size=3,
        head_features=4,
        first_epochs=0.1,
        epochs=0.1,
        population_size=2,
        children=2,
        optimizer="sgd",
        learning_rate=0.05,
    )
    ours = make_loop(config, catalogue.load("quarter"), jax.devices()[:1])
    fields = {f.name: getattr(ours, f.name) for f in dataclasses.fields(SearchLoop)}
    numbers = []
    for search in (ours, Recompiling(**fields)):
        point = ours.start(config.first_architecture)
        for _ in range(3):
            point, record = search.generation(point, lambda done, total: None)
            rows = record["children"]
        numbers.append([[r["train_loss"], r["validation_loss"]] for r in rows])
        names = [r["groups"] for r in rows]
    assert len(names) == 4
    np.testing.assert_allclose(*numbers, rtol=1e-3)


def test_programs_are_timed_in_turns():
    order = []
    programs = {name: lambda name=name: order.append(name) for name in "ab"}
    seconds = seconds_in_turns(programs, 2)
    assert order == list("ab" * 3)
    assert all(taken > 0 for taken in seconds.values())


@pytest.mark.parametrize("channels", [1, 2])
def test_the_network_of_the_step_is_the_one_described(channels):
    assert network(channels).features == (channels,) * 4 + (2 * channels,) * 4
    assert network(channels).symmetry((28, 28)) == eq.dihedral(4)


def soaked(leaked_mib=0.0, leaked_programs=0):
    """The lines of a soak of 200 iterations, with noise as an allocator makes it."""
    rng = np.random.default_rng(0)
    return [
        {
            "process": 1,
            "rss_mib": 900.0 + min(i, 20) + rng.normal() + leaked_mib * i,
            "arrays": 70,
            "arrays_mib": 0.03,
            "programs": 300 + leaked_programs * i,
            "objects": 1000,
        }
        for i in range(200)
    ]


def test_a_soak_tells_a_leak_from_noise():
    assert verdict(soaked())["flat"]
    assert not verdict(soaked(leaked_mib=1.0))["flat"]
    assert not verdict(soaked(leaked_programs=1))["flat"]
    found = verdict(soaked(leaked_mib=0.25))
    assert found["per_iteration"]["rss_mib"]["slope"] == pytest.approx(0.25, abs=0.02)
    with pytest.raises(ValueError, match="a slope needs 20 iterations after"):
        verdict(soaked()[:20])
