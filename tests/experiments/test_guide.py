"""The guided search from the command line: its files, its resumption, its picture."""

import json

import pytest

from eqjax_experiments import guide
from eqjax_experiments.engine import trial
from eqjax_experiments.runs.files import read_lines
from eqjax_experiments.tasks.guide import GuidedTask
from tests.tiny import TINY

FEW = [*TINY, "--tested-images", "40", "--epochs", "2"]


def run(name, *arguments):
    guide.main([*FEW, *arguments, "--name", name])


def results(folder):
    """All results below a run, without what only time tells."""
    return {
        str(path.relative_to(folder)): json.loads(path.read_text())
        for path in folder.rglob("*.json")
        if path.name != "config.json"
    }


@pytest.mark.slow
@pytest.mark.parametrize("use", ["retrained", "continued"])
def test_a_search_is_written_and_goes_on_after_a_kill(folder, capsys, monkeypatch, use):
    arguments = ["--use", use, "--probe", "0.25"]
    run("whole", *arguments)
    printed = capsys.readouterr().out
    assert "not rejected:" in printed
    assert "groups from here on:" in printed
    whole, killed = folder / "runs/whole", folder / "runs/killed"
    entries = json.loads((whole / "evidence.json").read_text())
    assert len(entries) == (1 if use == "retrained" else 2)
    assert (whole / "evidence.png").stat().st_size > 10_000
    assert entries[0]["groups"] == ["D4"] * 3
    last = whole / ("stage-2" if use == "retrained" else "stage-2/stage-3")
    (row,) = json.loads((last / "result.json").read_text())["readings"]
    assert row["reading"] == use
    assert row["test_error"] is not None
    assert row["groups"] == entries[-1]["next"]
    records = read_lines(last / "metrics.jsonl")
    assert records[-1]["validation_error"] is not None

    taken, true_record = [], trial._record

    def interrupted(*arguments):
        taken.append(1)
        if len(taken) == 3:
            raise KeyboardInterrupt
        return true_record(*arguments)

    monkeypatch.setattr(trial, "_record", interrupted)
    with pytest.raises(SystemExit) as stopped:
        run("killed", *arguments)
    assert stopped.value.code == 130
    monkeypatch.setattr(trial, "_record", true_record)
    guide.main(["--name", "killed", "--resume"])
    assert results(killed) == results(whole)


def test_held_out_losses_of_a_network_without_symmetry_name_the_groups(folder, capsys):
    run("losses", "--criterion", "losses")
    printed = " ".join(capsys.readouterr().out.split())
    assert "loss when moved" in printed
    (entry,) = json.loads((folder / "runs/losses/evidence.json").read_text())
    assert entry["groups"] == ["C1"] * 3
    assert f"named: {entry['named']}; {entry['answer']}" in printed
    assert entry["next"] == ["D4", "D4", entry["named"]]
    trained = read_lines(folder / "runs/losses/stage-2/metrics.jsonl")[-1]["step"]
    result = json.loads((folder / "runs/losses/stage-2/result.json").read_text())
    (row,) = result["readings"]
    assert row["groups"] == entry["next"]
    seen = read_lines(folder / "runs/losses/metrics.jsonl")[-1]["step"]
    assert (trained, seen) == (row["steps"] - seen, seen)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"probe": 0}, "--probe must be above 0"),
        ({"late": 2}, "--late must be above 0"),
        ({"level": 1}, "--level must be between"),
        ({"use": "continued", "probe": 0.5}, "--probe times --milestones"),
        ({"use": "continued", "criterion": "losses"}, "--use retrained"),
        ({"ambient": "C8", "criterion": "losses"}, "--ambient C4, or test by grad"),
        ({"groups": ()}, "--groups needs at least one"),
        ({"network": "paper"}, "--network paper keeps no group exactly"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        GuidedTask(**settings)
