"""Read the folder of a run, by whatever command, at its end or before."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

from eqjax_experiments.reports.record import Record, Training
from eqjax_experiments.runs import files, run_folder

# A setting that no other command has, and older versions of the command had, too.
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


def find(run: str | Path) -> Path:
    """Return the folder of a run, given by its folder or by its name.

    Raises:
      FileNotFoundError: there is none; the message names the nearest.
      ValueError: it holds no run.
    """
    folder = Path(run)
    if not folder.exists() and (run_folder.ROOT / folder).exists():
        folder = run_folder.ROOT / folder
    if not folder.is_dir():
        root = run_folder.ROOT
        known = [p.name for p in root.iterdir()] if root.is_dir() else []
        near = difflib.get_close_matches(folder.name, known, 1, 0)
        raise FileNotFoundError(
            f"there is no run {run}; nearest in {root}/: {', '.join(near) or 'none'}"
        )
    if not any((folder / name).exists() for name in (files.CONFIG, files.ROWS)):
        raise ValueError(
            f"{folder} holds no run; expected {files.CONFIG} or {files.ROWS} in it"
        )
    return folder


def read(folder: Path) -> Record:
    """Return what the files of a run hold.

    Raises:
      ValueError: one is damaged.
    """
    saved = _json(folder / files.CONFIG) or {}
    settings = saved.get("config", {})
    telling = [name for name, setting in TELLING.items() if setting in settings]
    rows = whole_lines(folder / files.ROWS)
    command = telling[0] if telling else None if saved else "reproduce"
    many = command in ("compare", "reproduce")
    inside = [] if many else sorted(p.parent for p in folder.rglob(files.METRICS))
    below = [each for each in inside if each != folder]
    environment: dict[str, str] = saved.get("environment") or next(
        (row["environment"] for row in rows if "environment" in row), {}
    )
    sources = dict.fromkeys(row["data"] for row in rows if "data" in row)
    return Record(
        folder,
        command,
        settings,
        data=saved.get("data") or "; ".join(sources),
        images=saved.get("images", {}),
        environment=environment,
        trainings=[_training(each, folder) for each in (folder, *below)],
        evidence=_json(folder / EVIDENCE, list) or [],
        rows=rows,
        tried=whole_lines(folder / TRIED),
        inner=sorted(p.parent.name for p in folder.glob(f"*/{files.CONFIG}")),
    )


def _training(folder: Path, run: Path) -> Training:
    return Training(
        "" if folder == run else str(folder.relative_to(run)),
        records=whole_lines(folder / files.METRICS),
        timing=whole_lines(folder / files.TIMING),
        result=_json(folder / files.RESULT),
    )


def whole_lines(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file of JSON lines, none if there is no such file.

    The last line may be half written, as a run that was killed leaves it.

    Raises:
      ValueError: another line is damaged.
    """
    lines = path.read_text().splitlines() if path.exists() else []
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise ValueError(
                    f"{path}, line {number}, is damaged: {error}"
                ) from None
    return records


def _json(path: Path, kind: type = dict) -> Any:
    """Return what a file holds, None if there is no such file."""
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(found, kind):
        raise ValueError(f"{path} is damaged: expected a {kind.__name__} in it")
    return found
