"""The files of a run: their names, how they are written, and what made them."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

CONFIG = "config.json"  # the first file of a run: a folder without it holds none
METRICS, TIMING = "metrics.jsonl", "timing.jsonl"
CHECKPOINT = "checkpoint.msgpack"
RESULT = "result.json"
ROWS = "results.jsonl"
PARTIAL = ".partial"  # behind the name of a file that is being written


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


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file of JSON lines, none if there is no such file."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def keep_lines(path: Path, count: int) -> list[dict[str, Any]]:
    """Return the first records of a file of JSON lines, and cut it behind them.

    A run that was killed may have written a line, or part of one, for work whose
    checkpoint it never reached.
    """
    lines = path.read_text().splitlines()[:count] if path.exists() else []
    write_atomically(path, "".join(line + "\n" for line in lines))
    return [json.loads(line) for line in lines]
