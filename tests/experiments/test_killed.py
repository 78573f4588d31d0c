"""The real command, killed again and again, ends where an undisturbed one does."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from eqjax_experiments.runs.files import ROWS, read_lines
from tests.tiny import TINY


def kill_when(process, event, deadline=240):
    """Kill a process as soon as something is seen, unless it ends before."""
    begin = time.monotonic()
    while process.poll() is None and not event():
        assert time.monotonic() - begin < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_sigkill_in_training_selection_and_writing(tmp_path, environment):
    """The real command, killed again and again, ends where an undisturbed one does."""
    command = [
        sys.executable,
        "-m",
        "eqjax_experiments.compare",
        *TINY,
        "--data",
        "quarter",
    ]
    command += ["--batch-size", "1000", "--seeds", "1"]
    command += ["--methods", "EquiNAS_E", "--reference", "EquiNAS_E"]

    def start(*arguments):
        return subprocess.Popen(
            [*command, *arguments],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.DEVNULL,
        )

    assert start("--name", "whole").wait() == 0
    whole, killed = tmp_path / "runs/whole", tmp_path / "runs/killed"

    def sizes():
        return {str(p): p.stat().st_size for p in killed.rglob("metrics.jsonl")}

    rng = np.random.default_rng(0)
    process = start("--name", "killed")
    for kind in ("at random", "record", "writing", "at random"):
        at, before = time.monotonic() + rng.uniform(3, 10), sizes()
        events = {
            # in training, or on the way there
            "at random": lambda at=at: time.monotonic() > at,
            # selected, and its record written, but not its checkpoint
            "record": lambda before=before: sizes().items() - before.items(),
            # a file half written
            "writing": lambda: any(killed.rglob("*.partial")),
        }
        kill_when(process, events[kind])
        resume = ["--resume"] * (killed / "config.json").exists()
        process = start("--name", "killed", *resume)
    assert process.wait() == 0
    names = [p.relative_to(whole) for p in whole.rglob("*") if p.is_file()]
    assert {p.relative_to(killed) for p in killed.rglob("*") if p.is_file()} == {*names}
    for name in names:
        if name.name in ("metrics.jsonl", "checkpoint.msgpack") or (
            name.name == "result.json" and len(name.parts) > 1
        ):
            assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
    ours, theirs = (
        [
            {k: v for k, v in row.items() if k != "seconds"}
            for row in read_lines(run / ROWS)
        ]
        for run in (whole, killed)
    )
    assert ours == theirs
