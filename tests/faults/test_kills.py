"""Commands that are killed at any moment, again and again, end as if they had not been.

Fifty kills at the default; EQJAX_KILLS says how many others.
"""

import os
import time

import numpy as np
import pytest

from eqjax_experiments.runs.files import CONFIG
from tests.faults.commands import COMMANDS, arguments, same, start

KILLS = int(os.environ.get("EQJAX_KILLS", "50"))


def share(command):
    """How many of the kills are of this command."""
    return len(range(list(COMMANDS).index(command), KILLS, len(COMMANDS)))


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_killed_at_any_moment(command, tmp_path, environment):
    def begin(name):
        known = (tmp_path / "runs" / name / CONFIG).exists()
        rest = ["--resume"] if known else arguments(command)
        return start(command, tmp_path, environment, "--name", name, *rest)

    for name in ("whole", "again"):  # which finds its programs compiled, as all others
        first = time.monotonic()
        process = begin(name)
        printed, _ = process.communicate()
        assert process.returncode == 0, printed
        seconds = time.monotonic() - first
    same(tmp_path / "runs/whole", tmp_path / "runs/again")

    rng = np.random.default_rng(list(COMMANDS).index(command))
    number, kills = 0, 0
    while kills < share(command):
        process = begin(f"killed-{number}")
        time.sleep(rng.uniform(0, seconds))
        process.kill()
        printed, _ = process.communicate()
        assert process.returncode in (0, -9), printed
        kills += process.returncode == -9
        if process.returncode == 0:
            same(tmp_path / "runs/whole", tmp_path / f"runs/killed-{number}")
            number += 1
    process = begin(f"killed-{number}")
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    same(tmp_path / "runs/whole", tmp_path / f"runs/killed-{number}")
