"""Searches over generators: states, memory, and what an agent learns."""

import itertools

import numpy as np
import pytest

import eqjax as eq
from eqjax.search import GeneratorSpace
from eqjax.search.generators import AGENTS, DeepQ, Transition

D4 = eq.dihedral(4)


def test_states_stand_for_all_subgroups():
    space = GeneratorSpace(D4, layers=3)
    states = itertools.product((0, 1), repeat=space.bits)
    groups = [space.architecture(state).groups for state in states]
    assert {own[0] for own in groups} == set(D4.subgroups)
    assert all(len(set(own)) == 1 for own in groups)
    assert len(groups) == 2**6


def test_parts_have_groups_of_their_own():
    space = GeneratorSpace(D4, layers=5, parts=2, generators=(D4.subgroup("C4"),))
    assert str(space.architecture((1, 0))) == "C4 C4 C4 C1 C1"
    with pytest.raises(ValueError, match="expected a state of 2, got 1"):
        space.architecture((1,))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GeneratorSpace(D4, 3, parts=4), "from 1 to the 3 layers, got 4"),
        (lambda: GeneratorSpace(D4, 3, generators=(eq.cyclic(4),)), "is not in"),
        (lambda: GeneratorSpace(D4.smallest, 3), "no generators"),
    ],
)
def test_spaces_that_cannot_be(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("agent", AGENTS)
def test_a_network_is_trained_once(agent):
    asked = []

    def evaluate(groups):
        asked.append(groups)
        return groups.groups[0].order / 8

    space = GeneratorSpace(D4, layers=2)
    kind = {"agent": agent, "trainings": 6, "steps": 80}
    found = eq.search_generators(evaluate, space, **kind)
    assert len(asked) == len(set(asked)) == len(found.accuracies) <= 6
    assert len(found.steps) >= len(asked) - 1
    assert found.accuracies[found.best] == max(found.accuracies.values())
    again = eq.search_generators(lambda g: g.groups[0].order / 8, space, **kind)
    assert again.steps == found.steps


def test_of_equals_the_most_symmetric_is_best():
    space = GeneratorSpace(D4, layers=2)
    found = eq.search_generators(lambda _: 0.5, space, agent="random", trainings=20)
    assert str(found.best) == "D4 D4"
    assert "D4 D4" in str(found)


def test_deep_q_learns_which_bit_pays():
    agent = DeepQ(4, 0, explore=1, batch=32, width=32, depth=2, rate=1e-2, discount=0.0)
    rng = np.random.default_rng(0)
    for _ in range(150):
        state = tuple(rng.integers(2, size=4).tolist())
        action = int(rng.integers(4))
        after = tuple(b ^ (i == action) for i, b in enumerate(state))
        reward = float(after[2]) - float(state[2])  # only bit 2 pays, put in
        agent.learn(Transition(state, action, reward, after))
    agent.count = 10_000  # no more than one step in a hundred is random
    chosen = [agent.act((0, 1, 0, 0)) for _ in range(20)]
    assert np.mean(np.array(chosen) == 2) > 0.8
    kept = [agent.act((0, 1, 1, 0)) for _ in range(20)]
    assert np.mean(np.array(kept) == 2) < 0.2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"agent": "deep q"}, "'deep Q', 'random', got 'deep q'"),
        ({"trainings": 0}, "at least 1, got 0 and 500"),
        ({"steps": 0}, "at least 1, got 12 and 0"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        eq.search_generators(lambda _: 0.5, GeneratorSpace(D4, 2), **settings)
