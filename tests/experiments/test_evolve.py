"""The command line from end to end, on a few digits and a tiny network."""

import json

import jax
import numpy as np
import pytest

import eqjax as eq
from eqjax import training
from eqjax.analysis.compilations import count_compilations
from eqjax_experiments import evolve
from eqjax_experiments.data import catalogue
from eqjax_experiments.data.splits import Dataset, Split
from eqjax_experiments.runs import search_checkpoints
from eqjax_experiments.runs.files import read_lines
from eqjax_experiments.tasks.baseline import BaselineTask
from eqjax_experiments.tasks.differentiate import DifferentiationTask
from eqjax_experiments.tasks.evolve import (
    EvolutionTask,
    make_loop,
    test_front as measure_front,
)

ONE = ["--devices", "1"]
D4 = eq.dihedral(4)
TINY = (
    "--generations 2 --population 2 --children 2 --features 1 1 --kernel-size 3 "
    "--pool-after 1 2 --head-features 4 --first-epochs 0.1 --epochs 0.05"
).split()

# Adam divides gradients that are zero but for rounding by their size; SGD does not, so
# that two orders of the same sums lead to the same search.
STEADY = [*TINY, "--optimizer", "sgd", "--learning-rate", "0.05"]


def test_a_run_writes_everything_and_repeats_itself(folder, capsys):
    for name in ("one", "two"):
        evolve.main([*TINY, *ONE, "--name", name])
    printed = capsys.readouterr().out
    assert printed.count("generation 2/2: best validation error") == 2
    assert "test error" in printed
    one, two = folder / "runs/one", folder / "runs/two"
    assert {p.name for p in one.iterdir()} == {
        "config.json",
        "lock",
        "metrics.jsonl",
        "timing.jsonl",
        "checkpoint.msgpack",
        "result.json",
        "search.png",
        "networks",
    }
    for name in ("metrics.jsonl", "result.json", "checkpoint.msgpack"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    records = read_lines(one / "metrics.jsonl")
    assert [r["generation"] for r in records] == [0, 1, 2]
    assert [c["groups"] for c in records[0]["children"]] == [["D4"] * 3]
    for record in records:
        kept = sorted(c["kept"] for c in record["children"] if c["kept"] is not None)
        assert kept == list(range(len(kept)))
    front = json.loads((one / "result.json").read_text())["front"]
    assert all(0 <= member["test_error"] <= 1 for member in front)
    config = json.loads((one / "config.json").read_text())
    assert config["config"]["generations"] == 2
    assert config["environment"]["device"]


def test_a_run_says_which_symmetry_the_data_have_or_that_it_cannot_tell(folder, capsys):
    evolve.main([*TINY, *ONE, "--name", "run"])
    said = json.loads((folder / "runs/run/result.json").read_text())["verdict"]
    assert said["group"] is None  # after 25 steps, and 12 for every child
    printed = " ".join(capsys.readouterr().out.split())
    assert f"undecided; {said['reason']}" in printed
    assert "--epochs" in said["reason"]
    first, later = printed.index("step 1/1: training"), printed.index("generation 0/2")
    assert first < later  # a number before the first generation is complete


def test_few_images_are_passed_over_more_often(folder):
    few, many = (
        Dataset(*[Split(np.zeros((n, 28, 28, 1)), np.zeros(n, int))] * 3)
        for n in (486, 8000)
    )
    assert EvolutionTask().lengths(many) == [500, 125, 125, 125, 125]
    assert EvolutionTask().lengths(few) == [500, 125, 125, 125, 125]
    given = EvolutionTask(first_epochs=2.0, epochs=0.5, generations=1)
    assert given.lengths(few) == [30, 8]
    assert BaselineTask().length(many) == BaselineTask().length(few) == 1000
    assert BaselineTask(epochs=2.0).length(few) == 30
    assert DifferentiationTask().prepare(few).steps == 1000


def test_a_killed_run_resumes_where_it_was(folder, monkeypatch):
    evolve.main([*TINY, *ONE, "--name", "whole"])
    save = search_checkpoints.save_checkpoint

    class Killed(Exception):
        pass

    def die(path, checkpoint):
        # After the metrics of generation 1 were written, before its checkpoint.
        if checkpoint.state.generation == 2:
            raise Killed
        save(path, checkpoint)

    monkeypatch.setattr(search_checkpoints, "save_checkpoint", die)
    with pytest.raises(Killed):
        evolve.main([*TINY, *ONE, "--name", "killed"])
    monkeypatch.setattr(search_checkpoints, "save_checkpoint", save)
    with (folder / "runs/killed/metrics.jsonl").open("a") as file:
        file.write('{"generation": 2, "half a li')
    evolve.main(["--name", "killed", "--resume", *ONE])
    for name in ("metrics.jsonl", "result.json", "checkpoint.msgpack"):
        whole, killed = (folder / "runs" / run / name for run in ("whole", "killed"))
        assert whole.read_bytes() == killed.read_bytes()


@pytest.mark.slow
def test_the_ambient_group_is_a_setting_that_every_run_remembers(folder, capsys):
    short = [*TINY, *ONE, "--generations", "1"]
    evolve.main([*short, "--ambient", "C4", "--name", "c4"])
    saved = json.loads((folder / "runs/c4/config.json").read_text())["config"]
    assert saved["ambient"] == "C4"
    records = read_lines(folder / "runs/c4/metrics.jsonl")
    assert [c["groups"] for c in records[0]["children"]] == [["C4"] * 3]
    assert records[1]["children"][1]["groups"] == ["C4", "C4", "C2"]
    evolve.main(["--name", "c4", "--resume", *ONE])
    with pytest.raises(SystemExit):
        evolve.main(["--name", "c4", "--resume", "--ambient", "D2", *ONE])
    printed = " ".join(capsys.readouterr().out.split())
    assert "has ambient C4, and --resume cannot change it to D2" in printed


def test_a_finished_run_resumes_to_its_result(folder, capsys):
    evolve.main([*TINY, *ONE, "--name", "done"])
    before = (folder / "runs/done/result.json").read_bytes()
    evolve.main(["--name", "done", "--resume", *ONE])
    assert (folder / "runs/done/result.json").read_bytes() == before
    with pytest.raises(SystemExit):
        evolve.main(["--name", "done", "--resume", "--generations", "7"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "has generations 2, and --resume cannot change it to 7" in printed


def test_a_search_with_ways_back_pairs_losses_and_keeps_them_apart(folder):
    """NSGA-II, moves both ways, one standard error and fresh halves, all together."""
    options = (
        "--selection nsga2_symmetry --proposals relax_and_constrain "
        "--parsimony one-standard-error --rescore"
    ).split()
    evolve.main([*TINY, *ONE, *options, "--name", "run"])
    run = folder / "runs/run"
    records = read_lines(run / "metrics.jsonl")
    for record in records:
        assert set(record) == {"generation", "diverged", "children"}
        losses = np.load(run / f"losses/generation-{record['generation']}.npy")
        assert len(losses) == len(record["children"])
        found = [child["validation_loss"] for child in record["children"]]
        np.testing.assert_allclose(losses.mean(1), found, rtol=1e-5)
    kept = {
        child["rescored_error"]
        for child in records[-1]["children"]
        if child["kept"] is not None
    }
    front = json.loads((run / "result.json").read_text())["front"]
    assert {member["validation_error"] for member in front} <= kept
    task = EvolutionTask(rescore=True)
    images = len(task.load().validation.labels)
    assert losses.shape[1] == images - images // 2
    assert task.verdict(records, task.load()).reason


@pytest.mark.slow
def test_the_answer_of_a_search_that_ages_is_the_best_of_its_history(folder):
    options = "--selection aging --proposals relax_and_constrain --retrain".split()
    evolve.main([*TINY, *ONE, *options, "--name", "run"])
    run = folder / "runs/run"
    best = json.loads((run / "result.json").read_text())["history_best"]
    rows = [c for r in read_lines(run / "metrics.jsonl") for c in r["children"]]
    least = min(row["validation_error"] for row in rows)
    assert best["validation_error"] == least
    assert best["groups"] in [
        row["groups"] for row in rows if row["validation_error"] == least
    ]


@pytest.mark.slow
def test_names_are_made_up_and_never_overwritten(folder, capsys):
    short = [*TINY, *ONE, "--generations", "0", "--data", "quarter"]
    evolve.main(short)
    evolve.main(short)
    assert {p.name for p in (folder / "runs").iterdir()} == {
        "evolve-quarter-0",
        "evolve-quarter-0-2",
    }
    with pytest.raises(SystemExit):
        evolve.main([*short, "--name", "evolve-quarter-0"])
    assert "continue it with --resume" in " ".join(capsys.readouterr().out.split())


def test_one_layer_and_a_network_that_is_not_exact(folder, capsys):
    (folder / "runs/half").mkdir(parents=True)  # killed before it wrote anything
    short = "--network paper --features 1 --pool-after 1 --generations 0 --epochs 0.05"
    evolve.main([*short.split(), *ONE, "--first-epochs", "0.05", "--name", "half"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "not exact" in printed
    assert "invariant to C1 alone" in printed
    assert (folder / "runs/half/search.png").exists()


def test_diverging_members_are_reported_and_the_search_goes_on(folder, capsys):
    evolve.main([*TINY, *ONE, "--optimizer", "sgd", "--learning-rate", "1e30"])
    printed = capsys.readouterr().out
    assert "generation 0/2: 1 child diverged" in printed
    records = read_lines(next((folder / "runs").iterdir()) / "metrics.jsonl")
    assert [r["diverged"] for r in records] == [1, 1, 1]
    assert records[0]["children"][0]["validation_error"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--groups", "D4", "C8"], "no subgroup 'C8'; nearest: C4"),
        (["--groups", "C4", "D2"], "one that contains all others, got C4, D2; add D4"),
        (["--groups"], "--groups"),
        (["--ambient", "E4"], "no ambient group 'E4', nearest: 'D4'; known are D4,"),
        (["--ambient", "Oh"], "--ambient Oh acts on 3 axes, and images have 2"),
        (["--ambient", "C4", "--groups", "D1"], "C4 has no subgroup 'D1'"),
        (["--population", "0"], "--population-size must be at least 1"),
        (["--generations", "-1"], "--generations must be at least 0"),
        (["--learning-rate", "0"], "--learning-rate must be positive"),
        (["--features"], "--features"),
        (["--seed", "-1"], "--seed must be at least 0"),
        (["--epochs", "inf"], "--epochs must be positive"),
        (["--head-features", "0"], "--head-features must be at least 1"),
        (["--batch-size", "201"], "--batch-size must be at most 200, the training im"),
        (["--pool-after", "1", "5"], "--pool-after takes numbers from 1 to 4"),
        (["--resume"], "--resume needs the --name"),
        (["--resume", "--name", "nothing"], "there is no run 'nothing'; known: none"),
        (["--name", "../out"], "plain folder name"),
        (["--schedule", "none"], "--schedule"),
        (["--colour"], "--colour"),
        (["--devices", "5"], "--devices 5 are asked for, 4 are there; JAX_NUM_CPU"),
        (["--devices", "-1"], "--devices must be at least 0"),
        (
            ["--data-devices", "3"],
            "--batch-size 32 is not a multiple of --data-devices 3",
        ),
        (["--data-devices", "8"], "4 devices cannot be split by 8"),
        (["--coordinator", "here", "--processes", "2"], "--coordinator is HOST:PORT"),
        (["--process", "1"], "--process must be 0 to 0"),
        (["--processes", "2"], "--processes and --coordinator go together"),
    ],
)
def test_bad_arguments_are_errors_that_leave_nothing_behind(
    folder, capsys, arguments, message
):
    with pytest.raises(SystemExit) as error:
        evolve.main(arguments)
    assert error.value.code == 2
    printed = capsys.readouterr()
    assert message in " ".join((printed.out + printed.err).split())
    assert not (folder / "runs").exists()


def test_nothing_compiles_after_the_first_generation(folder):
    """Sizes, groups and steps change from generation to generation."""
    config = EvolutionTask(
        features=(1, 1),
        pool_after=(1,),
        kernel_size=3,
        head_features=4,
        first_epochs=0.5,
        epochs=0.3,
        population_size=3,
        children=3,
    )
    search = make_loop(config, catalogue.load("quarter"), jax.devices()[:1])
    point = search.start(config.first_architecture)
    for generation in range(4):
        with count_compilations() as compiled:
            point, record = search.generation(point, lambda done, total: None)
        assert compiled.count == 0 or generation == 0
        assert len(record["children"]) == (1, 3, 9, 9)[generation]
    with count_compilations() as compiled:
        measure_front(search, point, catalogue.load("quarter"))
    assert compiled.count == 0


def test_training_state_survives_the_checkpoint(folder):
    config = EvolutionTask(features=(1, 1), pool_after=(1,), kernel_size=3)
    search = make_loop(config, catalogue.load("quarter"))
    point = search.start(eq.Architecture.parse(D4, "D4 C4 D1:i-j"))
    search_checkpoints.save_checkpoint(folder / "c", point)
    again = search_checkpoints.load_checkpoint(folder / "c", D4, search.template)
    assert again.state == point.state
    a, b = point.members[0], again.members[0]
    assert isinstance(b, training.TrainState)
    assert jax.tree.all(jax.tree.map(np.array_equal, a, b))
