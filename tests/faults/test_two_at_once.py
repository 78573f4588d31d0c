"""Two processes in one folder: one writes, others may read, and none spoils a run."""

import dataclasses
import json
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqjax as eq
from eqjax_experiments import (
    baseline,
    climb,
    compare,
    differentiate,
    evolve,
    generate,
    guide,
    reproduce,
    summarize,
)
from eqjax_experiments.runs import files, networks, run_folder
from eqjax_experiments.runs.files import ROWS
from eqjax_experiments.tasks.baseline import BaselineTask
from eqjax_experiments.tasks.climb import ClimbTask
from eqjax_experiments.tasks.comparison import ComparisonTask
from eqjax_experiments.tasks.differentiate import DifferentiationTask
from eqjax_experiments.tasks.evolve import EvolutionTask
from eqjax_experiments.tasks.generate import GeneratorTask
from eqjax_experiments.tasks.guide import GuidedTask
from tests.tiny import SMALL

WRITERS = {
    "baseline": (baseline, BaselineTask),
    "climb": (climb, ClimbTask),
    "compare": (compare, ComparisonTask),
    "differentiate": (differentiate, DifferentiationTask),
    "evolve": (evolve, EvolutionTask),
    "generate": (generate, GeneratorTask),
    "guide": (guide, GuidedTask),
}


@pytest.mark.parametrize("command", WRITERS)
def test_the_second_of_two_is_refused(folder, capsys, command):
    module, kind = WRITERS[command]
    task = kind(**SMALL, name="run")
    run = run_folder.open_run(task, command)
    before = sorted(path.name for path in run.iterdir())
    with run_folder.alone(run), pytest.raises(SystemExit) as stopped:
        module.main(["--name", "run", "--resume"])
    assert stopped.value.code == 2
    printed = " ".join(capsys.readouterr().out.split())
    assert "another process writes into runs/run; wait, or choose" in printed
    assert sorted(path.name for path in run.iterdir()) == before


def test_a_second_reproduction_is_refused(folder, capsys):
    run = folder / "runs/reproduce"
    run.mkdir(parents=True)
    with run_folder.alone(run), pytest.raises(SystemExit) as stopped:
        reproduce.main(["--only", "small/mnist/augmented-by-D4"])
    assert stopped.value.code == 2
    printed = " ".join(capsys.readouterr().out.split())
    assert "another process writes into runs/reproduce; wait, or choose" in printed


def test_one_of_two_begins_a_run_and_its_settings_are_kept(folder):
    """Whoever is refused has written nothing."""
    for attempt in range(20):
        tasks = [BaselineTask(**SMALL, seed=s, name=f"run-{attempt}") for s in (0, 1)]
        opened, refused = [], []
        barrier = threading.Barrier(len(tasks))

        def begin(task, opened=opened, refused=refused, barrier=barrier):
            barrier.wait()
            try:
                run = run_folder.open_run(task, "baseline")
            except ValueError as error:
                refused.append(str(error))
            else:
                opened.append((task, run))

        threads = [threading.Thread(target=begin, args=(task,)) for task in tasks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ((task, run),) = opened
        assert run_folder.saved_task(run, BaselineTask) == task
        (message,) = refused
        assert "choose another --name" in message


ENOUGH = 20  # times that something is written


class Writer:
    """Something that is written again and again by another thread."""

    def __init__(self, write):
        self.write, self.stopped, self.failures, self.written = write, False, [], 0

    def __enter__(self):
        def work():
            while not self.stopped:
                try:
                    self.write(self.written)
                except (ValueError, OSError) as error:
                    self.failures.append(error)
                self.written += 1

        self.thread = threading.Thread(target=work)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped = True
        self.thread.join()
        assert self.failures == []


def test_rows_are_read_while_they_are_written(tmp_path):
    row = {"experiment": "a", "method": "b", "reading": "c", "padding": "x" * 5000}
    file = tmp_path / ROWS
    files.write_lines(file, [row])

    def write(number):
        files.write_lines(file, [row] * (1 + number % 7))

    lengths = set()
    with Writer(write) as writer:
        while writer.written < ENOUGH:
            found = summarize.read_rows(file)
            assert all(each == row for each in found)
            lengths.add(len(found))
    assert len(lengths) > 1


LAYER = eq.LiftingConv(2, 3, group=eq.flip())


def save(folder, number):
    """Save a network all of whose weights are a number, and which says so."""
    shapes = jax.eval_shape(LAYER.init, jax.random.key(0), jnp.ones((1, 8, 3)))
    own = jax.tree.map(lambda leaf: np.full(leaf.shape, number), shapes)
    eq.save(folder, LAYER, own, number=number)


def test_a_network_is_read_while_it_is_saved_anew(tmp_path):
    net, seen = tmp_path / "net", set()
    save(net, 0)
    with Writer(lambda number: save(net, number)) as writer:
        while writer.written < ENOUGH:
            found = eq.load(net)
            for leaf in jax.tree.leaves(found.variables):
                np.testing.assert_array_equal(leaf, found.extra["number"])
            seen.add(found.extra["number"])
    assert len(seen) > 1
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


def test_the_best_network_is_found_while_others_are_saved(tmp_path):
    inside = tmp_path / "networks"
    save(inside / "member-0", 0)
    with Writer(lambda number: save(inside / f"member-{number + 1}", number)) as writer:
        while writer.written < ENOUGH:
            found = networks.find(tmp_path)
            assert found.folder.name.startswith("member-")


def test_what_is_being_saved_is_no_network_yet(tmp_path):
    save(tmp_path / "networks/member-1", 1)
    save(tmp_path / "networks/.member-2.part", 2)
    assert networks.find(tmp_path).folder.name == "member-1"
    with pytest.raises(FileNotFoundError, match=r"there are networks/member-1$"):
        networks.find(tmp_path, "member-2")


def test_a_killed_beginning_takes_no_name(folder):
    """Neither a lock nor half a file is a run."""
    run = folder / "runs/run"
    run.mkdir(parents=True)
    (run / run_folder.LOCK).touch()
    (run / f"{files.CONFIG}{files.PARTIAL}").write_text('{"half')
    task = BaselineTask(**SMALL, name="run")
    assert run_folder.open_run(task, "baseline") == run.relative_to(folder)
    saved = json.loads((run / files.CONFIG).read_text())["config"]
    assert saved == json.loads(json.dumps(dataclasses.asdict(task)))
