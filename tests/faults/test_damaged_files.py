"""A file that was cut or changed is an error that names it, or is made again."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqjax as eq
from eqjax.search import Checkpoint, Score, SearchState
from eqjax.training import pack_state
from eqjax_experiments import baseline
from eqjax_experiments.data import cache
from eqjax_experiments.data.archives import Archive
from eqjax_experiments.data.schedules import DESCRIBED, METRICS, Schedules
from eqjax_experiments.engine import trial
from eqjax_experiments.runs import files, run_folder, search_checkpoints
from eqjax_experiments.tasks.baseline import BaselineTask
from tests.faults.damage import attempt, damaged
from tests.tiny import SMALL, TINY

D4 = eq.dihedral(4)
RECORDS = [
    {"step": 6, "train_loss": 2.25, "validation_error": None, "mixtures": []},
    {"step": 12, "train_loss": 1.0625e-3, "groups": ["D4", "C1:é"], "points": {10: 1}},
]
PLAIN = json.loads(json.dumps(RECORDS))


def names(message, path):
    """Whether an error says which file, or which folder."""
    return str(path) in message or str(path.parent) in message


def holds(found, expected):
    """Whether a record is the expected one; an entry more does no harm."""
    return expected.items() <= found.items()


def test_every_record_is_read_as_it_was_written_or_not_at_all(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for record in RECORDS:
        files.append_line(path, record)
    whole = path.read_bytes()
    assert files.read_lines(path) == PLAIN
    for what, content in damaged(whole, 1):
        path.write_bytes(content)
        found, message = attempt(files.read_lines, path)
        if message is not None:
            assert re.search(r"line \d of .*metrics.jsonl is damaged", message), what
        else:  # whole lines are gone, or the name of the checksum has changed
            assert all(map(holds, found, PLAIN)), what
            assert len(found) == 2 or what.startswith("cut"), what


def test_records_of_other_programs_have_no_checksum(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')
    assert files.read_lines(path) == [{"step": 1}, {"step": 2}]


def test_lists_of_records(tmp_path):
    path = tmp_path / "evidence.json"
    files.write_records(path, RECORDS)
    assert files.read_records(path) == PLAIN
    for what, content in damaged(path.read_bytes(), 3):
        path.write_bytes(content)
        found, message = attempt(files.read_records, path)
        if message is not None:
            assert names(message, path), what
        else:
            assert len(found) == 2, what
            assert all(map(holds, found, PLAIN)), what


def test_settings_of_a_run(folder):
    task = BaselineTask(method="soft", seed=10, name="run", **SMALL)
    run = run_folder.open_run(task, "baseline")
    path = run / files.CONFIG
    for what, content in damaged(path.read_bytes(), 5):
        path.write_bytes(content)
        found, message = attempt(run_folder.saved_task, run, BaselineTask)
        assert found == task or names(message, path), what


def small_state(seed=0):
    rng = np.random.default_rng(seed)
    params = {"conv1": {"kernel": rng.normal(size=(5, 3, 7))}, "bias": np.zeros(2)}
    return pack_state({"params": params, "batch_stats": {"mean": np.ones(3)}}, ())


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_checkpoints_of_trainings(tmp_path):
    path = tmp_path / files.CHECKPOINT
    state = small_state()
    path.write_bytes(trial.pack(3, state))
    done, found = trial.unpack(path, state)
    assert done == 3
    equal(found, state)
    for what, content in damaged(path.read_bytes(), 10):
        path.write_bytes(content)
        _, message = attempt(trial.unpack, path, state)
        assert f"{path} is damaged" in message, what


def test_checkpoints_of_searches(tmp_path):
    path = tmp_path / files.CHECKPOINT
    architectures = tuple(eq.Architecture.parse(D4, n) for n in ("D4 D4", "D4 C4"))
    scores = (Score(0.25, 10), Score(0.125, 20, 1))
    state = SearchState(2, architectures, scores, 1)
    saved = Checkpoint(state, (small_state(0), small_state(1)))
    search_checkpoints.save_checkpoint(path, saved)
    read = search_checkpoints.load_checkpoint, path, D4, lambda _: small_state()
    found, _ = attempt(*read)
    assert found.state == state
    equal(found.members, saved.members)
    for what, content in damaged(path.read_bytes(), 50):
        path.write_bytes(content)
        _, message = attempt(*read)
        assert f"{path} is damaged" in message, what
        assert "without it, --resume begins this training from its start" in message


@pytest.fixture(scope="module")
def saved_network(tmp_path_factory):
    """A network in a folder, with all that a folder can hold."""
    folder = tmp_path_factory.mktemp("saved") / "net"
    layer = eq.LiftingConv(8, 5, group=D4.subgroup("C4"), dtype=jnp.bfloat16)
    x = jnp.ones((1, 8, 8, 3))
    variables = jax.jit(layer.init)(jax.random.key(0), x)
    kept = {"mean": [0.5], "deviation": [0.25], "shape": (8, 8, 3)}
    extra = {"class_names": ("cat", "dog"), "test_error": 0.25}
    eq.save(folder, layer, variables, inputs=x, preprocessing=kept, **extra)
    return folder


@pytest.mark.parametrize("name", ["network.json", "weights.safetensors"])
def test_saved_networks(saved_network, name):
    path = saved_network / name
    whole, expected = path.read_bytes(), eq.load(saved_network)
    stride = 3 if name == "network.json" else 100
    for what, content in damaged(whole, stride):
        path.write_bytes(content)
        found, message = attempt(eq.load, saved_network)
        if message is not None:
            assert names(message, path), (what, message)
        else:
            assert "cut" not in what or content == whole[:-1], what  # the last newline
            same = dataclasses.replace(found, variables={}, optimizer_leaves={})
            wanted = dataclasses.replace(expected, variables={}, optimizer_leaves={})
            assert same == wanted, what
            equal(found.variables, expected.variables)
    path.write_bytes(whole)


@pytest.fixture
def archive(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(40, 9, 9)).astype(np.uint8)
    path = tmp_path / "mine.npz"
    np.savez(path, images=images, labels=np.arange(40) % 2)
    return path


def test_caches_are_built_again(archive, tmp_path):
    source, root = Archive(archive), tmp_path / "caches"
    expected = cache.load(source, root)
    (folder,) = (path for path in root.iterdir() if path.is_dir())
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for what, content in damaged(whole, 100 if path.suffix == ".json" else 1000):
            path.write_bytes(content)
            found = cache.load(source, root)
            for own, other in zip(found.splits, expected.splits, strict=True):
                equal(tuple(own), tuple(other))
            assert found.source == expected.source, what
            assert found.preprocessing == expected.preprocessing, what
            assert path.read_bytes() == whole or cache._is_whole(folder), what
        path.unlink()
        cache.load(source, root)
        assert path.read_bytes() == whole


def read_archive(path):
    contents = Archive(path).read()
    return np.stack(list(contents.images)), contents.labels


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_archives_of_somebody(archive, save):
    with np.load(archive, allow_pickle=False) as arrays:
        kept = {name: arrays[name] for name in arrays.files}
    save(archive, **kept)
    expected = read_archive(archive)
    for what, content in damaged(archive.read_bytes(), 13):
        archive.write_bytes(content)
        found, message = attempt(read_archive, archive)
        if message is not None:
            assert str(archive) in message, what
        else:  # a date, or the like
            equal(found, expected)


def test_tables_of_schedules(tmp_path):
    path = tmp_path / "schedules.npz"
    arrays = {name: np.full((1, 1, 2, 1), 0.5) for name in METRICS}
    arrays |= {"tasks": np.array(["quarter"]), "seeds": np.array([0])}
    arrays |= {"schedules": np.array([["D4", "D4"], ["D4", "C4"]])}
    arrays |= {"steps": np.array([250]), "parameters": np.array([10, 20])}
    assert set(arrays) == {*METRICS, *DESCRIBED}
    np.savez(path, **arrays)
    for what, content in damaged(path.read_bytes(), 23):
        path.write_bytes(content)
        found, message = attempt(Schedules.load, path)
        if message is not None:
            assert str(path) in message, what
        else:
            equal(dict(found.arrays), arrays)


def test_commands_say_what_is_damaged_and_begin_again_without_it(folder, capsys):
    baseline.main([*TINY, "--name", "run"])
    run = folder / "runs/run"
    expected = {
        name: (run / name).read_bytes()
        for name in (files.RESULT, files.CHECKPOINT, files.METRICS, files.CONFIG)
    }
    for name, whole in expected.items():
        for content in (whole[: len(whole) // 2], whole.replace(b"1", b"2", 1)):
            (run / name).write_bytes(content)
            if name == files.METRICS:
                (run / files.RESULT).unlink(missing_ok=True)
            capsys.readouterr()
            with pytest.raises(SystemExit) as stopped:
                baseline.main(["--name", "run", "--resume"])
            assert stopped.value.code == 2
            printed = " ".join(capsys.readouterr().out.split())
            assert f"{run.relative_to(folder) / name} is damaged" in printed
        (run / name).write_bytes(whole)
    (run / files.RESULT).unlink(missing_ok=True)
    (run / files.CHECKPOINT).unlink()
    baseline.main(["--name", "run", "--resume"])
    for name, whole in expected.items():
        assert (run / name).read_bytes() == whole


def test_lines_that_the_report_is_made_of_are_missed(folder, capsys):
    baseline.main([*TINY, "--name", "run"])
    run = folder / "runs/run"
    (run / files.RESULT).unlink()
    files.keep_lines(run / files.METRICS, 1)
    with pytest.raises(SystemExit):
        baseline.main(["--name", "run", "--resume"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "metrics.jsonl is damaged: it lacks 1 of 2 lines" in printed
