"""A run on a full disk ends with a plain message, and goes on to the same result."""

import contextlib
import os
import resource
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqjax as eq
from eqjax_experiments import baseline, predict
from eqjax_experiments.data import cache
from eqjax_experiments.data.archives import Archive
from eqjax_experiments.runs import files
from tests.faults.commands import arguments, contents, same, start
from tests.tiny import TINY


@contextlib.contextmanager
def files_of_at_most(size):
    """Let no file of this process grow beyond so many bytes: OSError, as if full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept = "jax_persistent_cache_min_compile_time_secs"
    seconds = jax.config.values[kept]
    jax.config.update(kept, 1e9)  # half a program would be left there for other tests
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        jax.config.update(kept, seconds)


WRITTEN = (
    "config.json",
    "checkpoint.msgpack",
    "trial.png",
    "networks/trained/weights.safetensors",
)


def test_a_run_ends_with_a_message_whatever_cannot_be_written(folder, capsys):
    baseline.main([*TINY, "--name", "whole"])
    whole = folder / "runs/whole"
    sizes = [(whole / name).stat().st_size for name in WRITTEN]
    assert sizes[0] < min(sizes[1:])
    for number, size in enumerate(sizes):
        own = ["--name", f"full-{number}"]
        capsys.readouterr()
        with files_of_at_most(size - 1), pytest.raises(SystemExit) as stopped:
            baseline.main([*TINY, *own])
        assert stopped.value.code == 2
        printed = " ".join(capsys.readouterr().out.split())
        assert "error: [Errno 27] File too large" in printed
        run = folder / f"runs/full-{number}"
        assert not list(run.rglob("*.partial"))
        if number:
            assert f"baseline --name full-{number} --resume" in printed
            baseline.main([*own, "--resume"])
        else:  # nothing was begun
            assert not (run / "config.json").exists()
            baseline.main([*TINY, *own])
        same(whole, run)


def test_a_network_that_was_saved_before_stays(tmp_path):
    layer = eq.LiftingConv(8, 5, group=eq.dihedral(4))
    x = jnp.ones((1, 8, 8, 3))
    variables = jax.jit(layer.init)(jax.random.key(0), x)
    net = tmp_path / "net"
    eq.save(net, layer, variables, number=1)
    for size in (10, 1500):  # too small for anything, and for the weights
        with files_of_at_most(size), pytest.raises(OSError, match="weights|27"):
            eq.save(net, layer, variables, number=2)
        assert [path.name for path in tmp_path.iterdir()] == ["net"]
        assert eq.load(net).extra == {"number": 1}


def test_a_cache_is_built_when_there_is_room(tmp_path):
    archive, root = tmp_path / "mine.npz", tmp_path / "caches"
    images = np.random.default_rng(0).integers(256, size=(40, 9, 9)).astype(np.uint8)
    np.savez(archive, images=images, labels=np.arange(40) % 2)
    with files_of_at_most(1000), pytest.raises(OSError, match="too large"):
        cache.load(Archive(archive), root)
    assert not [path for path in root.iterdir() if path.is_dir()]
    assert len(cache.load(Archive(archive), root).test.labels) == 4


def test_predictions_say_where_they_cannot_be_written(tmp_path, capsys):
    model = eq.exact(
        eq.Architecture.uniform(eq.dihedral(4), 2), features=(2,), pool_after=()
    )
    x = np.zeros((1, 8, 8, 1), np.float32)
    eq.save(tmp_path / "net", model, jax.jit(model.init)(jax.random.key(0), x))
    np.save(tmp_path / "x.npy", x)
    own = [str(tmp_path / "net"), str(tmp_path / "x.npy")]
    with files_of_at_most(10), pytest.raises(SystemExit) as stopped:
        predict.main([*own, "--json", str(tmp_path / "found.json")])
    assert stopped.value.code == 2
    assert "error: [Errno 27]" in capsys.readouterr().out
    assert not (tmp_path / "found.json").exists()


def test_a_line_that_is_not_whole_is_not_kept(tmp_path):
    path = tmp_path / "metrics.jsonl"
    files.append_line(path, {"step": 1})
    size = path.stat().st_size + 10
    with files_of_at_most(size), pytest.raises(OSError, match="too large"):
        files.append_line(path, {"step": 2})
    assert files.keep_lines(path, 1) == [{"step": 1}]
    assert files.read_lines(path) == [{"step": 1}]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, and a function that gives it so many bytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o"]
    done = subprocess.run(
        [*mount, "size=64k", "tmpfs", disk], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted: {done.stderr.decode().strip()}")

    def resize(size):
        subprocess.run([*mount, f"remount,size={size}", "tmpfs", disk], check=True)

    yield disk, resize
    subprocess.run(["umount", disk], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["evolve", "guide", "compare"])
def test_a_full_file_system(command, tmp_path, small_disk, environment):
    """With room for half of what a run writes, for three quarters, then for all."""
    disk, resize = small_disk

    def run(folder, *more):
        process = start(command, folder, environment, "--name", "run", *more)
        printed, _ = process.communicate()
        return process.returncode, " ".join(printed.split())

    assert run(tmp_path, *arguments(command))[0] == 0
    whole = tmp_path / "runs/run"
    total = sum(len(content) for content in contents(whole).values())
    more = arguments(command)
    for part in (0.5, 0.75):
        resize(int(part * total))
        code, printed = run(disk, *more)
        assert code == 2
        assert "No space left on device" in printed or "os error 28" in printed.lower()
        assert "Traceback" not in printed
        if "continue with" in printed:
            more = ["--resume"]
    resize(4 * total + 2**20)
    code, printed = run(disk, *more)
    assert code == 0, printed
    same(whole, disk / "runs/run")
    assert os.listdir(disk) == ["runs"]
