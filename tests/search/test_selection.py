"""NSGA-II is pymoo's, ties and all; aging removes the oldest."""

import jax
import numpy as np
import pytest
from hypothesis import given, strategies as st
from pymoo.core.individual import Individual
from pymoo.core.population import Population
from pymoo.operators.survival.rank_and_crowding import RankAndCrowding
from pymoo.operators.survival.rank_and_crowding.metrics import get_crowding_function
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

import eqjax as eq
from eqjax.search import SELECTIONS, Evolution, Score, relax_and_constrain
from eqjax.search.dominance import crowding, ranks
from eqjax.search.selection import best_of_history, select_aging

D4 = eq.dihedral(4)
KEY = jax.random.key(0)
START = eq.Architecture.uniform(D4, 2)

# Few values, so that there are ties in one objective and in all.
rows = st.integers(2, 3).flatmap(
    lambda n: st.lists(
        st.lists(st.integers(0, 4), min_size=n, max_size=n), min_size=1, max_size=14
    )
)


@given(rows)
def test_fronts_are_pymoos(points):
    found = ranks(np.array(points, float))
    for number, front in enumerate(NonDominatedSorting().do(np.array(points, float))):
        np.testing.assert_array_equal(np.flatnonzero(found == number), np.sort(front))


@given(rows)
def test_crowding_is_pymoos(points):
    oracle = get_crowding_function("cd").do(np.array(points, float))
    np.testing.assert_allclose(crowding(np.array(points, float)), oracle)


def test_one_row_and_many_rows():
    assert ranks(np.zeros((1, 2))).tolist() == [0]
    assert crowding(np.zeros((1, 2))).tolist() == [np.inf]
    many = np.random.default_rng(0).normal(size=(300, 3))
    oracle = NonDominatedSorting().do(many)
    assert [np.sum(ranks(many) == i) for i in range(len(oracle))] == [*map(len, oracle)]
    np.testing.assert_allclose(crowding(many), get_crowding_function("cd").do(many))


SIX = [D4.subgroup(name, 0) for name in ("D4", "C4", "D2", "C2", "D1", "C1")]


@pytest.mark.parametrize(("name", "third"), [("nsga2", 0), ("nsga2_symmetry", 1)])
@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(1, 5), st.integers(0, 5)),
        min_size=1,
        max_size=12,
    ),
    st.integers(1, 8),
)
def test_survivors_are_those_of_pymoo(name, third, children, size):
    """Equal crowding at the cut is broken by error here, by chance there."""
    architectures = [START.replace(1, SIX[group]) for _, _, group in children]
    scores = [Score(float(error), count) for error, count, _ in children]
    orders = [np.log(a.groups[1].order) for a in architectures]
    points = np.array(
        [
            [s.error, s.parameters, -order][: 2 + third]
            for s, order in zip(scores, orders, strict=True)
        ]
    )
    kept = SELECTIONS[name](architectures, scores, size, KEY)
    assert len(kept) == len(set(kept)) == min(size, len(children))
    population = Population.create(
        *(Individual(F=F, number=i) for i, F in enumerate(points))
    )
    survivors = RankAndCrowding()._do(
        None, population, n_survive=size, random_state=np.random.RandomState(0)
    )
    front = ranks(points)
    distance = np.zeros(len(points))
    for number in set(front.tolist()):
        distance[front == number] = crowding(points[front == number])
    expected = [(s.get("rank"), -s.get("crowding")) for s in survivors]
    found = [(front[i], -distance[i]) for i in kept]
    assert found == sorted(found), "best first"
    np.testing.assert_allclose(found, sorted(expected), atol=1e-12)
    if size < len(children):
        assert min(scores)[:2] == scores[kept[0]][:2], "the least error stays, first"


def test_symmetry_is_a_third_objective():
    architectures = [START, START.replace(1, SIX[-1])]
    scores = [Score(0.2, 9), Score(0.1, 8)]  # the symmetric one is dominated
    assert SELECTIONS["nsga2"](architectures, scores, 1, KEY) == [1]
    assert SELECTIONS["pareto"](architectures, scores, 2, KEY) == [1, 0]
    front = ranks(np.array([[0.2, 9, -START.log_order], [0.1, 8, -np.log(8)]]))
    assert front.tolist() == [0, 0]


def test_the_oldest_is_removed_never_the_worst():
    scores = [Score(0.1, 1, age=2), Score(0.9, 1, age=0), Score(0.5, 1, age=1)]
    assert select_aging([START] * 3, scores, 2, KEY) == [2, 1]
    assert select_aging([START] * 3, scores, 1, KEY) == [1]
    assert select_aging([START] * 3, scores, 3, KEY) == [0, 2, 1]


def test_places_among_equals_of_age_go_to_winners_of_tournaments():
    scores = [Score(i / 10, 1) for i in range(10)]
    drawn = [
        select_aging([START] * 10, scores, 4, key) for key in jax.random.split(KEY, 50)
    ]
    assert len({tuple(kept) for kept in drawn}) > 10
    assert all(9 not in kept for kept in drawn), "the last loses every tournament"
    often = np.bincount(np.concatenate(drawn), minlength=10)
    assert often[:3].sum() > often[3:6].sum() > often[6:].sum()


def test_no_member_outlives_the_children_that_take_its_place():
    """A search that ages moves on from the best, which its history keeps."""
    search = Evolution(4, SELECTIONS["aging"], children=3, propose=relax_and_constrain)
    state, records = search.init(START), []
    for generation, key in enumerate(jax.random.split(KEY, 6)):
        proposals = search.ask(state, key)
        scores = [
            Score(
                0.0 if p.architecture == START else 0.5, p.architecture.groups[0].order
            )
            for p in proposals
        ]
        before, (state, kept) = state, search.tell(state, proposals, scores, key)
        children = [
            {
                "groups": list(p.architecture.names),
                "validation_error": s.error,
                "parameters": s.parameters,
            }
            for p, s in zip(proposals, scores, strict=True)
        ]
        records.append({"generation": generation, "children": children})
        for position, score in zip(kept, state.scores, strict=True):
            proposal = proposals[position]
            copied = proposal.architecture == before.architectures[proposal.parent]
            older = before.scores[proposal.parent].age + 1 if before.scores else 0
            assert score.age == (older if copied else 0)
        if generation > 2:
            assert all(score.age == 0 for score in state.scores)
    best = best_of_history(records)
    assert best["groups"] == ["D4", "D4"]
    assert best["generation"] == 0
    assert best_of_history([]) is None
