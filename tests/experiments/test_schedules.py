import numpy as np
import pytest

from eqjax_experiments.data import schedules
from eqjax_experiments.data.schedules import METRICS, Schedules

NAMES = [["D4", "D4"], ["D4", "C4"], ["C4", "C4"], ["C4", "C1"]]


@pytest.fixture
def file(tmp_path):
    """Two tasks, two seeds, three passes; the second task has the second seed alone."""
    rng = np.random.default_rng(0)
    arrays = {name: rng.uniform(size=(2, 2, 4, 3)).astype("f4") for name in METRICS}
    for values in arrays.values():
        values[1, 0] = np.nan
    arrays |= {
        "tasks": np.array(["upright", "quarter"]),
        "seeds": np.arange(2),
        "schedules": np.array(NAMES),
        "steps": np.array([10, 20, 30]),
        "parameters": np.array([5, 6, 7, 8]),
    }
    np.savez_compressed(tmp_path / "s.npz", **arrays)
    return tmp_path / "s.npz"


@pytest.fixture
def table(file):
    return Schedules.load(file)


def test_what_it_holds(table):
    assert table.tasks == ("upright", "quarter")
    assert table.schedules == tuple(map(tuple, NAMES))
    assert (table.seeds("upright"), table.seeds("quarter")) == ((0, 1), (1,))
    assert repr(table) == "Schedules(4 on upright, quarter)"


def test_query_reads_what_was_written(file, table):
    written = np.load(file)
    found = table.query("upright", ("C4", "C4"), seed=1, passes=2)
    assert (found.schedule, found.parameters, found.steps) == (("C4", "C4"), 7, 20)
    for name in METRICS:
        assert getattr(found, name) == written[name][0, 1, 2, 1]
    mean = table.query("upright", "C4 C4")
    assert mean.steps == 30
    expected = written["test_loss"][0, :, 2, 2].astype(float).mean()
    assert mean.test_loss == pytest.approx(expected)
    alone = table.query("quarter", "C4 C1")  # the mean over the seeds that there are
    assert alone == table.query("quarter", "C4 C1", seed=1)


def test_best_is_by_test_error_of_all_seeds_and_not_of_what_diverged(file):
    arrays = dict(np.load(file))
    arrays["test_error"][0, :, :, -1] = [[0.3, 0.1, 0.2, 0], [0.1, 0.2, 0.2, np.nan]]
    table = Schedules(arrays)
    assert table.best("upright") == table.query("upright", "D4 C4")
    assert table.best("upright").test_error == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("quater", "D4 D4"),
            "no task 'quater', nearest: 'quarter'; known are upright",
        ),
        (("upright", "D4 D2"), "no group 'D2', nearest: 'D4'"),
        (("upright", "D4 C4 C4"), "a schedule has 2 groups, got 3"),
        (("upright", "C4 D4"), "'C4 D4': groups do not grow .*nearest: 'D4 D4'"),
        (("upright", "D4 D4", 7), "no seed of upright 7, nearest: 1"),
        (("quarter", "D4 D4", 0), "no seed of quarter 0, nearest: 1"),
        (("upright", "D4 D4", 0, 0), "no passes 0, nearest: 1"),
        (("upright", "D4 D4", 0, 9), "no passes 9, nearest: 3; known are 1, 2, 3"),
    ],
)
def test_bad_questions(table, arguments, message):
    with pytest.raises(ValueError, match=message):
        table.query(*arguments)
    with pytest.raises(ValueError, match="no metric 'error', nearest"):
        table.column("error", "upright")


def test_bad_files(tmp_path, file, monkeypatch):
    monkeypatch.setattr(schedules, "FILE", tmp_path / "none.npz")
    with pytest.raises(FileNotFoundError, match=r"benchmarks.truth --out none.npz"):
        Schedules.load()
    bad = tmp_path / "bad.npz"
    np.savez(bad, tasks=["upright"])
    with pytest.raises(ValueError, match="has no array seeds, schedules"):
        Schedules.load(bad)
    bad.write_bytes(b"PK half a file")
    with pytest.raises(ValueError, match="is no table of schedules"):
        Schedules.load(bad)
    arrays = dict(np.load(file))
    arrays["test_error"] = arrays["test_error"][:1]
    with pytest.raises(ValueError, match="test_error has shape"):
        Schedules(arrays)
