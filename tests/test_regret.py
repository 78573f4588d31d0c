"""The benchmark of searches against the table of all schedules."""

import json
import sys

import numpy as np
import pytest

import eqjax as eq
from benchmarks import real_searches, regret, truth
from benchmarks.table_searches import (
    after_one_pass,
    fixed,
    halving,
    random_search,
    table_searches,
)
from eqjax_experiments.data.schedules import METRICS, Schedules

SMALL = {"features": (1, 1, 1, 1), "kernel_size": 3, "pool_after": (1, 2)}
SMALL |= {"head_features": 2}
PLAN = truth.Plan.make(quick=False)


@pytest.fixture
def table():
    """One task; the later a schedule, the worse, and at first the other way round."""
    count = len(PLAN.schedules)
    ramp = np.linspace(0.1, 0.6, count)
    values = np.stack([ramp[::-1], ramp], -1)[None, None]
    return Schedules(
        dict.fromkeys(METRICS, values)
        | {
            "tasks": np.array(["quarter"]),
            "seeds": np.array([0]),
            "schedules": np.array([a.names for a in PLAN.schedules]),
            "steps": np.array([10, 20]),
            "parameters": np.arange(count),
        }
    )


def test_every_schedule_has_the_same_groups_and_is_trained_for_four_passes():
    assert [g.name for g in truth.six_groups()] == "D4 C4 D2:i C2 D1:i C1".split()
    assert (len(PLAN.schedules), PLAN.passes, PLAN.steps) == (126, 4, 250)
    # A mixture's read-off cannot leave the table: meets of candidates are candidates.
    groups = truth.six_groups()
    assert all(a.meet(b) in groups for a in groups for b in groups)


def test_random_search_is_the_exact_expectation(table):
    for trials in (1, 3, 126):
        outcomes = random_search(trials, table, "quarter", 0)
        assert sum(o.share for o in outcomes) == pytest.approx(1)
        assert {o.steps for o in outcomes} == {20 * trials}
    one = regret.judge(table, "quarter", random_search(1, table, "quarter", 0))
    assert one.regret == pytest.approx(25)  # the mean of all, less the best
    every = regret.judge(table, "quarter", random_search(126, table, "quarter", 0))
    assert every.regret == pytest.approx(0)
    rng = np.random.default_rng(0)
    drawn = [min(rng.choice(126, 3, replace=False)) for _ in range(4000)]
    three = regret.judge(table, "quarter", random_search(3, table, "quarter", 0))
    assert three.regret == pytest.approx(np.mean(drawn) * 50 / 125, rel=0.05)


def test_searches_that_trust_the_first_pass_are_led_astray(table):
    (found,) = after_one_pass(4, table, "quarter", 0)
    assert found.steps == 126 * 10 + 4 * 10
    assert found.schedule == table.schedules[122]  # the best of the last four
    (found,) = halving(126, table, "quarter", 0)
    assert found.steps == 126 * 10 + 63 * 10
    assert found.schedule == table.schedules[63]
    some = halving(8, table, "quarter", 0)
    assert sum(o.share for o in some) == pytest.approx(1)
    assert {o.steps for o in some} == {8 * 10 + 4 * 10}


def test_fixed_schedules_and_their_groups(table):
    (found,) = fixed("C4", table, "quarter", 0)
    assert found == (("C4",) * 5, 20, 1.0)
    figures = regret.judge(table, "quarter", [found])
    number = table.schedules.index(found.schedule)
    assert figures.regret == pytest.approx(100 * 0.5 * number / 125)
    assert (figures.steps, figures.right) == (20, 1)
    (trivial,) = fixed("C1", table, "quarter", 0)
    assert regret.judge(table, "quarter", [trivial]).right == 0


def test_real_searches_are_run_once(table, tmp_path):
    ran = []

    def search(task, seed):
        ran.append((task, seed))
        return ("D4",) * 5, 70

    saved = tmp_path / "results/r.jsonl"
    for _ in range(2):
        methods = regret.searches(table, {"guided": search}, saved)
        found = regret.compare(table, methods, {"quarter": (0,)})
        assert found["guided", 0]["quarter", 0] == (0, 70, 0)
    assert ran == [("quarter", 0)]
    sized = sum(map(len, table_searches(126).values()))
    assert len(found) == sized + len(regret.FIXED) + 2


def test_report_ends_with_means_and_draws(table, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(regret, "PICTURE", tmp_path / "regret.png")
    monkeypatch.setattr(sys, "argv", ["regret"])
    methods = regret.searches(table, {}, None)
    found = regret.compare(table, methods, {"quarter": (0,)})
    regret.report(regret.arguments(None), found, (), picture=True)
    means = json.loads(capsys.readouterr().out.splitlines()[-1])["regret"]
    assert means["D4 everywhere"] == 0
    assert means["random search, 1"] == pytest.approx(25)
    assert (tmp_path / "regret.png").stat().st_size > 10_000


def test_regrets_are_compared_in_pairs():
    """Differences are of the same tasks and seeds."""
    names = ("D4 everywhere", "C4 everywhere")
    at = [("quarter", seed) for seed in range(3)]
    regrets = {names[0]: (1.0, 2.0, 6.0), names[1]: (0.0, 1.0, 5.0)}
    found = {
        (name, 0): {k: regret.Figures(r, 0, 0) for k, r in zip(at, own, strict=True)}
        for name, own in regrets.items()
    }
    (interval,) = regret.paired(found, names).values()
    assert interval == {"mean": 1.0, "low": 1.0, "high": 1.0}


def test_names_of_real_searches():
    names = list(real_searches.real_searches())
    assert "EquiNAS_E, pareto" in names
    assert "EquiNAS_D, heaviest" in names


@pytest.mark.slow
def test_the_truth_of_two_schedules_is_written_and_read(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(truth, "NETWORK", SMALL)
    small = truth.Plan(PLAN.schedules[::100], passes=2, steps=2, images=50)
    monkeypatch.setattr(truth.Plan, "make", lambda *, quick: small)
    file = tmp_path / "t.npz"
    argv = f"truth --out {file} --tasks flipped --seeds 1 --width 2".split()
    monkeypatch.setattr(sys, "argv", argv)
    truth.main()
    table = Schedules.load(file)
    assert (table.tasks, table.seeds("flipped")) == (("flipped",), (1,))
    for schedule in small.schedules:
        record = table.query("flipped", schedule.names)
        assert (record.steps, np.isfinite(record.test_loss)) == (4, True)
        shapes = truth.parameters(truth.network(schedule))
        assert record.parameters == shapes
    before = file.read_bytes()
    truth.main()
    assert "seed 1: there already" in capsys.readouterr().out
    assert file.read_bytes() == before
    with pytest.raises(ValueError, match="holds other schedules"):
        truth.Truth(file, truth.Plan(PLAN.schedules[:2], 2, 2))


@pytest.mark.slow
def test_a_short_mixture_is_read_off(monkeypatch):
    monkeypatch.setattr(real_searches, "NETWORK", SMALL)
    schedule, steps = real_searches.read_off("heaviest", "upright", 0, quick=True)
    assert steps == 20
    assert eq.Architecture.parse(eq.dihedral(4), schedule).is_monotone
