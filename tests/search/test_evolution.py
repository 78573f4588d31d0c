"""The search on problems whose answer is known; nothing is trained here."""

import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, strategies as st
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

import eqjax as eq
from eqjax.search.evolution import Evolution
from eqjax.search.selection import SELECTIONS, Score, pareto_front

D4 = eq.dihedral(4)
SIX = tuple(D4.subgroup(n, 0) for n in ("D4", "C4", "D2", "C2", "D1", "C1"))
KEY = jax.random.key(0)
START = eq.Architecture.uniform(D4, 3)


def parameters(architecture):
    return sum(512 // group.order for group in architecture.groups)


def search(evolution, error, generations, start=START):
    """Run a search whose children need no training."""
    state = evolution.init(start)
    history = []
    for key in jax.random.split(KEY, generations):
        ask_key, tell_key = jax.random.split(key)
        proposals = evolution.ask(state, ask_key)
        scores = [
            Score(error(p.architecture), parameters(p.architecture)) for p in proposals
        ]
        state, kept = evolution.tell(state, proposals, scores, tell_key)
        history.append((proposals, scores, kept))
    return state, history


scores = st.lists(
    st.tuples(st.integers(0, 5), st.integers(1, 6)), min_size=1, max_size=12
)


@given(scores)
def test_front_is_pymoos_without_repetitions(points):
    found = pareto_front([Score(float(e), p) for e, p in points])
    oracle = NonDominatedSorting().do(np.array(points, float))[0]
    assert {points[i] for i in found} == {points[i] for i in oracle}
    assert len({points[i] for i in found}) == len(found)
    errors = [points[i][0] for i in found]
    assert errors == sorted(errors)


@pytest.mark.parametrize("name", SELECTIONS)
@given(scores, st.integers(1, 6))
def test_selections_keep_distinct_positions(name, points, size):
    architectures = [START.replace(2, SIX[i % 6]) for i in range(len(points))]
    values = [Score(float(e), p) for e, p in points]
    kept = SELECTIONS[name](architectures, values, size, KEY)
    assert len(kept) == len(set(kept)) <= size
    if name == "unique":
        assert len({architectures[i] for i in kept}) == len(kept)
    else:
        assert len(kept) == min(size, len(points))
    if name == "top":
        errors = [values[i].error for i in range(len(points))]
        assert [values[i].error for i in kept] == sorted(errors)[: len(kept)]
    if name in ("pareto", "two_fronts"):
        front = pareto_front(values)
        assert (
            set(kept) <= set(front) if size <= len(front) else set(front) <= set(kept)
        )


def test_the_front_is_filled_by_error():
    values = [Score(0.1, 9), Score(0.2, 8), Score(0.15, 10), Score(0.12, 11)]
    kept = SELECTIONS["pareto"]([START] * 4, values, 3, KEY)
    assert kept == [0, 1, 3]


def test_two_fronts():
    values = [Score(0.1, 9), Score(0.2, 8), Score(0.15, 10), Score(0.3, 9)]
    assert SELECTIONS["two_fronts"]([START] * 4, values, 4, KEY) == [0, 1, 2, 3]


def test_random_selection_depends_on_the_key_alone():
    values = [Score(i / 10, 1) for i in range(10)]
    select = SELECTIONS["random"]
    keys = jax.random.split(KEY, 5)
    drawn = [tuple(select([START] * 10, values, 4, key)) for key in keys]
    assert len(set(drawn)) > 1
    assert drawn[0] == tuple(select([START] * 10, values[::-1], 4, keys[0]))


def test_it_finds_the_symmetry_of_the_problem():
    # The task has C4 symmetry up to layer 2 and none in layer 3.
    truth = eq.Architecture.parse(D4, "C4 C4 C1")

    def error(architecture):
        pairs = zip(architecture.groups, truth.groups, strict=True)
        return sum(1 - H.meet(T).order / H.join(T).order for H, T in pairs) / 3

    state, _ = search(Evolution(8, candidates=SIX), error, 14)
    assert state.architectures[0] == truth
    assert state.generation == 14


def test_generation_zero_is_the_start_alone_and_copies_survive():
    evolution = Evolution(4, candidates=SIX)
    state, history = search(evolution, parameters, 3)
    assert [p.architecture for p in history[0][0]] == [START]
    # More parameters are worse here, so that the start is the best for ever.
    assert state.architectures[0] == START
    assert history[1][0][0] == (START, 0)


def test_children_are_limited_and_the_copy_stays():
    evolution = Evolution(4, candidates=SIX, children=2)
    _, history = search(evolution, lambda a: 1 / parameters(a), 4)
    for (_, _, kept), (proposals, _, _) in itertools.pairwise(history):
        parents = [p.parent for p in proposals]
        assert all(parents.count(i) <= 2 for i in range(len(kept)))
        assert set(parents) == set(range(len(kept)))


def test_diverged_members_are_dropped_counted_and_never_selected():
    evolution = Evolution(3, candidates=SIX)

    def error(architecture):
        last = architecture.groups[-1].name
        return {"C4": float("nan"), "C2": float("inf")}.get(last, 0.5)

    state, history = search(evolution, error, 5)
    assert state.diverged == sum(
        not np.isfinite(score.error) for _, scores, _ in history for score in scores
    )
    assert state.diverged > 0
    for proposals, _, kept in history:
        assert all(np.isfinite(error(proposals[i].architecture)) for i in kept)


def test_a_generation_that_diverges_altogether_keeps_its_parents():
    evolution = Evolution(3)
    state = evolution.init(START)
    for diverged in (1, 2):
        proposals = evolution.ask(state, KEY)
        lost = [Score(float("nan"), 1)] * len(proposals)
        state, kept = evolution.tell(state, proposals, lost, KEY)
        assert kept == ()
        assert state.architectures == (START,)
        assert state.diverged == diverged
    assert state.generation == 2


def test_bad_input():
    with pytest.raises(ValueError, match="population_size must be at least 1, got 0"):
        Evolution(0)
    with pytest.raises(ValueError, match="children must be at least 1"):
        Evolution(2, children=0)
    evolution = Evolution(2)
    with pytest.raises(ValueError, match="expected 1 scores, one per proposal, got 0"):
        evolution.tell(
            evolution.init(START), evolution.ask(evolution.init(START), KEY), [], KEY
        )


def test_settings_that_contradict_each_other():
    C4 = eq.cyclic(4)
    with pytest.raises(ValueError, match="candidates are empty"):
        Evolution(candidates=())
    with pytest.raises(ValueError, match=r"Group\(C4 < D4\) is given twice"):
        Evolution(candidates=(D4, SIX[1], SIX[1]))
    with pytest.raises(ValueError, match="one ambient group; .* lives over"):
        Evolution(candidates=(D4, C4))
    with pytest.raises(TypeError, match="must be Groups, got 'C4'"):
        Evolution(candidates=("C4",))
    for candidates in (C4.subgroups, [C4], eq.flip().subgroups):
        with pytest.raises(ValueError, match=r"architecture lives over Group\(D4\)"):
            Evolution(candidates=candidates).init(START)
    assert Evolution(candidates=list(SIX)) == Evolution(candidates=SIX)
