"""Several devices, and several processes, give the results of one."""

import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from eqjax_experiments import evolve
from eqjax_experiments.runs.files import read_lines
from tests.experiments.test_evolve import ONE, STEADY


def metrics(folder, name):
    """All numbers of a run, generation by generation and child by child."""
    rows = [r["children"] for r in read_lines(folder / f"runs/{name}/metrics.jsonl")]
    assert [len(r) for r in rows] == [1, 2, 4]
    return [
        [(c["groups"], c["kept"], c["parameters"]) for r in rows for c in r],
        [[c["train_loss"], c["validation_loss"]] for r in rows for c in r],
    ]


@pytest.mark.slow
def test_four_devices_give_the_results_of_one(folder, capsys):
    evolve.main([*STEADY, *ONE, "--name", "one"])
    for extra in ("--devices 4", "--devices 4 --data-devices 2"):
        evolve.main([*STEADY, "--name", "four", *extra.split()])
        assert "4 cpu devices" in capsys.readouterr().out
        one, four = (metrics(folder, name) for name in ("one", "four"))
        assert one[0] == four[0]
        np.testing.assert_allclose(four[1], one[1], rtol=1e-3)
        shutil.rmtree(folder / "runs/four")


def start_processes(arguments, cwd, environment):
    """Start two processes of one run that meet on the loopback address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    together = f"--coordinator 127.0.0.1:{port} --processes 2".split()
    return [
        subprocess.Popen(
            [
                *(
                    sys.executable,
                    "-m",
                    "eqjax_experiments.evolve",
                    *STEADY,
                    *arguments,
                ),
                *(*together, "--process", str(i)),
            ],
            cwd=cwd,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]


@pytest.mark.slow
def test_two_processes_give_the_results_of_one(tmp_path, environment):
    """One of them is killed on the way; both start again and finish."""
    alone = [sys.executable, "-m", "eqjax_experiments.evolve", *STEADY, "--name", "one"]
    subprocess.run(
        alone, cwd=tmp_path, env=environment, check=True, stdout=subprocess.DEVNULL
    )
    first, second = start_processes(["--name", "two"], tmp_path, environment)
    saved = tmp_path / "runs/two/checkpoint.msgpack"
    deadline = time.monotonic() + 240
    while not saved.exists() and second.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    printed, _ = second.communicate(timeout=120)
    assert second.returncode != 0
    # Now and then JAX's own watchdog notices first, and aborts the process.
    aborted = second.returncode < 0
    assert aborted or "evolve --name two --resume" in printed
    again = start_processes(["--name", "two", "--resume"], tmp_path, environment)
    for process in again:
        printed, _ = process.communicate(timeout=240)
        assert process.returncode == 0, printed
    one, two = (metrics(tmp_path, name) for name in ("one", "two"))
    assert one[0] == two[0]
    np.testing.assert_allclose(two[1], one[1], rtol=1e-3)
