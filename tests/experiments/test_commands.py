"""One command line: its help, output, dry runs, interruptions and exit status."""

import json
import os
import re
import signal
import subprocess
import sys

import flax.linen as nn
import jax
import numpy as np
import pytest
from PIL import Image

import eqjax as eq
from eqjax.analysis.evidence import GroupEvidence, LayerEvidence, SymmetryTest
from eqjax.saving import Preprocessing, Saved
from eqjax_experiments import (
    __main__ as commands,
    baseline,
    compare,
    evolve,
    exactness,
    inspect,
    shell,
    test_symmetry as symmetry_command,
)
from eqjax_experiments.data.splits import StoredImages, first_of
from eqjax_experiments.engine import interrupts
from eqjax_experiments.runs import files
from eqjax_experiments.tasks import symmetry
from eqjax_experiments.tasks.probe import answer
from tests.tiny import TINY

KNOWN = [name for part in commands.COMMANDS.values() for name in part]
WITH_OPTIONS = [name for name in KNOWN if name != "completion"]
SHORT = [*TINY, "--epochs", "0.05"]


def test_the_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as ended:
        commands.main(["--help"])
    printed = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(re.search(rf"^  {name} ", printed, re.MULTILINE) for name in KNOWN)


@pytest.mark.parametrize("name", WITH_OPTIONS)
def test_the_help_of_a_command_shows_defaults_and_an_example(name, capsys):
    with pytest.raises(SystemExit) as ended:
        commands.main([name, "--help"])
    printed = capsys.readouterr().out
    assert ended.value.code == 0
    assert f"python -m experiments {name}" in printed
    assert "(default: False)" in printed  # of --quiet


@pytest.mark.parametrize("name", WITH_OPTIONS)
def test_an_option_that_does_not_exist_ends_with_2(name, folder, capsys):
    with pytest.raises(SystemExit) as ended:
        commands.main([name, "--no-such-option"])
    assert ended.value.code == 2
    assert not (folder / "runs").exists()


def test_examples_are_typed_as_the_program_was_called(monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None, raising=False)
    monkeypatch.setattr(sys, "argv", ["/some/bin/eqjax mnist"])
    assert shell.help_on("python -m experiments mnist") == "$ /some/bin/eqjax mnist"
    monkeypatch.setattr(sys, "argv", ["another"])
    assert shell.help_on("python -m experiments mnist").startswith("$ python -m")


def test_a_command_that_does_not_exist_is_told_the_nearest(capsys):
    with pytest.raises(SystemExit) as ended:
        commands.main(["evolv"])
    assert ended.value.code == 2
    assert "no command 'evolv'; nearest: evolve" in capsys.readouterr().out


@pytest.mark.parametrize("shell", commands.SHELLS)
def test_every_command_is_completed(shell, capsys):
    with pytest.raises(SystemExit) as ended:
        commands.main(["completion", shell])
    assert not ended.value.code
    printed = capsys.readouterr().out
    assert all(name in printed for name in WITH_OPTIONS)
    assert "tested" not in printed or "--tested-images" in printed


def test_another_shell_is_not_completed():
    with pytest.raises(SystemExit, match="bash,zsh"):
        commands.main(["completion", "fish"])


@pytest.mark.parametrize("arguments", [["--help"], ["evolve", "--help"]])
def test_a_reader_that_leaves_early_ends_a_command_quietly(arguments):
    read, write = os.pipe()
    os.close(read)  # as `head` does once it has its lines
    done = subprocess.run(
        [sys.executable, "-m", "eqjax_experiments", *arguments],
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert done.stderr == b""
    assert done.returncode != 0


def test_a_dry_run_tells_the_steps_of_the_run_and_writes_nothing(folder, capsys):
    baseline.main([*SHORT, "--dry-run", "--quiet", "--json", "-"])
    cost = json.loads(capsys.readouterr().out)
    assert not (folder / "runs").exists()
    assert cost["groups"] == ["D4"] * len(cost["groups"])
    assert cost["seconds"] == pytest.approx(cost["steps"] * cost["seconds_per_step"])
    baseline.main([*SHORT, "--quiet", "--json", "found.json"])
    assert capsys.readouterr().out == ""
    (row,) = json.loads((folder / "found.json").read_text())["readings"]
    assert row["steps"] == cost["steps"]
    assert row["training_parameters"] == cost["parameters"]


def test_dry_runs_count_all_networks(folder, capsys):
    few = [*TINY, "--children", "2", "--generations", "3", "--population-size", "2"]
    lengths = ["--epochs", "0.1", "--first-epochs", "0.2"]
    dry = ["--dry-run", "--quiet", "--json", "-"]
    evolve.main([*few, *lengths, *dry])
    cost = json.loads(capsys.readouterr().out)
    passes = 0.2 + 3 * 2 * 2 * 0.1
    assert cost["steps"] == round(passes * cost["images"] / 32)
    compare.main([*SHORT, "--methods", "D4", "C4", "--seeds", "3", *dry])
    assert json.loads(capsys.readouterr().out)["steps"] % 6 == 0
    assert not (folder / "runs").exists()


def test_json_has_the_standard_output_for_itself(folder, capsys):
    baseline.main([*SHORT, "--name", "run", "--json", "-"])
    printed = capsys.readouterr()
    assert json.loads(printed.out)["run"] == "runs/run"
    assert "writing to" in printed.err


def test_errors_are_told_to_the_quiet(folder, capsys):
    with pytest.raises(SystemExit) as ended:
        baseline.main([*SHORT, "--quiet", "--groups", "C3"])
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().out


def test_ctrl_c_stops_after_the_pass_and_loses_nothing(folder, capsys, monkeypatch):
    passes = [*TINY, "--epochs", "3"]
    baseline.main([*passes, "--name", "whole"])
    append = files.append_line

    def interrupt(path, record):
        append(path, record)
        if path.name == files.METRICS and record["step"] < 10:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(files, "append_line", interrupt)
        with pytest.raises(SystemExit) as ended:
            baseline.main([*passes, "--name", "cut"])
    assert ended.value.code == 130
    printed = " ".join(capsys.readouterr().out.split())
    assert "stopping after this pass" in printed
    assert "baseline --name cut --resume" in printed
    assert len(files.read_lines(folder / "runs/cut" / files.METRICS)) == 1
    assert (folder / "runs/cut" / files.CHECKPOINT).exists()  # it was saved
    baseline.main(["--name", "cut", "--resume"])
    both = [(folder / "runs" / n / files.METRICS).read_text() for n in ("whole", "cut")]
    assert both[0] == both[1]


def test_a_second_ctrl_c_stops_at_once():
    said = []
    before = signal.getsignal(signal.SIGINT)
    with interrupts.gracefully(said.append):
        os.kill(os.getpid(), signal.SIGINT)
        assert len(said) == 1
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    interrupts.stop_if_asked()  # nobody asks any more


def test_a_run_is_inspected(folder, capsys):
    with pytest.raises(SystemExit) as ended:
        inspect.main(["nothing"])
    assert ended.value.code == 2
    inspect.main([])
    assert "no runs under runs/" in capsys.readouterr().out
    baseline.main([*SHORT, "--groups", "C4", "--name", "run"])
    capsys.readouterr()
    inspect.main(["run", "--quiet", "--json", "-"])
    found = json.loads(capsys.readouterr().out)
    assert (found["command"], found["state"]) == ("baseline", "finished")
    assert found["settings"]["groups"] == ["C4"]
    (network,) = found["networks"]
    assert set(network["groups"]) == {"C4"}
    assert network["parameters"] > 0
    inspect.main(["runs/run"])
    assert "validation error" in capsys.readouterr().out
    (folder / "runs/run/result.json").unlink()
    inspect.main([])
    assert "baseline" in capsys.readouterr().out
    inspect.main(["run"])
    assert "the first training has come to step 1" in capsys.readouterr().out
    (folder / "runs/run/config.json").write_text("{")
    with pytest.raises(SystemExit) as ended:
        inspect.main(["run"])
    assert ended.value.code == 2
    assert "config.json is damaged" in " ".join(capsys.readouterr().out.split())


def test_a_network_of_a_run_is_exact(folder, capsys):
    baseline.main([*SHORT, "--groups", "C4", "--name", "run"])
    pixels = np.random.default_rng(0).random((3, 28, 28, 1), np.float32)
    np.save(folder / "three.npy", pixels)
    Image.fromarray((255 * pixels[0, ..., 0]).astype("u1")).save(folder / "one.png")
    capsys.readouterr()
    exactness.main(["run", "three.npy", "one.png", "--json", "found.json"])
    assert "4 images" in capsys.readouterr().out
    found = json.loads((folder / "found.json").read_text())
    assert found["kept"] == "C4"
    change = {row["element"]: row["change"] for row in found["images"]}
    turns = [name for name in change if "rotation" in name or name == "identity"]
    assert len(change) == 8
    assert max(change[name] for name in turns) < 1e-3 < max(change.values())


def test_a_saturated_network_shows_its_symmetry_on_images_alone(folder, capsys):
    """All of its units are off for noise, and for an image one is on."""

    class OnlyBright(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(4, (3, 3))(x) - 100)
            return nn.Dense(2)(x.reshape(len(x), -1))

    model = OnlyBright()
    pixels = 1000 * np.random.default_rng(0).random((2, 8, 8, 1), np.float32)
    variables = model.init(jax.random.key(0), pixels)
    found = Saved(
        model, variables, Preprocessing(shape=(8, 8, 1)), (), {}, {}, folder, {}
    )
    assert exactness.answers_alike(found)
    rows = exactness.changes(found, pixels, eq.dihedral(4))
    assert exactness.kept_on(rows, eq.dihedral(4)).name == "C1"


@pytest.mark.slow
def test_the_symmetry_of_data_is_answered(folder, capsys):
    asked = ["quarter", "--name", "asked", "--epochs", "1"]
    symmetry_command.main([*asked, "--json", "found.json"])
    printed = capsys.readouterr().out
    found = json.loads((folder / "found.json").read_text())
    assert f"answer: {found['answer']}" in " ".join(printed.split())
    assert (folder / "runs/asked/evidence.png").stat().st_size > 10_000
    symmetry_command.main(["--name", "asked", "--resume"])
    again = capsys.readouterr().out
    assert "testing with" not in again
    assert found["answer"] in " ".join(again.split())


def test_the_first_of_stored_images_are_read_as_they_are_indexed(tmp_path):
    pixels = np.random.default_rng(0).random((10, 4, 4, 1), np.float32)
    np.save(tmp_path / "images.npy", pixels)
    stored = StoredImages(tmp_path / "images.npy", np.zeros(1), np.ones(1))
    first = first_of(stored, 6)
    assert (len(first), first.shape) == (6, (6, 4, 4, 1))
    for index in (slice(None), slice(-2, None), np.array([5, 0]), slice(3, 100)):
        np.testing.assert_array_equal(first[index], pixels[:6][index])
    np.testing.assert_array_equal(first_of(pixels, 6), pixels[:6])


def test_the_test_and_the_training_share_no_image(folder):
    task = symmetry.SymmetryTask(tested_images=30)
    dataset = task.load()
    seen, unseen = task.seen(dataset), task.samples(dataset)
    assert len(seen.train.labels) == 100
    assert len(unseen.labels) == 30 + len(dataset.validation.labels)
    of_both = {image.tobytes() for image in unseen.images}
    assert not of_both & {image.tobytes() for image in seen.train.images}


@pytest.mark.parametrize(
    ("rejected", "p", "words", "decided"),
    [
        (
            "D4 D2:i D2:i+j D1:i D1:j D1:i+j D1:i-j",
            0.7,
            "symmetric under C4 (p 0.70)",
            1,
        ),
        ("", 0.7, "symmetric under D4: the data do not contradict", 1),
        ("", 0.02, "undecided: D4 is not rejected", 0),
        (
            "D4 D2:i D2:i+j D1:j D1:i+j D1:i-j",
            0.7,
            "undecided: symmetric under C4 or",
            0,
        ),
        ("D4 C4 D2:i D2:i+j C2 D1:i D1:j D1:i+j D1:i-j", 0.7, "no symmetry of D4", 1),
    ],
)
def test_answers_claim_what_the_test_shows(rejected, p, words, decided):
    rows = {
        H.name: GroupEvidence(
            H,
            1.0,
            1.0,
            0.001 if (no := H.name in rejected.split()) else p,
            p,
            no,
            0.0,
            0,
        )
        for H in eq.dihedral(4).subgroups
    }
    report = SymmetryTest(eq.dihedral(4), rows, LayerEvidence(), 0.01, 200, 20)
    text, sure = answer(report)
    assert text.startswith(words)
    assert sure == bool(decided)
