"""Comparisons, presets and statistics: what reruns the paper's experiments."""

import dataclasses
import fcntl
import json

import jax
import numpy as np
import pytest
from rich.console import Console

import eqjax as eq
from benchmarks import paper
from eqjax import training
from eqjax_experiments import baseline, compare, reproduce, summarize
from eqjax_experiments.data import catalogue
from eqjax_experiments.data.splits import Dataset, Split, StoredImages
from eqjax_experiments.reports import statistics, tables
from eqjax_experiments.runs.collect import MethodRun, collect
from eqjax_experiments.runs.files import ROWS, read_lines
from eqjax_experiments.tasks.baseline import BaselineTask
from eqjax_experiments.tasks.comparison import ComparisonTask
from eqjax_experiments.tasks.evolve import EvolutionTask
from eqjax_experiments.tasks.methods import methods
from eqjax_experiments.tasks.presets import DATA, presets
from eqjax_experiments.tasks.task import Task
from tests.tiny import SMALL, TINY

QUIET = Console(quiet=True)


@pytest.mark.slow
def test_a_comparison_goes_on_where_it_was_and_prints_a_table(
    folder, capsys, monkeypatch
):
    arguments = [*TINY, "--epochs", "0.5", "--seeds", "2", "--name", "run"]
    original, calls = BaselineTask.run, []

    def once(task, *rest):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(task)
        return original(task, *rest)

    monkeypatch.setattr(BaselineTask, "run", once)
    with pytest.raises(SystemExit) as stopped:
        compare.main([*arguments, "--methods", "D4", "partial group"])
    assert stopped.value.code == 130
    assert "--name run --resume" in capsys.readouterr().out
    before = read_lines(folder / "runs/run" / ROWS)
    assert [(r["method"], r["seed"]) for r in before] == [
        ("D4", 0),
        ("D4", 1),
        ("partial group", 0),
    ]
    monkeypatch.setattr(BaselineTask, "run", original)
    compare.main(["--name", "run", "--resume"])
    printed = capsys.readouterr().out
    rows = read_lines(folder / "runs/run" / ROWS)
    assert rows[:3] == before
    for row in rows:
        assert row["config"]["features"] == [1, 1]
        assert row["config"]["seed"] == row["seed"]
        assert row["environment"]["jax"] == jax.__version__
        assert row["data"] == "embedded digits, quarter, seed 0"
    table = json.loads((folder / "runs/run/result.json").read_text())["table"]
    assert [line["method"] for line in table] == ["D4", "partial group"]
    assert "partial group" in printed
    errors = [100 * r["test_error"] for r in rows if r["method"] == "D4"]
    np.testing.assert_allclose(list(table[0]["errors"].values()), errors)


def piece(method="D4", **settings):
    config = methods()[method](**{**SMALL, **settings})
    return MethodRun("few digits", method, config)


@pytest.mark.slow
def test_the_test_images_are_looked_at_once_per_network(folder, monkeypatch):
    looks = []
    original = training.evaluate
    test = catalogue.load("quarter").test

    def count(variables, x, y, **settings):
        looks.append(x is test.images)
        return original(variables, x, y, **settings)

    monkeypatch.setattr(training, "evaluate", count)
    wanted = [piece("EquiNAS_D", epochs=0.5, groups=("D4", "C1"))]
    rows = collect(wanted, folder, QUIET)
    readings = [row["reading"] for row in rows]
    assert readings == ["mixed", "collapsed", "discretized", "retrained"]
    assert sum(looks) == 4
    assert collect(wanted, folder, QUIET) == rows
    (folder / ROWS).unlink()  # as if killed before the rows were written
    again = collect(wanted, folder, QUIET)
    assert [r["test_error"] for r in again] == [r["test_error"] for r in rows]
    assert sum(looks) == 4


def test_a_piece_with_other_settings_and_a_second_process_are_refused(folder):
    collect([piece(epochs=0.2)], folder, QUIET)
    (folder / ROWS).unlink()
    with pytest.raises(ValueError, match="was begun with epochs 0.2, not 0.4"):
        collect([piece(epochs=0.4)], folder, QUIET)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process writes into"):
            collect([], folder, QUIET)


def test_changed_data_are_refused(folder, monkeypatch, capsys):
    (folder / "pieces").mkdir()
    collect([piece(epochs=0.2)], folder / "pieces", QUIET)
    arguments = [*TINY, "--epochs", "0.2", "--name", "run"]
    baseline.main(arguments)
    other = dataclasses.replace(catalogue.load("quarter"), source="other digits")
    monkeypatch.setattr(catalogue, "load", lambda *settings: other)
    with pytest.raises(ValueError, match="few digits was begun with the data embedded"):
        collect([piece(epochs=0.2)], folder / "pieces", QUIET)
    (folder / "pieces" / ROWS).unlink()
    with pytest.raises(ValueError, match="with the data embedded .* other digits"):
        collect([piece(epochs=0.2)], folder / "pieces", QUIET)
    with pytest.raises(SystemExit):
        baseline.main(["--name", "run", "--resume"])
    assert "was begun with the data embedded" in " ".join(
        capsys.readouterr().out.split()
    )


def test_only_the_rows_of_the_pieces_are_returned_and_all_are_kept(folder):
    row = {"experiment": "another", "method": "D4", "seed": 0, "data": "other"}
    (folder / ROWS).write_text(json.dumps(row) + "\n")
    rows = collect([piece(epochs=0.2)], folder, QUIET)
    assert [r["experiment"] for r in rows] == ["few digits"]
    assert read_lines(folder / ROWS) == [row, *rows]


@pytest.mark.slow
def test_an_evolution_that_diverges_is_a_row(folder):
    settings = {"epochs": 0.2, "optimizer": "sgd", "learning_rate": 1e30}
    wanted = [piece("random selection", **settings), piece(epochs=0.2)]
    rows = collect(wanted, folder, QUIET)
    assert [row["reading"] for row in rows] == ["diverged", "as trained"]
    assert [line.method for line in statistics.summarize(rows).lines] == ["D4"]


@pytest.mark.slow
def test_a_network_is_trained_with_the_larger_group_and_then_relaxed(folder):
    config = BaselineTask(
        groups=("C1",), relaxed_from="D4", relaxed_after=1.0, **{**SMALL, "epochs": 2.0}
    )
    own = folder / "run"
    own.mkdir()
    (row,) = config.run(own, QUIET)
    assert row["groups"] == ["C1"] * 3
    assert row["steps"] == 12
    first, after = (read_lines(own / p / "metrics.jsonl") for p in ("", "relaxed"))
    assert [r["step"] for r in first + after] == [6, 6]
    assert json.loads((own / "result.json").read_text())["readings"] == []
    # Untrained after relaxing, it has the function of the trained network.
    experiment = config.prepare(config.load())
    state = experiment.begin() if experiment.begin else None
    assert state is None
    trained = experiment.trial.init(0, config.inputs(config.load()))
    relaxed = experiment.follow(trained).begin()
    target = experiment.follow(trained).trial.model
    x = config.load().test.images[:4]
    np.testing.assert_allclose(
        jax.jit(target.apply)(relaxed.variables, x),
        jax.jit(experiment.trial.model.apply)(trained.variables, x),
        atol=1e-5,
    )


@pytest.mark.slow
def test_images_on_disk_train_as_those_in_memory(folder, monkeypatch):
    settings = {"epochs": 0.2, "optimizer": "sgd", "groups": ("D4", "C4")}
    wanted = [piece("random selection", **settings)]
    rows = {}
    whole = catalogue.load("quarter")
    splits = []
    for i, split in enumerate(whole.splits):
        np.save(folder / f"{i}.npy", split.images)
        stored = StoredImages(folder / f"{i}.npy", np.zeros(1), np.ones(1))
        splits.append(Split(stored, split.labels))
    streamed = Dataset(*splits, source=whole.source)
    for name, dataset in (("memory", whole), ("disk", streamed)):
        monkeypatch.setattr(catalogue, "load", lambda *_, found=dataset: found)
        (folder / name).mkdir()
        rows[name] = collect(wanted, folder / name, QUIET)
    metrics = "few_digits-random_selection-0/metrics.jsonl"
    assert (folder / "memory" / metrics).read_text() == (
        folder / "disk" / metrics
    ).read_text()
    errors = [[row["test_error"] for row in own] for own in rows.values()]
    assert errors[0] == errors[1]


def rows_of(errors, **changes):
    common = {
        "experiment": "e",
        "reading": "as trained",
        "seconds": 1.0,
        "data": "some",
        "training_parameters": 10,
        "test_parameters": 10,
        "steps": 1,
        "groups": ["D4", "C4"],
    }
    return [
        {**common, "method": method, "seed": seed, "test_error": error, **changes}
        for method, own in errors.items()
        for seed, error in enumerate(own)
    ]


def test_statistics_pair_seeds():
    rows = rows_of({"a": [0.1, 0.2, 0.3], "b": [0.2, 0.31, 0.39], "c": [0.5]})
    lines = {line.method: line for line in statistics.summarize(rows[::-1], "a").lines}
    a, b, c = (lines[name] for name in "abc")
    assert (a.difference, a.interval, a.p) == (None, None, None)
    # Differences 10, 11, 9: mean 10, deviation 1, t = 10 sqrt(3) with 2 degrees.
    np.testing.assert_allclose([b.difference, b.mean, b.median], [10, 30, 31])
    np.testing.assert_allclose(b.deviation, np.std([20, 31, 39], ddof=1))
    np.testing.assert_allclose(b.p, 0.00331, rtol=1e-2)
    # One in 27 resamples holds 9 alone, and one 11 alone: more than 2.5 %.
    np.testing.assert_allclose(b.interval, (9, 11))
    assert (c.interval, c.p, c.deviation) == (None, None, 0.0)
    np.testing.assert_allclose(c.difference, 40)
    assert b.last_groups == {"C4": 3}


def test_the_interval_is_that_of_all_resamples():
    errors = [0.3, 0.1, 0.5, 0.2, 0.25]
    rows = rows_of({"a": [0.0] * 5, "b": errors})
    _, b = statistics.summarize(rows, "a").lines
    grid = np.stack(np.meshgrid(*[errors] * 5), -1).reshape(-1, 5).mean(1)
    expected = 100 * np.quantile(grid, [0.025, 0.975])
    np.testing.assert_allclose(b.interval, expected, rtol=0.07)


def test_readings_of_one_method_are_lines_of_their_own():
    rows = [
        row
        for reading in ("mixed", "collapsed", "retrained")
        for row in rows_of({"a": [0.1]}, reading=reading)
    ]
    lines = statistics.summarize(rows, "a").lines
    assert [line.method for line in lines] == ["a", "a, retrained"]
    with pytest.raises(ValueError, match="'c' is not a row of the table; nearest"):
        statistics.summarize(rows, "c")
    with pytest.raises(ValueError, match="e, a, retrained, seed 0 is there twice"):
        statistics.summarize([*rows, rows[-1]])
    with pytest.raises(ValueError, match="e has rows of different data"):
        statistics.summarize([*rows, {**rows[-1], "seed": 1, "data": "other"}])


def test_equal_errors_and_none_at_all_are_shown(tmp_path):
    rows = rows_of({"a": [0.0, 0.0], "D4": [0.0, 0.1], "c": [0.1, 0.2]})
    comparison = statistics.summarize(rows)
    assert comparison.reference == "D4"
    assert comparison.lines[2].p is None  # worse by the same with every seed
    np.testing.assert_allclose(comparison.lines[2].interval, (10, 10))
    tables.write(rows, None, tmp_path)
    assert (tmp_path / "e.png").stat().st_size > 10_000


def test_what_is_expected_of_the_paper_is_read_off_the_rows():
    errors = {"C1": [0.3, 0.4], "D4": [0.1, 0.1], "C1 from D4": [0.3, 0.5], "x": [0, 0]}
    found = paper.expectations(rows_of(errors))
    assert list(found) == ["D4", "C1 from D4"]
    np.testing.assert_allclose(found["D4"]["C1_minus_it"], 25)
    np.testing.assert_allclose(found["D4"]["interval"], (20, 30))
    np.testing.assert_allclose(found["C1 from D4"]["C1_minus_it"], -5)
    evolved = rows_of({"EquiNAS_E": [0.1, 0.1]}, reading="best of front")
    evolved[1]["groups"] = ["D4", "C2"]
    (mixed,) = rows_of({"EquiNAS_D": [0.1]}, reading="mixed")
    weights = {"D4": 0.1, "C4": 0.3, "C2": 0.4, "D1": 0.1, "C1": 0.1}
    mixed["mixtures"] = [{"step": 1, "weights": {"conv1": {}, "head": weights}}]
    rows = [{**row, "config": {"data_group": "C4"}} for row in [*evolved, mixed]]
    symmetry = paper.found(rows)
    assert symmetry["evolved"] == ["C4", "C2"]
    assert symmetry["evolved_is_truth"] == 1
    assert symmetry["evolved_is_within_truth"] == 2
    np.testing.assert_allclose(symmetry["preference"], [0.8 / 3 - 0.2 / 2])


def test_tables_and_pictures(tmp_path, capsys):
    rows = rows_of({"D4": [0.1, 0.2], "EquiNAS_D": [0.3, 0.45]})
    path = [
        {"step": step, "weights": {"conv1": {"D4": z, "C1": 1 - z}}}
        for step, z in ((1, 0.5), (2, 0.6))
    ]
    for row in rows[2:]:
        row["mixtures"] = path
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    summarize.main([str(file)])
    names = {p.name for p in (tmp_path / "summary").iterdir()}
    assert names == {"e.md", "e.tex", "e.png", "e-EquiNAS_D-mixtures.png"}
    table = (tmp_path / "summary/e.md").read_text().splitlines()
    assert {line.count("|") for line in table} == {len(tables.columns("D4")) + 1}
    assert "| 15.00 ± 7.07 |" in table[2]
    tex = (tmp_path / "summary/e.tex").read_text()
    assert r"15.00 $\pm$ 7.07" in tex
    assert r"95 \% interval" in tex
    assert r"EquiNAS\_D" in tex
    rows = [line for line in tex.splitlines() if "&" in line]
    assert {line.count("&") for line in rows} == {len(tables.columns("D4")) - 1}
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    (tmp_path / "config.json").write_text("{\n}\n")
    for arguments, message in (
        ([str(tmp_path / "none")], "there is no file"),
        ([str(tmp_path / "metrics.jsonl")], "metrics.jsonl should hold rows of"),
        ([str(tmp_path / "config.json")], "config.json should hold rows of"),
        ([], "expected at least one file"),
        (
            [str(file), "--reference", "D5"],
            "'D5' is not a row of the table; nearest: D4",
        ),
    ):
        with pytest.raises(SystemExit) as error:
            summarize.main(arguments)
        assert error.value.code == 2
        assert message in " ".join(capsys.readouterr().out.split())


@pytest.fixture
def blank(monkeypatch):
    """Data of the right shapes, and nothing to see."""

    def load(name, group, size):
        data = DATA["rotmnist" if name == "mnist" else name]
        images = np.zeros((256, data.space, data.space, data.channels), np.float32)
        split = Split(images, np.zeros(256, np.int32))
        return Dataset(split, split, split, 8 if name == "isic2019" else 10)

    monkeypatch.setattr(catalogue, "load", load)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("D4", 891_098),
        ("C4", 1_761_898),
        ("C1", 6_986_698),
        ("EquiNAS_D", 18_307_098),
        ("residual-pathway", 7_854_298),
    ],
)
def test_the_networks_of_the_paper_have_its_parameters(blank, method, expected):
    config = presets()[f"paper/rotmnist/{method}"].task
    trial = config.prepare(config.load()).trial
    state = jax.eval_shape(lambda: trial.init(0, config.inputs(config.load())))
    weights = getattr(state, "weights", state)
    assert training.count_parameters(weights.params) == expected


def test_presets_have_the_reported_settings():
    known = presets()
    assert len({preset.name for preset in known.values()}) == len(known)
    for data, rate, epochs, size in (
        ("rotmnist", 0.01, 100, 64),
        ("galaxy10", 0.01, 50, 32),
        ("isic2019", 0.001, 50, 32),
    ):
        for flavour in ("paper", "exact"):
            config = known[f"{flavour}/{data}/EquiNAS_D"].task
            found = (config.learning_rate, config.epochs, config.batch_size)
            assert found == (rate, epochs, size)
            assert config.mixture_rate == 0.01
            assert (config.network, config.schedule) == (flavour, "constant")
            assert config.features == (16,) * 4 + (32,) * 4
            evolution = known[f"{flavour}/{data}/EquiNAS_E"].task
            assert (evolution.optimizer, evolution.learning_rate) == ("sgd", 0.1)
            assert (evolution.generations, evolution.population_size) == (50, 10)
            assert (evolution.epochs, evolution.batch_size) == (0.5, 64)
    relaxed = known["paper/rotmnist/C1-from-trained-D4-SGD"].task
    assert (relaxed.epochs, relaxed.relaxed_after) == (25.5, 12.75)
    assert known["small/mnist-C4/EquiNAS_E"].task.data_group == "C4"
    assert known["small/rotmnist/D4"].steps == 2025
    static, mixed = (known[f"small/rotmnist/{m}"] for m in ("D4", "EquiNAS_D"))
    assert mixed.multiplications == 3 * static.multiplications


def test_every_preset_makes_a_network_for_its_images(blank):
    for data in ("rotmnist", "galaxy10", "isic2019"):
        config = presets()[f"small/{data}/D4"].task
        model = config.model(eq.Architecture.uniform(eq.dihedral(4), config.layers))
        inputs = config.inputs(config.load())
        x = jax.ShapeDtypeStruct((2, *inputs.shape[1:]), inputs.dtype)
        logits, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), x)
        assert logits.shape == (2, 8 if data == "isic2019" else 10)


def test_presets_are_listed_with_their_cost(capsys):
    reproduce.main(["--list", "--only", "paper/rotmnist/*", "small/mnist-C4/D4"])
    printed = capsys.readouterr().out
    assert "paper/rotmnist/C1-from-trained-D4-SGD" in printed
    assert "small/mnist-C4/D4" in printed
    assert "galaxy10" not in printed
    durations = [reproduce.duration(s) for s in (1, 100, 10_000, 1_000_000)]
    assert durations == ["1 min", "2 min", "3 hours", "12 days"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--only needs names or patterns"),
        (["--only", "small/rotmnits/D4"], "nearest: small/rotmnist/D4"),
        (["--only", "small/rotmnist/D4"], "mnist should hold"),
        (["--only", "small/galaxy10/D4"], "galaxy10 should hold Galaxy10_DECals.h5"),
        (["--seeds", "0"], "--seeds must be at least 1"),
    ],
)
def test_bad_requests_leave_nothing_behind(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(catalogue.ROOT_VARIABLE, raising=False)
    catalogue.load.cache_clear()
    with pytest.raises(SystemExit) as error:
        reproduce.main(arguments)
    assert error.value.code == 2
    printed = capsys.readouterr()
    assert message in " ".join((printed.out + printed.err).split())
    assert not (tmp_path / "runs").exists()


def test_presets_run_by_their_name(folder, capsys, monkeypatch):
    (row,) = rows_of({"any": [0.1]})
    found = {k: v for k, v in row.items() if k in ("reading", "groups", "test_error")}
    found |= {"training_parameters": 1, "test_parameters": 1, "steps": 1}
    monkeypatch.setattr(BaselineTask, "run", lambda *_: [found])
    arguments = ["--only", "small/mnist-C4/D4", "--seeds", "1", "--name", "run"]
    reproduce.main(arguments)
    (row,) = read_lines(folder / "runs/run" / ROWS)
    assert row["test_error"] == 0.1
    assert (row["experiment"], row["method"]) == ("small/mnist-C4", "D4")
    assert row["config"]["data_group"] == "C4"
    reproduce.main(arguments)
    assert len(read_lines(folder / "runs/run" / ROWS)) == 1
    assert "small/mnist-C4" in capsys.readouterr().out


def test_runs_of_other_commands_are_left_alone(folder, capsys):
    baseline.main([*TINY, "--epochs", "0.2", "--name", "run"])
    with pytest.raises(SystemExit):
        reproduce.main(["--only", "small/mnist/D4", "--name", "run"])
    (folder / "runs/rows").mkdir()
    (folder / "runs/rows" / ROWS).write_text("")
    with pytest.raises(SystemExit):
        compare.main([*TINY, "--name", "rows"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "runs/run is the run of another command" in printed
    assert "runs/rows exists" in printed


def test_a_list_says_what_every_method_is(capsys):
    compare.main(["--list"])
    lines = [line for line in capsys.readouterr().out.splitlines() if "│" in line]
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    assert len(rows) == len(methods())
    for row, (name, method) in zip(rows, methods().items(), strict=True):
        assert row[:3] == [name, method.what, method.source]
        assert int(row[3].replace(",", "")) >= 1000


def test_the_methods_share_the_network_of_the_comparison():
    for name in methods():
        config = ComparisonTask(**SMALL).configure(name, 3)
        assert isinstance(config, Task)
        assert config.features == (1, 1)
        assert config.seed == 3
    evolution = ComparisonTask(**SMALL).configure("EquiNAS_E", 0)
    split = Split(np.zeros((320, 28, 28, 1)), np.zeros(320))
    few = Dataset(split, split, split)
    assert sum(evolution.lengths(few)) == 9  # of ten: an eighth of a pass is one step
    assert isinstance(evolution, EvolutionTask)
    assert evolution.candidates[0] == eq.dihedral(4)
