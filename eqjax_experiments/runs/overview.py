"""What the folder of a run tells of it, without its data and without training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eqjax.constraints.collections import PARAMS
from eqjax.training import count_parameters
from eqjax_experiments.runs import files, networks
from eqjax_experiments.runs.files import read_lines

OWN = ("name", "resume", "data")  # settings that an overview shows elsewhere or not


def overview(folder: Path) -> dict[str, Any]:
    """Return what a run is, how far it is, and what it found.

    Raises:
      FileNotFoundError: the folder holds no run.
      ValueError: a file of it is damaged.
    """
    config = _read(folder / files.CONFIG)
    if config is None:
        raise FileNotFoundError(
            f"{folder} holds no run: there is no {files.CONFIG} in it"
        )
    result = _read(folder / files.RESULT)
    records = read_lines(folder / files.METRICS)
    evidence = _read(folder / "evidence.json") or []
    settings = config["config"]
    return {
        "folder": str(folder),
        "command": config.get("command", ""),
        "data": config["data"],
        "state": _state(folder, result, records),
        "settings": {
            k: v for k, v in settings.items() if k not in OWN and v is not None
        },
        "environment": config["environment"],
        "seconds": sum(
            line["seconds"]
            for file in folder.rglob(files.TIMING)
            for line in read_lines(file)
        ),
        "answer": _answer(result, evidence),
        "networks": _networks(folder),
    }


def _read(file: Path) -> Any:
    """Return what a JSON file holds, None if there is none."""
    if not file.exists():
        return None
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}") from None


def _state(folder: Path, result: Any, records: list[dict[str, Any]]) -> str:
    rows = folder / files.ROWS
    if rows.exists() and result is None:
        return f"{len(read_lines(rows))} rows so far"
    if result is not None:
        return "finished"
    if not records:
        return "begun; nothing is saved yet"
    unit = "generation" if "generation" in records[-1] else "step"
    return f"stopped or running after {unit} {records[-1].get(unit, len(records))}"


def _answer(result: Any, evidence: list[dict[str, Any]]) -> str:
    if evidence:
        last = evidence[-1]
        doubt = "" if last["decided"] else ", the likeliest of several: undecided"
        return last.get("answer") or f"named: {last['named']}{doubt}"
    if result is not None and "verdict" in result:
        verdict = result["verdict"]
        named = verdict["group"] or "undecided"
        return f"{named}; {verdict['reason']}"
    return ""


def _networks(folder: Path) -> list[dict[str, Any]]:
    """Return the saved networks, from the least validation error to the largest."""
    found = []
    for name, net in networks.every(folder).items():
        architecture = getattr(net.model, "architecture", None)
        found.append(
            {
                "name": name,
                "groups": list(architecture.names) if architecture else [],
                "parameters": count_parameters(net.variables.get(PARAMS, {})),
                "validation_error": net.extra.get("validation_error"),
                "test_error": net.extra.get("test_error"),
            }
        )
    return sorted(found, key=lambda row: _or_last(row["validation_error"]))


def _or_last(error: float | None) -> float:
    return float("inf") if error is None else error
