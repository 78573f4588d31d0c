"""Real commands with settings that train in no time, and what they leave behind."""

import subprocess
import sys

from eqjax_experiments.runs import files
from tests.tiny import TINY

COMMANDS = {
    "evolve": "--groups D4 C4 C1 --generations 2 --population-size 2 --children 2 "
    "--first-epochs 0.02 --epochs 0.02 --retrain",
    "differentiate": "--groups D4 C4 --epochs 2",
    "guide": "--tested-images 100 --epochs 1 --use continued --probe 0.25",
    "compare": "--methods D4 EquiNAS_E --seeds 1 --epochs 1",
}
SHARED = "--data quarter --batch-size 1000".split()
# What tells no run from another: settings with the name, times, and rows with both.
OWN = (files.CONFIG, files.TIMING, files.ROWS, "lock")


def arguments(command):
    """Of a command, without the name of its run."""
    tiny = TINY[: TINY.index("--epochs")]
    return [*tiny, *SHARED, *COMMANDS[command].split()]


def start(command, folder, environment, *more):
    """Begin a command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", f"eqjax_experiments.{command}", *more],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def contents(run):
    """Every file of a run that another run with the same settings has, too."""
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in run.rglob("*")
        if path.is_file() and path.name not in OWN and not _timed(run, path)
    }


def _timed(run, path):
    return path == run / files.RESULT and (run / files.ROWS).exists()


def rows(run):
    """The rows of a comparison, without their seconds."""
    found = files.read_lines(run / files.ROWS)
    return [{k: v for k, v in row.items() if k != "seconds"} for row in found]


def same(run, other):
    """Assert that two runs have left the same behind."""
    assert rows(run) == rows(other)
    ours, theirs = contents(run), contents(other)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []
