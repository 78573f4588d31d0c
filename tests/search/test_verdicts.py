"""A search names a group where its scores tell, and else says that they do not."""

import itertools

import jax
import numpy as np
import pytest

import eqjax as eq
from eqjax.search import Evolution, Score, verdict

D4 = eq.dihedral(4)
NAMES = ("D4", "C4", "D2", "C2", "D1", "C1")
CANDIDATES = [D4.subgroup(name, index=0) for name in NAMES]


def child(groups, error, loss=None, parent=0):
    if loss is None and error is not None:
        loss = 2 * error + 0.1
    return {
        "groups": groups.split(),
        "parent": parent,
        "validation_loss": loss,
        "validation_error": error,
    }


def named(*children, samples=54, generations=5):
    """The verdict on the children of the last of some generations."""
    records = [{"children": [child("D4 D4", 0.4)]}] * (generations - 1)
    records.append({"children": list(children)})
    return verdict(records, D4, CANDIDATES, samples)


def test_a_group_is_named_when_all_larger_ones_are_beaten():
    found = named(child("D4 D4", 0.35), child("D4 C4", 0.0), child("D4 C2", 0.0))
    assert found.group == D4.subgroup("C4")
    assert "0.0 %" in found.reason
    assert "D4, on 35.0 %" in found.reason
    assert str(found).startswith("C4: ")


def test_the_group_of_a_network_is_what_all_its_layers_share():
    found = named(child("D4 D4", 0.35), child("C4 D2:i", 0.0))
    assert found.group is None  # C2; nothing between it and D4 was tried
    assert "C4, D2:i was not trained beside it" in found.reason


def test_a_group_that_was_given_up_is_compared_where_it_was_trained_last():
    earlier = {"children": [child("D4 D4", 0.3), child("D4 C4", 0.05)]}
    last = {"children": [child("D4 C4", 0.02), child("D4 C2", 0.02)]}
    found = verdict([earlier, last], D4, CANDIDATES, 500)
    assert found.group == D4.subgroup("C4")
    assert "D4, on 30.0 %" in found.reason
    alike = {"children": [child("D4 D4", 0.06), child("D4 C4", 0.05)]}
    undecided = verdict([alike, last], D4, CANDIDATES, 500)
    assert undecided.group is None
    assert "D4 was not trained beside it, or not long enough" in undecided.reason


@pytest.mark.parametrize(
    ("children", "reason"),
    [
        (
            [child("D4 D4", 0.35, 0.7), child("D4 C4", 0.35, 0.70007)],
            "have not moved away from their parents with D4; train children longer",
        ),
        (
            [child("D4 D4", 0.35, 0.7), child("D4 C4", 0.30, 0.6)],
            "but one may save up to",
        ),
        (
            [child("D4 D4", 0.5), child("D4 C4", 0.02), child("D4 D2:i", 0.0)],
            "C4 and D2:i do equally well within the noise",
        ),
        ([child("D4 D4", 0.35)], "no relaxation was tried"),
        ([child("D4 D4", None), child("D4 C4", None)], "diverged"),
    ],
)
def test_what_cannot_be_told_is_undecided(children, reason):
    found = named(*children)
    assert found.group is None
    assert reason in found.reason
    assert str(found).startswith("undecided: ")


def test_the_start_stands_when_relaxing_is_known_not_to_help():
    children = [child("D4 D4", 0.100), child("D4 C4", 0.104), child("D4 D2:i", 0.11)]
    assert named(*children, samples=2000).group == D4
    assert named(*children, samples=54).group is None
    perfect = [child("D4 D4", 0.0, 0.01), child("D4 C4", 0.0, 0.01)]
    assert named(*perfect).group == D4


def test_the_order_of_the_children_does_not_matter():
    children = [child("D4 D4", 0.35), child("D4 C4", 0.0), child("D4 C2", 0.0)]
    found = {named(*order).group for order in itertools.permutations(children)}
    assert found == {D4.subgroup("C4")}


def searched(rng, samples, wrong, redrawn):
    """A search among networks that are all equally good, children like parents."""
    search = Evolution(4, candidates=tuple(CANDIDATES), children=3)
    state = search.init(eq.Architecture.uniform(D4, 3))
    answers, records = [rng.random(samples) < wrong], []
    for generation in range(5):
        keys = jax.random.split(jax.random.key(rng.integers(2**31)))
        proposals = search.ask(state, keys[0])
        trained = [
            np.where(
                rng.random(samples) < redrawn,
                rng.random(samples) < wrong,
                answers[proposal.parent],
            )
            for proposal in proposals
        ]
        rows = [
            child(str(proposal.architecture), float(own.mean()), parent=proposal.parent)
            for proposal, own in zip(proposals, trained, strict=True)
        ]
        records.append({"generation": generation, "children": rows})
        scores = [
            Score(row["validation_error"], 100 - proposal.architecture.groups[-1].order)
            for row, proposal in zip(rows, proposals, strict=True)
        ]
        state, kept = search.tell(state, proposals, scores, keys[1])
        answers = [trained[i] for i in kept]
    return verdict(records, D4, CANDIDATES, samples).group


@pytest.mark.parametrize(("samples", "wrong"), [(54, 0.3), (54, 0.03), (500, 0.1)])
@pytest.mark.parametrize("redrawn", [1.0, 0.3])
def test_noise_names_a_smaller_group_no_oftener_than_its_level(samples, wrong, redrawn):
    rng = np.random.default_rng(0)
    runs = 60
    found = [searched(rng, samples, wrong, redrawn) for _ in range(runs)]
    assert sum(group not in (None, D4) for group in found) <= 0.05 * runs


def test_the_bounds_hold_as_often_as_they_say():
    from eqjax.search.verdicts import difference

    rng = np.random.default_rng(1)
    for first, second, samples in ((0.3, 0.3, 54), (0.3, 0.05, 54), (0.1, 0.08, 500)):
        counts = rng.binomial(samples, (first, second), (4000, 2)) / samples
        bounds = np.array([difference(*pair, samples, 0.025) for pair in counts])
        missed = (bounds[:, 0] > first - second) | (bounds[:, 1] < first - second)
        assert missed.mean() < 0.065
