"""The folder of a run: configuration, metrics as JSON lines, checkpoint, result.

A checkpoint holds a whole generation and replaces the one before in a single step, so
that a run which is killed at any moment goes on from the last complete generation.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import platform
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import jax
from flax import serialization

import eqjax as eq
from eqjax.evolution import Score, State
from eqjax.training import TrainState
from experiments.task import Task

Config = TypeVar("Config", bound=Task)
ROOT = Path("runs")
CONFIG = "config.json"  # the first file of a run: a folder without it holds none
LOCK = "lock"
PARTIAL = ".partial"  # behind the name of a file that is being written


def new_folder(name: str | None, default: str) -> Path:
    """Create the folder of a new run.

    Args:
      name: as the user wants it; must not hold a run yet.
      default: used where no name is given, numbered if it exists.

    Raises:
      ValueError: the name is taken or no plain name.
    """
    if name is None:
        names = [default, *(f"{default}-{i}" for i in range(2, 10_000))]
        folder = next(ROOT / n for n in names if not _is_taken(ROOT / n))
    else:
        folder = named_folder(name)
        if _is_taken(folder):
            raise ValueError(
                f"{folder} exists; go on with it by --resume, or choose another --name"
            )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _is_taken(folder: Path) -> bool:
    """Return whether a folder holds more than what a killed run has half written."""
    return folder.is_dir() and any(p.suffix != PARTIAL for p in folder.iterdir())


def named_folder(name: str) -> Path:
    """Return the folder of a run by its name."""
    if Path(name).name != name or name in ("", ".", ".."):
        raise ValueError(f"a run's name is a plain folder name, got {name!r}")
    return ROOT / name


def open_run(config: Task, default: str) -> Path:
    """Return the folder of a run, a new one or the one to go on with.

    Args:
      config: with the run's name, or none, and whether to go on with it.
      default: name of a new run that was given none.

    Raises:
      ValueError: the name is taken, or the run to go on with has other settings.
    """
    if not config.resume:
        folder = new_folder(config.name, default)
        _write_config(
            folder, dataclasses.replace(config, name=folder.name, resume=False)
        )
        return folder
    folder = named_folder(str(config.name))
    if not (folder / CONFIG).exists():
        known = sorted(p.parent.name for p in ROOT.glob(f"*/{CONFIG}"))
        raise ValueError(
            f"there is no run {config.name!r}; known: {', '.join(known) or 'none'}"
        )
    before = saved_config(folder, type(config))
    saved = dataclasses.asdict(before)
    _check_data(folder, before)
    for field in dataclasses.fields(config):
        asked = getattr(config, field.name)
        if field.name == "resume" or asked in (field.default, saved[field.name]):
            continue
        raise ValueError(
            f"run {config.name!r} has {field.name} {saved[field.name]}, and --resume "
            f"cannot change it to {asked}"
        )
    return folder


def enter(folder: Path, config: Config) -> Config:
    """Begin, or go on with, the run of a configuration in a folder.

    Raises:
      ValueError: the folder holds a run with other settings or other data.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / CONFIG).exists():
        _write_config(folder, config)
    saved = saved_config(folder, type(config))
    for field in dataclasses.fields(config):
        now, before = (getattr(c, field.name) for c in (config, saved))
        if now != before:
            raise ValueError(
                f"{folder} was begun with {field.name} {before}, not {now}; choose "
                "another --name, or remove it"
            )
    _check_data(folder, config)
    return config


def _check_data(folder: Path, config: Task) -> None:
    """Raise ValueError unless the data are those that a run was begun with."""
    before = json.loads((folder / CONFIG).read_text())["data"]
    now = config.load().source
    if now != before:
        raise ValueError(
            f"{folder} was begun with the data {before}; now they are {now}"
        )


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes from writing into a folder, until this one ends.

    Raises:
      ValueError: another process does.
    """
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another process writes into {folder}; wait, or choose another --name"
            ) from None
        yield


def _write_config(folder: Path, config: Task) -> None:
    saved = {
        "config": dataclasses.asdict(config),
        "data": config.load().source,
        "environment": environment(),
    }
    write_json(folder / CONFIG, saved)


def saved_config(folder: Path, kind: type[Config]) -> Config:
    """Return the configuration that a run was started with.

    Raises:
      ValueError: it is the run of another experiment.
    """
    saved = json.loads((folder / CONFIG).read_text())["config"]
    names = {field.name for field in dataclasses.fields(kind)}
    if names != saved.keys():
        odd = ", ".join(sorted(names ^ saved.keys()))
        raise ValueError(
            f"{folder} holds no run of this command: its settings differ in {odd}"
        )
    values: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()
    }
    return kind(**values)


def environment() -> dict[str, str]:
    """Return versions and device."""
    packages = {name: version(name) for name in ("eqjax", "jax", "flax", "optax")}
    device = jax.devices()[0]
    return {"python": platform.python_version(), **packages, "device": str(device)}


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(path.name + PARTIAL)
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all."""
    write_atomically(path, json.dumps(value, indent=2) + "\n")


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Append one JSON line."""
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def read_lines(path: Path, *, before: int) -> list[dict[str, Any]]:
    """Read the records of the first generations and cut the file behind them.

    A run that was killed may have written a line, or part of one, for a generation
    whose checkpoint it never reached.
    """
    lines = path.read_text().splitlines()[:before] if path.exists() else []
    write_atomically(path, "".join(line + "\n" for line in lines))
    return [json.loads(line) for line in lines]


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The search after a generation, and the trained state of every member."""

    state: State
    members: tuple[TrainState, ...]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint whole or not at all."""
    state = checkpoint.state
    tree = {
        "generation": state.generation,
        "diverged": state.diverged,
        "population": [list(a.names) for a in state.population],
        "scores": [[float(s.error), int(s.parameters)] for s in state.scores],
        "members": [
            serialization.to_state_dict(jax.device_get(m)) for m in checkpoint.members
        ],
    }
    write_atomically(path, serialization.msgpack_serialize(tree))


def load_checkpoint(path: Path, ambient: eq.Group, templates) -> Checkpoint:
    """Read a checkpoint.

    Args:
      path: of the file.
      ambient: group that the saved names are subgroups of.
      templates: architecture -> TrainState of the right structure (abstract will do).
    """
    tree = serialization.msgpack_restore(path.read_bytes())
    population = tuple(_architectures(ambient, tree["population"]))
    members = tuple(
        serialization.from_state_dict(templates(architecture), saved)
        for architecture, saved in zip(population, tree["members"], strict=True)
    )
    scores = tuple(Score(error, count) for error, count in tree["scores"])
    state = State(tree["generation"], population, scores, tree["diverged"])
    return Checkpoint(state, members)


def _architectures(ambient: eq.Group, saved: Sequence[Sequence[str]]):
    return (eq.Architecture.parse(ambient, names) for names in saved)
