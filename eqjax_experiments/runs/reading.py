"""Read the folder of a run, by whatever command, at its end or before."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from eqjax_experiments.reports.record import Record, Training
from eqjax_experiments.runs import files, run_folder

# Settings that tell the command of a run which does not name it.
TELLING = {
    "evolve": "generations",
    "differentiate": "mixture",
    "guide": "tested_images",
    "climb": "climbs",
    "generate": "trainings",
    "compare": "seeds",
    "baseline": "relaxed_from",
}
EVIDENCE = "evidence.json"
TRIED = "children.jsonl"


def missing(run: str | Path) -> str:
    """Return that there is no such run, and which name is the nearest."""
    root = run_folder.ROOT
    known = [each.name for each in root.iterdir()] if root.is_dir() else []
    near = difflib.get_close_matches(Path(run).name, known, 1, 0)
    return f"there is no run {run}; nearest in {root}/: {', '.join(near) or 'none'}"


def find(run: str | Path) -> Path:
    """Return the folder of a run, given by its folder or by its name.

    Raises:
      FileNotFoundError: there is none; the message names the nearest.
      ValueError: it holds no run.
    """
    folder = run_folder.by_path_or_name(run)
    if not folder.is_dir():
        raise FileNotFoundError(missing(run))
    if not any((folder / name).exists() for name in (files.CONFIG, files.ROWS)):
        raise ValueError(
            f"{folder} holds no run; expected {files.CONFIG} or {files.ROWS} in it"
        )
    return folder


def read(folder: Path) -> Record:
    """Return what the files of a run hold.

    Raises:
      DamagedFileError: one is not what was written.
    """
    saved = _record(folder / files.CONFIG) or {}
    settings = saved.get("config", {})
    telling = [name for name, setting in TELLING.items() if setting in settings]
    rows = files.read_lines(folder / files.ROWS, running=True)
    command = saved.get("command", telling[0] if telling else None)
    if not saved:
        command = "reproduce"
    many = command in ("compare", "reproduce")
    inside = [] if many else sorted(p.parent for p in folder.rglob(files.METRICS))
    below = [each for each in inside if each != folder]
    environment: dict[str, str] = saved.get("environment") or next(
        (row["environment"] for row in rows if "environment" in row), {}
    )
    tests = folder / EVIDENCE
    sources = dict.fromkeys(row["data"] for row in rows if "data" in row)
    return Record(
        folder,
        command,
        settings,
        data=saved.get("data") or "; ".join(sources),
        images=saved.get("images", {}),
        environment=environment,
        trainings=[_training(each, folder) for each in (folder, *below)],
        evidence=files.read_records(tests) if tests.exists() else [],
        rows=rows,
        tried=files.read_lines(folder / TRIED, running=True),
        inner=sorted(p.parent.name for p in folder.glob(f"*/{files.CONFIG}")),
    )


def _training(folder: Path, run: Path) -> Training:
    return Training(
        "" if folder == run else str(folder.relative_to(run)),
        records=files.read_lines(folder / files.METRICS, running=True),
        timing=files.read_lines(folder / files.TIMING, running=True),
        result=_record(folder / files.RESULT),
    )


def _record(file: Path) -> dict[str, Any] | None:
    """Return what a file holds, None if there is no such file."""
    return files.read_record(file) if file.exists() else None
