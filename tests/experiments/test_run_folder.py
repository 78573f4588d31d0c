"""The folder of a run: what it remembers, and what continues it."""

import json

import pytest
from flax import serialization

import eqjax as eq
from eqjax_experiments import baseline
from eqjax_experiments.engine import records
from eqjax_experiments.runs import files, run_folder
from eqjax_experiments.tasks.baseline import BaselineTask, ConstraintSettings
from tests.tiny import SMALL, TINY


def soft(**settings):
    chosen = ConstraintSettings(soft=eq.SoftProjection(**settings))
    return BaselineTask(method="soft", constraints=chosen, **SMALL)


def test_settings_have_the_names_of_their_options():
    named = run_folder.options(soft(softness=0.5))
    assert named["soft.softness"] == 0.5
    assert named["epochs"] == SMALL["epochs"]
    assert "constraints" not in named


def continued(task):
    return run_folder.open_run(
        task.__class__(**{**vars(task), "name": "run", "resume": True}), "baseline"
    )


def test_options_of_constraints_are_compared_one_by_one(folder):
    task = soft(softness=0.8, learned=True)
    run_folder.open_run(BaselineTask(**{**vars(task), "name": "run"}), "baseline")
    assert continued(soft(learned=True)).name == "run"  # softness was not given
    with pytest.raises(ValueError, match=r"has soft.softness 0.8, and .* change it to"):
        continued(soft(softness=0.7, learned=True))
    other = BaselineTask(**{**vars(soft(learned=True)), "name": "run"})
    with pytest.raises(ValueError, match=r"begun with soft.softness 0.8, not 0.9"):
        run_folder.enter(folder / "runs/run", other)
    saved = json.loads((folder / "runs/run/config.json").read_text())
    del saved["config"]["constraints"]["soft"]["learned"]
    files.write_json(folder / "runs/run/config.json", saved)
    with pytest.raises(
        ValueError, match="no run of this command: .* differ in learned"
    ):
        continued(task)


def test_a_checkpoint_knows_its_place_though_lines_were_lost(folder, monkeypatch):
    """After a power loss the checkpoint may be ahead of the metrics."""
    arguments = [*TINY, "--epochs", "3", "--name", "run"]

    class Killed(Exception):
        pass

    append = files.append_line

    def die(path, record):
        if path.name == files.METRICS and record["step"] == 18:
            raise Killed
        append(path, record)

    monkeypatch.setattr(records.files, "append_line", die)
    with pytest.raises(Killed):
        baseline.main(arguments)
    monkeypatch.setattr(records.files, "append_line", append)
    own = folder / "runs/run"
    files.keep_lines(own / files.METRICS, 1)
    baseline.main(["--name", "run", "--resume"])
    tree = serialization.msgpack_restore((own / files.CHECKPOINT).read_bytes())
    assert tree["done"] == 4
    assert [r["step"] for r in files.read_lines(own / files.METRICS)] == [6, 18, 19]
