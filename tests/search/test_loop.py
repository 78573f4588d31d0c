"""A whole search on noise: layers go back up, halves score, losses are paired."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

import eqjax as eq
from eqjax import kernels
from eqjax.morphism.matching import tied_model
from eqjax.search import (
    Evolution,
    SearchLoop,
    one_standard_error,
    relax_and_constrain,
)
from eqjax.search.scoring import halves
from eqjax.training import Split

D4 = eq.dihedral(4)
X = jax.ShapeDtypeStruct((8, 6, 6, 1), np.float32)


def network(architecture):
    sizes = {"kernel_size": 3, "pool_after": (1,), "head_features": 3}
    return eq.exact(architecture, features=(2, 2), classes=2, **sizes)


def parse(names):
    return eq.Architecture.parse(D4, names)


def make_loop(search, samples=15, **settings):
    rng = np.random.default_rng(0)
    train, validation = (
        Split(rng.normal(size=(n, *X.shape[1:])).astype("f4"), np.arange(n) % 2)
        for n in (24, samples)
    )
    population = eq.Population(
        network(parse("D4 D4 D4")), optax.adam(0.01), X, eq.Strategy(width=2)
    )
    return SearchLoop(
        search, network, population, train, validation, 2, 2, 0, **settings
    )


def quiet(done, total):
    pass


def upward(parent, children):
    """Try children of more symmetry first."""
    return [child for child in children if child.contains(parent)]


def full_kernels(state, architecture):
    """The kernels and biases over all entries, with their ties."""
    found = tied_model(network(architecture), X)
    params = flatten_dict(state.params)
    return {
        path[1:]: (kernels.expand(jnp.asarray(params[path[1:]]), tie), tie)
        for path, tie in found.ties.items()
    }


@pytest.mark.slow
def test_a_search_that_goes_up_ties_its_layers_to_the_larger_group():
    """From C1 everywhere on; the parameters are those of the larger groups alone."""
    search = Evolution(3, children=3, propose=relax_and_constrain, order=upward)
    loop = make_loop(search)
    point = loop.start(parse("C1 C1 C1"))
    for _ in range(5):
        point, record = loop.generation(point, quiet)
        assert record["diverged"] == 0
    risen = [
        (architecture, member)
        for architecture, member in zip(
            point.state.architectures, point.members, strict=True
        )
        if architecture.groups[0].order > 1
    ]
    assert risen
    for architecture, member in risen:
        for full, tie in full_kernels(member, architecture).values():
            tied = kernels.reynolds(full, tie.table)
            np.testing.assert_array_equal(full, tied)


def test_going_up_is_the_projection_and_carries_moments():
    """Weights are orbit averages; of Adam, what the sum of gradients would have."""
    loop = make_loop(Evolution())
    small, large = parse("C1 C1 C1"), parse("D4 C4 C1")
    models = network(small), network(large)
    member = loop.start(small).members[0]
    stack = loop.population.load([member], [models[0]])
    stack, _ = loop.population.train(
        stack, [(loop.train[0][:8], loop.train[1][:8])] * 3
    )
    (before,) = loop.population.unload(stack, [models[0]])
    stack = loop.population.relax(stack, [models[1]])
    (after,) = loop.population.unload(stack, [models[1]])
    old, new = full_kernels(before, small), full_kernels(after, large)
    moments = flatten_dict(before.opt_state[0].mu), flatten_dict(after.opt_state[0].mu)
    squares = flatten_dict(before.opt_state[0].nu), flatten_dict(after.opt_state[0].nu)
    compared = 0
    for path, (full, tie) in new.items():
        projected = kernels.reynolds(old[path][0], tie.table)
        np.testing.assert_allclose(full, projected, rtol=1e-5, atol=1e-6)
        index = np.asarray(tie.table.index).reshape(-1)
        own = np.asarray(old[path][1].table.index).reshape(-1)
        if len(set(own)) < len(own):
            continue  # already tied: entries have no moments of their own
        # The gradient of a tied entry is the sum over its orbit, and so is its mean.
        flat = moments[0][path].reshape(len(own), -1).T[:, own]
        np.testing.assert_allclose(
            moments[1][path].reshape(tie.table.num_orbits, -1).T,
            [np.bincount(index, values) for values in flat],
            atol=1e-6,
        )
        # Its square is at most the size of the orbit times the sum of the squares.
        flat = squares[0][path].reshape(len(own), -1).T[:, own]
        np.testing.assert_allclose(
            squares[1][path].reshape(tie.table.num_orbits, -1).T,
            [np.bincount(index, values) * np.bincount(index) for values in flat],
            rtol=1e-4,
            atol=1e-12,
        )
        compared += 1
    assert compared
    assert after.opt_state[0].count == before.opt_state[0].count


def test_a_network_that_went_up_is_invariant_and_stays_so():
    loop = make_loop(Evolution())
    population, batch = loop.population, (loop.train[0][:8], loop.train[1][:8])
    small, large = network(parse("C1 C1 C1")), network(parse("D4 D4 D4"))
    images = loop.validation.images

    def turned(state, model):
        return [
            model.apply(state.variables, x)
            for x in (images, np.rot90(images, axes=(1, 2)), images[:, ::-1])
        ]

    stack = population.load(loop.start(parse("C1 C1 C1")).members, [small])
    first, turn, flip = turned(population.unload(stack, [small])[0], small)
    assert min(np.abs(first - turn).max(), np.abs(first - flip).max()) > 1e-3
    stack = population.relax(stack, [large])
    for _ in range(2):
        first, *others = turned(population.unload(stack, [large])[0], large)
        for other in others:
            np.testing.assert_allclose(other, first, atol=1e-5)
        stack, _ = population.train(stack, [batch] * 3)


def test_losses_are_kept_beside_the_rows_and_paired():
    loop = make_loop(Evolution(3, children=3, parsimony=one_standard_error))
    point = loop.start(parse("D4 D4 D4"))
    for _ in range(3):
        point, record = loop.generation(point, quiet)
        losses, rows = record["losses"], record["children"]
        assert losses.shape == (len(rows), 15)
        assert losses.dtype == np.float32
        assert not any("losses" in row for row in rows)
        means = [row["validation_loss"] for row in rows]
        np.testing.assert_allclose(losses.mean(1), means, rtol=1e-6)
        architectures = [parse(row["groups"]) for row in rows]
        stood = one_standard_error(architectures, losses)
        assert {i for i, row in enumerate(rows) if row["kept"] is not None} <= set(
            stood
        )


def test_rules_that_keep_all_change_nothing():
    plain = Evolution(3, children=3)
    ruled = dataclasses.replace(plain, parsimony=lambda a, losses: list(range(len(a))))
    points = []
    for search in (plain, ruled):
        loop = make_loop(search)
        point = loop.start(parse("D4 D4 D4"))
        for _ in range(2):
            point, _ = loop.generation(point, quiet)
        points.append(point)
    a, b = points
    assert a.state.architectures == b.state.architectures
    for one, other in zip(a.state.scores, b.state.scores, strict=True):
        assert one.error == pytest.approx(other.error)


def test_survivors_are_scored_on_the_other_half():
    loop = make_loop(Evolution(2, children=3), rescore=True)
    assert loop.selecting_samples == 8
    point = loop.start(parse("D4 D4 D4"))
    for generation in range(3):
        point, record = loop.generation(point, quiet)
        rows = [row for row in record["children"] if row["kept"] is not None]
        rows.sort(key=lambda row: row["kept"])
        scores = point.state.scores
        assert [score.error for score in scores] == [r["rescored_error"] for r in rows]
        selecting, scoring = halves(15, loop.seed, generation)
        stack = loop.population.load(
            point.members[:1], [network(point.state.architectures[0])]
        )
        for part, name in (
            (selecting, "validation_error"),
            (scoring, "rescored_error"),
        ):
            measured = loop.population.evaluate(
                stack, loop.validation.images[part], loop.validation.labels[part]
            )
            assert measured.error[0] == pytest.approx(rows[0][name])


def test_halves_are_drawn_anew():
    first, second = (halves(100, 0, generation)[0].tolist() for generation in (1, 2))
    assert first != second
    assert first == halves(100, 0, 1)[0].tolist()
    assert 10 < len(set(first) & set(second)) < 40


def test_a_score_on_the_other_half_is_not_the_lucky_one():
    """Many networks alike: the least error of one half says nothing of the other."""
    rng = np.random.default_rng(0)
    lucky, fresh = [], []
    for generation in range(200):
        wrong = rng.random((12, 60)) < 0.2
        selecting, scoring = halves(60, 0, generation)
        best = wrong[:, selecting].mean(1).argmin()
        lucky.append(wrong[best, selecting].mean())
        fresh.append(wrong[best, scoring].mean())
    assert np.mean(lucky) < 0.11
    assert np.mean(fresh) == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize(
    ("settings", "samples"),
    [({"rescore": True}, 2), ({"parsimony": one_standard_error}, 1)],
)
def test_too_few_samples_to_compare(settings, samples):
    search = Evolution(parsimony=settings.get("parsimony"))
    with pytest.raises(ValueError, match=f"compares at least 2 .* got {samples}"):
        make_loop(search, samples, rescore=settings.get("rescore", False))


def distance(outputs, y):
    return (outputs[:, 0] - y) ** 2


def test_a_member_lost_on_the_scoring_half_alone_is_lost():
    loop = make_loop(Evolution(2), rescore=True)
    _, scoring = halves(15, loop.seed, 0)
    targets = loop.validation.labels.astype("f4")
    targets[scoring[0]] = np.nan
    broken = dataclasses.replace(
        loop,
        population=dataclasses.replace(loop.population, loss_fn=distance),
        validation=Split(loop.validation.images, targets),
    )
    point, record = broken.generation(broken.start(parse("D4 D4 D4")), quiet)
    assert record["diverged"] == 1
    assert record["children"][0]["validation_error"] is None
    assert record["children"][0]["validation_loss"] > 0
    assert point.state.scores == ()
