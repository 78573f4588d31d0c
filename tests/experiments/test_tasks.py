"""Baselines, the differentiable search and comparisons from the command line."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import eqjax as eq
from eqjax_experiments import baseline, compare, differentiate, evolve, guide
from eqjax_experiments.data import catalogue
from eqjax_experiments.data.splits import Split
from eqjax_experiments.runs import files, networks, run_folder
from eqjax_experiments.runs.files import read_lines
from eqjax_experiments.tasks import climb, generate
from eqjax_experiments.tasks.baseline import BaselineTask, ConstraintSettings
from eqjax_experiments.tasks.climb import ClimbTask
from eqjax_experiments.tasks.differentiate import Decided, DifferentiationTask
from eqjax_experiments.tasks.generate import GeneratorTask
from tests.tiny import SMALL, TINY

QUIET = Console(quiet=True)


@pytest.mark.slow
def test_a_search_writes_everything_and_goes_on_after_a_kill(
    folder, capsys, monkeypatch
):
    arguments = [*TINY, "--groups", "D4", "C4", "C1"]
    differentiate.main([*arguments, "--name", "whole"])
    printed = capsys.readouterr().out
    for reading in ("mixed", "collapsed", "discretized", "retrained"):
        assert reading in printed
    whole, killed = folder / "runs/whole", folder / "runs/killed"
    assert {p.name for p in whole.iterdir()} == {
        "config.json",
        "lock",
        "metrics.jsonl",
        "timing.jsonl",
        "checkpoint.msgpack",
        "result.json",
        "trial.png",
        "networks",
        "retrained",
    }
    records = read_lines(whole / "metrics.jsonl")
    assert [r["step"] for r in records] == [6, 12]
    steps = [point["step"] for r in records for point in r["mixtures"]]
    assert steps == list(range(1, 13))
    for point in records[-1]["mixtures"]:
        assert list(point["weights"]) == ["conv1", "conv2", "head"]
        for weights in point["weights"].values():
            assert list(weights) == ["D4", "C4", "C1"]
            assert abs(sum(weights.values()) - 1) < 1e-5
    result = json.loads((whole / "result.json").read_text())
    mixed, collapsed, discretized = result["readings"]
    (retrained,) = json.loads((whole / "retrained/result.json").read_text())["readings"]
    assert [p["step"] for p in mixed["mixtures"]] == list(range(1, 13))
    assert mixed["test_error"] == collapsed["test_error"]
    assert collapsed["test_parameters"] < mixed["test_parameters"]
    assert retrained["groups"] == discretized["groups"]
    assert retrained["training_parameters"] == discretized["test_parameters"]
    assert set(discretized["changes"]) >= {"conv1", "conv2", "head"}
    assert list(result["distances"]) == ["conv1", "conv2", "head"]
    for row in result["distances"].values():
        assert list(row) == [group.name for group in eq.dihedral(4).subgroups]
        assert row["C1"] == 0
        assert 0 < row["C4"] < row["D4"] < 1

    class Killed(Exception):
        pass

    save = files.write_atomically

    def die(path, content):
        if (
            path.name == "checkpoint.msgpack"
            and len(read_lines(killed / "metrics.jsonl")) > 1
        ):
            raise Killed  # metrics of the second piece written, its checkpoint not
        save(path, content)

    monkeypatch.setattr(files, "write_atomically", die)
    with pytest.raises(Killed):
        differentiate.main([*arguments, "--name", "killed"])
    monkeypatch.setattr(files, "write_atomically", save)
    differentiate.main(["--name", "killed", "--resume"])
    for name in ("metrics.jsonl", "result.json", "checkpoint.msgpack"):
        for path in (name, f"retrained/{name}"):
            assert (whole / path).read_bytes() == (killed / path).read_bytes()
    with pytest.raises(SystemExit):
        baseline.main(["--name", "killed", "--resume"])
    assert "holds no run of this command" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    "extra",
    [
        ["--mixture", "random", "--unrolled-step", "0.01", "--no-retrain"],
        ["--skip", "inside", "--norms", "free", "--prior", "2", "--temperature", "2"],
    ],
    ids=lambda extra: extra[1],
)
def test_the_switches_of_the_search(folder, extra):
    groups = ["--groups", "D4", "C1"]
    differentiate.main([*TINY, *groups, "--epochs", "0.5", *extra, "--name", "run"])
    (record,) = read_lines(folder / "runs/run/metrics.jsonl")
    retrained = (folder / "runs/run/retrained/result.json").exists()
    assert retrained == ("--no-retrain" not in extra)
    last = record["mixtures"][-1]["weights"]
    if "--skip" in extra:
        assert "skip" in last["conv2"]
        assert "skip" not in last["conv1"]
        assert last["head"]["D4"] > 2 * last["head"]["C1"]  # exp(2 / 2), still
    assert np.ptp(list(last["head"].values())) > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mixture", "way", "fine_tunings"),
    [
        ("learned", "perturbation", 3),
        ("uniform", "perturbation", 3),
        ("learned", "fine-tuning", 6),
    ],
)
def test_groups_are_read_off_layer_by_layer_and_again_after_a_kill(
    folder, monkeypatch, mixture, way, fine_tunings
):
    groups = ["--groups", "D4", "C1", "--epochs", "0.5", "--mixture", mixture]
    chosen = ["--read-off", way, "--fine-tuning-steps", "2"]
    differentiate.main([*TINY, *groups, *chosen, "--name", "whole"])
    whole, killed = folder / "runs/whole", folder / "runs/killed"
    rows = json.loads((whole / "result.json").read_text())["readings"]
    assert [row["reading"] for row in rows] == [
        "mixed",
        "collapsed",
        "discretized",
        way,
    ]
    assert ("mixtures" in rows[0]) == (mixture == "learned")
    found = rows[-1]
    assert found["steps"] == rows[0]["steps"] + fine_tunings * 2
    assert set(found["removals"]) == {"conv1", "conv2", "head"}
    larger = "C1" if way == "perturbation" else "D4"  # what the larger group loses
    decided = {
        layer: "C1" if own[larger]["needed"] else "D4"
        for layer, own in found["removals"].items()
    }
    assert found["groups"] == [decided[name] for name in ("conv1", "conv2", "head")]
    (retrained,) = json.loads((whole / "retrained/result.json").read_text())["readings"]
    assert retrained["groups"] == found["groups"]

    class Killed(Exception):
        pass

    save = files.write_atomically

    def die(path, content):
        if path.name == "checkpoint.msgpack" and path.parent.name == "retrained":
            raise Killed
        save(path, content)

    monkeypatch.setattr(files, "write_atomically", die)
    with pytest.raises(Killed):
        differentiate.main([*TINY, *groups, *chosen, "--name", "killed"])
    monkeypatch.setattr(files, "write_atomically", save)
    differentiate.main(["--name", "killed", "--resume"])
    for name in ("metrics.jsonl", "result.json", "checkpoint.msgpack"):
        for path in (name, f"retrained/{name}"):
            assert (whole / path).read_bytes() == (killed / path).read_bytes()


@pytest.mark.slow
def test_a_read_off_never_sees_the_test_images(folder):
    dataset = catalogue.load("quarter")
    blind = dataclasses.replace(dataset, test=Split(None, None))
    task = DifferentiationTask(
        groups=("D4", "C1"), mixture="uniform", fine_tuning_steps=1, **SMALL
    )
    trial = task.prepare(dataset).trial
    state = trial.init(0, task.inputs(dataset))
    model = Decided(task, trial.model).layer_by_layer(state.variables, blind)[1]
    assert model.constraint == eq.Tied()


def test_half_of_the_digits_is_kept_for_the_mixture(folder):
    dataset = catalogue.load("quarter")
    marked = Split(dataset.train.images, np.arange(200, dtype=np.int32))
    seen = {}
    for where in ("training", "held-out"):
        config = DifferentiationTask(mixture_images=where, **SMALL)
        trial = config.prepare(dataset).trial
        seen[where] = [set(), set()]
        assert trial.held_out == (where == "held-out")
        for pair in trial.batches(marked, 20, 10, [0, 0]):
            for mine, (_, labels) in zip(seen[where], pair, strict=True):
                mine |= set(labels.tolist())
    assert seen["training"] == [set(range(200))] * 2
    weights, mixture = seen["held-out"]
    assert weights == set(range(100))
    assert mixture == set(range(100, 200))


@pytest.mark.parametrize("method", ["soft", "augmented"])
def test_a_baseline_trains_from_the_command_line(folder, method, capsys):
    arguments = [*TINY, "--epochs", "1", "--method", method, "--name", "run"]
    baseline.main([*arguments, "--soft.learned", "--groups", "C4"])
    result = json.loads((folder / "runs/run/result.json").read_text())
    (row,) = result["readings"]
    assert 0 <= row["test_error"] <= 1
    expected = {"augmented": ["C1"] * 3}.get(method, ["C4"] * 3)
    assert row["groups"] == expected
    assert (folder / "runs/run/trial.png").exists()
    assert "as trained" in capsys.readouterr().out


def test_relaxed_before_training_it_starts_with_the_larger_symmetry(folder):
    dataset = catalogue.load("quarter")
    config = BaselineTask(groups=("C1",), relaxed_from="D4", **SMALL)
    experiment = config.prepare(dataset)
    trial, state = experiment.trial, experiment.begin()
    x = dataset.test.images[:4]
    apply = jax.jit(trial.model.apply)
    turned = np.rot90(x, axes=(1, 2))
    logits = apply(state.variables, x)
    np.testing.assert_allclose(apply(state.variables, turned), logits, atol=1e-4)
    assert trial.model.architecture.groups[0].order == 1
    scratch = BaselineTask(groups=("C1",), **SMALL).prepare(dataset).trial
    own = scratch.init(0, config.inputs(dataset)).variables
    assert np.abs(apply(own, turned) - apply(own, x)).max() > 1e-3


def test_a_group_for_every_layer_and_random_ones():
    config = BaselineTask(groups=("D4", "C4", "C1"), **SMALL)
    assert str(config.architecture) == "D4 C4 C1"
    drawn = {
        BaselineTask(
            method="random", groups=("D4", "C4", "C1"), seed=s, **SMALL
        ).architecture
        for s in range(8)
    }
    assert len(drawn) > 3
    assert all(a.is_monotone for a in drawn)


@pytest.mark.slow
def test_augmented_digits_are_turned_and_the_network_is_plain(folder):
    dataset = catalogue.load("quarter")
    config = BaselineTask(method="augmented", groups=("C4",), **SMALL)
    trial = config.prepare(dataset).trial
    assert trial.augment.name == "C4"
    assert str(trial.model.architecture) == "C1 C1 C1"
    state = trial.init(0, config.inputs(dataset))
    batch = tuple(jnp.asarray(a[:32]) for a in dataset.train)
    losses = [
        float(trial.step(state, batch, None, jax.random.key(i))[1].loss)
        for i in range(2)
    ]
    assert losses[0] != losses[1]


@pytest.mark.slow
def test_the_best_of_an_evolution_is_trained_from_scratch(folder):
    setting = "--population 2 --children 2 --generations 1 --first-epochs 0.5".split()
    arguments = [*TINY, *setting, "--epochs", "0.5", "--retrain", "--devices", "1"]
    evolve.main([*arguments, "--name", "run"])
    result = json.loads((folder / "runs/run/result.json").read_text())
    best = min(result["front"], key=lambda m: m["validation_error"])
    (again,) = json.loads((folder / "runs/run/retrained/result.json").read_text())[
        "readings"
    ]
    assert again["groups"] == best["groups"]
    assert again["test_parameters"] == best["parameters"]
    assert again["steps"] == 6  # three before the first generation, three after


def test_settings_reach_the_layers():
    dataset = catalogue.load("quarter")
    config = DifferentiationTask(
        unrolled_step=0.2,
        norms="free",
        prior=1.0,
        temperature=2.0,
        skip="outside",
        **SMALL,
    )
    trial = config.prepare(dataset).trial
    assert trial.search.unrolled_step == 0.2
    first, second, head = trial.model.constraints
    assert second.skip == "outside"
    assert first.skip is head.skip is None
    assert (first.hold_norm, first.prior, first.temperature) == (False, 1.0, 2.0)
    kinds = {
        "residual": eq.ResidualPathway(2e-5, 1e-3),
        "relaxed": eq.RelaxedWeights(3),
        "outputs": eq.RelaxedOutputs(3),
        "partial": eq.PartialGroup(),
        "soft": eq.SoftProjection(0.5, learned=True),
        "gamma": eq.GammaProjection(("C4", "C1")),
        "nonstationary": eq.NonStationary(2.0),
    }
    for method, constraint in kinds.items():
        chosen = ConstraintSettings(**{method: constraint})
        config = BaselineTask(method=method, constraints=chosen, **SMALL)
        model = config.prepare(dataset).trial.model
        assert model.constraints == (constraint,) * 3
    paper = BaselineTask(method="residual", network="paper", **SMALL)
    assert paper.constraint == (eq.Tied(), eq.ResidualPathway())


def test_one_trial_is_one_program_for_all_seeds():
    """Optimizers of equal settings are one object, so that nothing recompiles."""
    dataset = catalogue.load("quarter")
    dual = functools.partial(BaselineTask, method="gamma", gammas="dual")
    for kind in (BaselineTask, DifferentiationTask, dual):
        trials = [kind(seed=s, **SMALL).prepare(dataset).trial for s in (0, 1)]
        assert trials[0] == trials[1]
        assert hash(trials[0]) == hash(trials[1])


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (
            baseline.main,
            ["--groups", "D4", "C4"],
            "one for each of the 5 layers, got 2",
        ),
        (baseline.main, ["--groups", "C8"], "no subgroup 'C8'; nearest: C4"),
        (baseline.main, ["--epochs", "0"], "--epochs must be positive"),
        (baseline.main, ["--method", "plain"], "--method"),
        (
            baseline.main,
            ["--method", "soft", "--soft.softness", "2"],
            "softness must be in [0, 1], got 2",
        ),
        (
            baseline.main,
            ["--method", "soft", "--relaxed-from", "D4"],
            "--relaxed-from goes with --method static alone",
        ),
        (
            baseline.main,
            ["--groups", "D2", "--relaxed-from", "C4"],
            "--relaxed-from C4 does not contain D2:i",
        ),
        (
            baseline.main,
            ["--method", "augmented", "--groups", "D4", "C4"],
            "--method augmented takes one of --groups",
        ),
        (
            baseline.main,
            ["--batch-size", "201"],
            "--batch-size must be at most 200, the training images",
        ),
        (
            baseline.main,
            ["--relaxed-from", "D4", "--relaxed-after", "4", "--epochs", "4"],
            "--relaxed-after must be at least 0 and below --epochs",
        ),
        (
            baseline.main,
            ["--relaxed-after", "1"],
            "--relaxed-after needs --relaxed-from",
        ),
        (
            compare.main,
            ["--epochs", "0.1", "--methods", "C1 from trained D4", "D4"],
            "--relaxed-after leaves none of the 1 steps",
        ),
        (
            differentiate.main,
            ["--batch-size", "101", "--mixture-images", "held-out"],
            "--batch-size must be at most 100, half of the training images",
        ),
        (differentiate.main, ["--groups", "C4", "D2"], "one that contains all others"),
        (
            differentiate.main,
            ["--unrolled-step", "-1"],
            "--unrolled-step must be at least 0",
        ),
        (
            differentiate.main,
            ["--mixture-rate", "0"],
            "--mixture-rate must be positive",
        ),
        (differentiate.main, ["--temperature", "0"], "--temperature must be positive"),
        (
            differentiate.main,
            ["--mixture", "uniform", "--prior", "2"],
            "--mixture uniform has equal weights, and no --prior",
        ),
        (
            differentiate.main,
            ["--mixture", "uniform", "--mixture-images", "held-out"],
            "--mixture uniform needs no --mixture-images",
        ),
        (
            differentiate.main,
            ["--fine-tuning-steps", "0"],
            "--fine-tuning-steps must be at least 1",
        ),
        (differentiate.main, ["--resume", "--name", "no"], "there is no run 'no'"),
        (
            compare.main,
            ["--methods", "C3"],
            "no method 'C3' for --methods, nearest: 'C",
        ),
        (
            compare.main,
            ["--methods", "C4", "C1"],
            "--reference 'D4' must be one of --methods, C4, C1",
        ),
        (
            baseline.main,
            ["--method", "partial", "--network", "paper"],
            "--method partial does nothing with --network paper",
        ),
        (compare.main, ["--seeds", "0"], "--seeds must be at least 1"),
    ],
)
def test_bad_arguments_are_errors_that_leave_nothing_behind(
    folder, capsys, main, arguments, message
):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    printed = capsys.readouterr()
    assert message in " ".join((printed.out + printed.err).split())
    assert not (folder / "runs").exists()


def test_a_network_that_diverges_says_so(folder, capsys):
    baseline.main([*TINY, "--learning-rate", "1e30", "--name", "lost"])
    assert "validation error diverged" in capsys.readouterr().out
    last = read_lines(folder / "runs/lost/metrics.jsonl")[-1]
    assert last["validation_loss"] is last["validation_error"] is None
    result = json.loads((folder / "runs/lost/result.json").read_text())
    (reading,) = result["readings"]
    assert reading["validation_error"] is reading["test_error"] is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "network", "short"),
    [
        (baseline, "wide_resnet", "--epochs 0.02 --groups C4"),
        (
            evolve,
            "resnet",
            "--generations 1 --population-size 2 --children 1 --epochs 0.02 "
            "--first-epochs 0.02",
        ),
        (differentiate, "wide_resnet", "--epochs 0.02 --groups D4 C4"),
        (guide, "resnet", "--epochs 0.05 --tested-images 64"),
    ],
)
def test_residual_networks_are_networks_of_all_commands(
    folder, command, network, short
):
    kind = "--features 1 1 --kernel-size 3 --batch-size 32 --image-size 14".split()
    named = ["--network", network, "--name", "run"]
    command.main([*kind, *short.split(), *named])
    saved = networks.find(run_folder.ROOT / "run")
    assert saved.model.order == ("post" if network == "resnet" else "pre")
    assert saved.model.layer_names == ("stem", "stage1", "stage2", "head")


@pytest.mark.slow
def test_generators_are_searched_and_go_on_after_a_kill(folder, monkeypatch):
    settings = {"trainings": 3, "child": 0.5, "agent": "random", **SMALL}
    config = GeneratorTask(**settings)
    found = {}
    for name in ("whole", "killed"):
        own = folder / name
        own.mkdir()
        if name == "killed":
            with monkeypatch.context() as patch:
                patch.setattr(generate, "retraining", interrupt)
                with pytest.raises(KeyboardInterrupt):
                    config.run(own, QUIET)
            kept = read_lines(own / "children.jsonl")
            assert len(kept) == 3
            (own / "children.jsonl").write_text(json.dumps(kept[0]) + "\n")
        (found[name],) = config.run(own, QUIET)
        children = read_lines(own / "children.jsonl")
        assert len({tuple(row["groups"]) for row in children}) == len(children) == 3
        best = max(row["accuracy"] for row in children)
        chosen = [r["groups"] for r in children if r["accuracy"] == best]
        assert found[name]["groups"] in chosen
    assert found["whole"] == found["killed"]


@pytest.mark.slow
def test_a_climb_goes_on_after_a_kill(folder, monkeypatch):
    settings = {**SMALL, "climbs": 2, "children": 2, "moves_per_child": 1}
    config = ClimbTask(**{**settings, "first_epochs": 0.4, "epochs": 0.2})
    whole, killed = folder / "whole", folder / "killed"
    whole.mkdir()
    killed.mkdir()
    (row,) = config.run(whole, QUIET)
    assert row["steps"] == sum(config.lengths(config.load())) + 1
    assert (whole / "networks").exists()
    real = climb.pack

    def once(number, best):
        if number == 1:
            raise KeyboardInterrupt
        return real(number, best)

    monkeypatch.setattr(climb, "pack", once)
    with pytest.raises(KeyboardInterrupt):
        config.run(killed, QUIET)
    monkeypatch.setattr(climb, "pack", real)
    assert config.run(killed, QUIET) == [row]


def interrupt(*arguments):
    raise KeyboardInterrupt


@pytest.mark.slow
def test_a_learned_sharing_is_read_off_as_groups(folder):
    config = DifferentiationTask(
        relaxation="sharing", mixture_images="held-out", implicit_steps=1, **SMALL
    )
    mixed, collapsed, discretized, retrained = config.run(folder, QUIET)
    assert mixed["sharing"]["conv1"]["D4"] == 0  # after few steps
    assert collapsed["groups"] == ["C1"] * 3
    assert discretized["groups"] == retrained["groups"]
    assert config.passes == SMALL["epochs"] * 7
    plain = dataclasses.replace(config, implicit_steps=0, retrain=False)
    assert plain.passes == SMALL["epochs"] * 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"unrolled_step": 0.1, "implicit_steps": 1}, "one of --unrolled-step"),
        ({"implicit_steps": -1}, "--implicit-steps must be at least 0"),
        ({"relaxation": "sharing", "read_off": "perturbation"}, "--read-off and"),
        (
            {"relaxation": "sharing", "sharing": eq.LearnedSharing()},
            "needs --sharing.apart",
        ),
    ],
)
def test_settings_of_a_sharing_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        DifferentiationTask(**settings)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GeneratorTask(parts=9), "parts must be from 1 to the 5 layers"),
        (lambda: GeneratorTask(child=0.0), "--child must be above 0"),
        (lambda: ClimbTask(network="paper"), "--network must be exact"),
        (lambda: ClimbTask(climbs=0), "--climbs must be at least 1"),
    ],
)
def test_settings_of_searches_that_cannot_be(make, message):
    with pytest.raises(ValueError, match=message):
        make()
