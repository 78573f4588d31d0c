"""The files of a run: their names, how they are written, and what made them.

What a run reads again holds a checksum of what was written: every record of JSON, which
is a file or one of its lines, in its last entry, and a checkpoint in its last bytes. So
a file that was cut or changed is an error that names it, and never another result.
Records without a checksum, as other programs write them, are taken as they are.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import jax
from flax import serialization

CONFIG = "config.json"  # the first file of a run: a folder without it holds none
METRICS, TIMING = "metrics.jsonl", "timing.jsonl"
CHECKPOINT = "checkpoint.msgpack"
RESULT = "result.json"
ROWS = "results.jsonl"
PARTIAL = ".partial"  # behind the name of a file that is being written
CHECKSUM = "checksum"  # the last entry of a record, over all others
DIGITS = 64  # of the checksum of a checkpoint, its last bytes
Kind = TypeVar("Kind", list, dict)


def environment() -> dict[str, str]:
    """Return versions and device."""
    packages = {name: version(name) for name in ("eqjax", "jax", "flax", "optax")}
    device = jax.devices()[0]
    return {"python": platform.python_version(), **packages, "device": str(device)}


class DamagedFileError(ValueError):
    """A file of a run is not what was written."""

    def __init__(self, place: Path | str, why: str = "it is not what was written"):
        super().__init__(
            f"{place} is damaged: {why}; put a copy of it back, or begin again under "
            "another --name"
        )


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all.

    Raises:
      OSError: it cannot be written, as on a full disk; what was there before stays.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(path.name + PARTIAL)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all."""
    write_atomically(path, json.dumps(value, indent=2) + "\n")


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with its checksum.

    >>> unsealed(sealed({"step": 1}), "a file")
    {'step': 1}
    """
    return {**record, CHECKSUM: _checksum(record)}


def unsealed(record: dict[str, Any], place: Path | str) -> dict[str, Any]:
    """Return a record without its checksum, if it has one.

    Raises:
      DamagedFileError: it is not what was written.
    """
    own = {key: value for key, value in record.items() if key != CHECKSUM}
    if record.get(CHECKSUM, _checksum(own)) != _checksum(own):
        raise DamagedFileError(place)
    return own


def _checksum(record: Mapping[str, Any]) -> str:
    plain = json.loads(json.dumps(record))  # as it is read: keys are strings, ...
    text = json.dumps(plain, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record whole or not at all."""
    write_json(path, sealed(record))


def read_record(path: Path) -> dict[str, Any]:
    """Return the record of a file.

    Raises:
      DamagedFileError: it is not what was written.
    """
    return unsealed(parsed_record(path.read_bytes(), path), path)


def write_records(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write a list of records whole or not at all."""
    write_json(path, list(map(sealed, records)))


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file that holds a list of them.

    Raises:
      DamagedFileError: it is not what was written.
    """
    return [unsealed(each, path) for each in parsed(path.read_bytes(), path, list)]


def parsed_record(text: bytes, place: Path | str) -> dict[str, Any]:
    """Return a record with its checksum, which is not looked at.

    Raises:
      DamagedFileError: the text is no JSON object.
    """
    return parsed(text, place, dict)


def parsed(text: bytes, place: Path | str, kind: type[Kind]) -> Kind:
    """Return the JSON value that a text holds, if it is one of this kind.

    Raises:
      DamagedFileError: it is not.
    """
    try:
        found = json.loads(text)
    except ValueError as error:
        raise DamagedFileError(place, str(error)) from None
    if not isinstance(found, kind):
        raise DamagedFileError(place, f"it holds no {kind.__name__}")
    return found


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write records as JSON lines, whole or not at all."""
    lines = (json.dumps(sealed(record)) + "\n" for record in records)
    write_atomically(path, "".join(lines))


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append a record as a JSON line; it is on the disk when this returns."""
    with path.open("a") as file:
        file.write(json.dumps(sealed(record)) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path, *, running: bool = False) -> list[dict[str, Any]]:
    """Return the records of a file of JSON lines, none if there is no such file.

    Args:
      path: of the file.
      running: a process may be writing the last line, or was killed at it; it is left
        out unless it is whole.

    Raises:
      DamagedFileError: a line is not what was written.
    """
    lines = _lines(path)
    if running and lines and not path.read_bytes().endswith(b"\n"):
        lines = lines[:-1]
    return _records(path, lines)


def keep_lines(path: Path, count: int) -> list[dict[str, Any]]:
    """Return the first records of a file of JSON lines, and cut it behind them.

    A run that was killed may have written a line, or part of one, for work whose
    checkpoint it never reached.

    Raises:
      DamagedFileError: a line that is kept is not what was written.
    """
    lines = _lines(path)[:count]
    records = _records(path, lines)
    write_atomically(path, b"".join(line + b"\n" for line in lines))
    return records


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines() if path.exists() else []


def _records(path: Path, lines: Sequence[bytes]) -> list[dict[str, Any]]:
    places = [f"line {number} of {path}" for number in range(1, len(lines) + 1)]
    parsed = map(parsed_record, lines, places)
    return [unsealed(*each) for each in zip(parsed, places, strict=True)]


def pack_checkpoint(tree: Mapping[str, Any]) -> bytes:
    """Return a tree of arrays and plain data as msgpack, with a checksum at its end."""
    copy = jax.tree.map(lambda leaf: leaf, dict(tree))  # with its keys sorted
    whole = serialization.msgpack_serialize(
        {**copy, CHECKSUM: DIGITS * "0"}, in_place=True
    )
    content = whole[:-DIGITS]
    return content + hashlib.sha256(content).hexdigest().encode()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the tree of a checkpoint.

    Raises:
      DamagedFileError: it is not what was written.
    """
    whole = path.read_bytes()
    content, checksum = whole[:-DIGITS], whole[-DIGITS:]
    if hashlib.sha256(content).hexdigest().encode() != checksum:
        raise DamagedFileError(
            path,
            "it is not what was written, or an older eqjax wrote it, without a "
            "checksum; without it, --resume begins this training from its start",
        )
    tree = serialization.msgpack_restore(whole)
    del tree[CHECKSUM]
    return tree
