"""The folder of a run: a new one, or one to continue; its settings; its lock."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from eqjax_experiments.data.cache import changes
from eqjax_experiments.data.splits import Dataset
from eqjax_experiments.runs.files import (
    CONFIG,
    PARTIAL,
    environment,
    parsed_record,
    read_record,
    unsealed,
    write_record,
)


class Settings(Protocol):
    """What a run folder asks of the settings of a run, a frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    COMMAND: ClassVar[str]

    @property
    def name(self) -> str | None:
        """Name of the run."""
        ...

    @property
    def resume(self) -> bool:
        """Whether to continue with a run that is there."""
        ...

    def load(self) -> Dataset:
        """Return the data, whose source is kept with the settings."""
        ...


Kind = TypeVar("Kind", bound=Any)
ROOT = Path("runs")
LOCK = "lock"
LISTING = "data.json"  # the checksum of every file of the data, where there are many


def new_folder(name: str | None, default: str) -> Path:
    """Create the folder of a new run.

    Args:
      name: as the user wants it; must not hold a run yet.
      default: used where no name is given, numbered if it exists.

    Raises:
      ValueError: the name is taken or not a plain name.
    """
    if name is None:
        names = [default, *(f"{default}-{i}" for i in range(2, 10_000))]
        folder = next(ROOT / n for n in names if not _is_taken(ROOT / n))
    else:
        folder = named_folder(name)
        if _is_taken(folder):
            raise ValueError(
                f"{folder} exists; continue it with --resume, or choose another --name"
            )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _is_taken(folder: Path) -> bool:
    """Return whether a folder holds more than what a killed run has half written."""
    return folder.is_dir() and any(
        p.suffix != PARTIAL and p.name != LOCK for p in folder.iterdir()
    )


def named_folder(name: str) -> Path:
    """Return the folder of a run by its name."""
    if Path(name).name != name or name in ("", ".", ".."):
        raise ValueError(f"a run's name is a plain folder name, got {name!r}")
    return ROOT / name


def every() -> list[Path]:
    """Return the folders of all runs, by name."""
    return sorted(path.parent for path in ROOT.glob(f"*/{CONFIG}"))


def by_path_or_name(run: str | Path) -> Path:
    """Return the folder of a run by itself, or by its name, whether it is there or not.

    >>> by_path_or_name("some/folder")
    PosixPath('some/folder')
    """
    inside = ROOT / run
    return inside if inside.exists() and not Path(run).exists() else Path(run)


def open_run(task: Settings, default: str) -> Path:
    """Return the folder of a run, a new one or the one to continue.

    Args:
      task: with the run's name, or none, and whether to continue it.
      default: name of a new run that was given none.

    Raises:
      ValueError: the name is taken, or the run to continue has other settings.
    """
    if not task.resume:
        folder = new_folder(task.name, default)
        own = dataclasses.replace(task, name=folder.name, resume=False)
        with alone(folder):
            if _is_taken(folder):
                raise ValueError(
                    f"another process has just begun {folder}; choose another --name"
                )
            _write_task(folder, own)
        return folder
    folder = named_folder(str(task.name))
    if not (folder / CONFIG).exists():
        known = ", ".join(each.name for each in every())
        raise ValueError(f"there is no run {task.name!r}; known: {known or 'none'}")
    before, unset = saved_task(folder, type(task)), type(task)()
    asked, saved, plain = map(options, (task, before, unset))
    moved = asked["data"] not in (plain["data"], saved["data"])
    if moved:  # the same data may lie elsewhere now
        before = dataclasses.replace(before, data=asked["data"])
    _check_data(folder, before)
    if moved:
        _write_task(folder, before)
    for name, value in asked.items():
        if name not in ("resume", "data") and value not in (plain[name], saved[name]):
            raise ValueError(
                f"run {task.name!r} has {name} {saved[name]}, and --resume cannot "
                f"change it to {value}"
            )
    return folder


def enter(folder: Path, task: Kind) -> Kind:
    """Begin, or continue, the run of a task in a folder.

    Raises:
      ValueError: the folder holds a run with other settings or other data.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / CONFIG).exists():
        _write_task(folder, task)
    saved = options(saved_task(folder, type(task)))
    for name, value in options(task).items():
        if value != saved[name]:
            raise ValueError(
                f"{folder} was begun with {name} {saved[name]}, not {value}; choose "
                "another --name, or remove it"
            )
    _check_data(folder, task)
    return task


def _check_data(folder: Path, task: Settings) -> None:
    """Raise ValueError unless the data are those that a run was begun with."""
    before = read_record(folder / CONFIG)["data"]
    now = task.load()
    if now.source == before:
        return
    listed = folder / LISTING
    files = read_record(listed) if listed.exists() else {}
    changed = changes(files, now.listing) if files and now.listing else ""
    raise ValueError(
        f"{folder} was begun with the data {before}; now they are {now.source}"
        + (f": {changed}" if changed else "")
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


def is_open(folder: Path) -> bool:
    """Return whether a process writes into the folder of a run."""
    if not (folder / LOCK).exists():
        return False
    with (folder / LOCK).open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _write_task(folder: Path, task: Settings) -> None:
    dataset = task.load()
    saved = {
        "command": task.COMMAND,
        "config": dataclasses.asdict(task),
        "data": dataset.source,
        "images": dataset.counts,
        "environment": environment(),
    }
    if dataset.listing:
        write_record(folder / LISTING, dataset.listing)
    write_record(folder / CONFIG, saved)


def options(task: Any) -> dict[str, Any]:
    """Return the settings of a task, nested ones too, by their names as options."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(task):
        value = getattr(task, field.name)
        if dataclasses.is_dataclass(value):
            inner = options(value)
            found |= {f"{field.name}.{name}": own for name, own in inner.items()}
        else:
            found[field.name] = value
    return {name.removeprefix("constraints."): own for name, own in found.items()}


def saved_task(folder: Path, kind: type[Kind]) -> Kind:
    """Return the settings that a run was started with.

    Raises:
      ValueError: it is the run of another command, or its file is damaged.
    """
    file = folder / CONFIG
    record = parsed_record(file.read_bytes(), file)
    saved, default = record.get("config", {}), kind()
    if others := ", ".join(_other_names(default, saved)):
        raise ValueError(
            f"{folder} holds no run of this command: its settings differ in {others}"
        )
    unsealed(record, file)
    return _restored(default, saved)


def _other_names(default: Any, saved: Any) -> list[str]:
    """Return the names that settings and what JSON made of them do not share."""
    names = [field.name for field in dataclasses.fields(default)]
    own = {name: getattr(default, name) for name in names}
    if not isinstance(saved, dict):
        return list(own)
    return sorted(own.keys() ^ saved.keys()) or [
        other
        for name, value in own.items()
        if dataclasses.is_dataclass(value)
        for other in _other_names(value, saved[name])
    ]


def _restored(default: Kind, saved: dict[str, Any]) -> Kind:
    """Return settings from what JSON made of them, those inside them included."""
    values: dict[str, Any] = {}
    for name, value in saved.items():
        own = getattr(default, name)
        if dataclasses.is_dataclass(own):
            values[name] = _restored(own, value)
        else:
            values[name] = tuple(value) if isinstance(value, list) else value
    return type(default)(**values)
