"""The two files of a saved network: how they are laid out, read and checked."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as loads

FORMAT, VERSION = "a network of eqjax", 1
DESCRIPTION, WEIGHTS = "network.json", "weights.safetensors"
DIGEST = "digest"  # of the description, in it


def digest(text: Mapping[str, Any]) -> str:
    """Return a checksum of what a description says."""
    others = {key: value for key, value in text.items() if key != DIGEST}
    plain = json.loads(json.dumps(others))  # as it is read
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def read(path: Path) -> tuple[dict[str, Any], list[tuple[str, np.ndarray]]]:
    """Return description and arrays of a folder, both of one save.

    Nothing is moved: whoever reads must not be in the way of another process that
    saves. A save that was killed between two renames has left the network beside its
    place.

    Raises:
      FileNotFoundError: there is no such folder, or a file of it is missing.
      ValueError: the folder holds something else, is damaged, or is newer.
    """
    while True:
        before = _written(path)
        try:
            place = _place(path)
            text = _described(place)
            return text, _weights(place, text)
        except (ValueError, OSError):
            if _written(path) == before:  # else it was saved anew meanwhile
                raise


def _place(path: Path) -> Path:
    old = beside(path, "old")
    return old if old.exists() and not path.exists() else path


def _written(path: Path) -> tuple[int, int] | None:
    """Return what tells one save from another."""
    try:
        stat = (_place(path) / DESCRIPTION).stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns


def _described(path: Path) -> dict[str, Any]:
    """Return what the description of a folder says, checked for its format."""
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}")
    file = path / DESCRIPTION
    if not file.exists():
        raise FileNotFoundError(
            f"{path} holds no network of eqjax: there is no {DESCRIPTION} in it"
        )
    try:
        text = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    if not isinstance(text, dict) or text.get("format") != FORMAT:
        raise ValueError(f"{file} does not describe {FORMAT}")
    if text.get("version", 0) > VERSION:
        raise ValueError(
            f"{path} was written by eqjax {text.get('versions', {}).get('eqjax')}, in "
            f"version {text['version']} of the format; this eqjax reads up to {VERSION}"
        )
    return text


def _weights(path: Path, text: Mapping[str, Any]) -> list[tuple[str, np.ndarray]]:
    """Return the arrays of a folder, if they are those that were written."""
    file = path / WEIGHTS
    if not file.exists():
        raise FileNotFoundError(f"{path} lacks its {WEIGHTS}")
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != text.get("sha256"):
        raise ValueError(f"{file} is damaged: it is not what was written")
    try:
        return list(loads(content).items())
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged: {error}") from error


@functools.cache
def _native(name: str) -> bool:
    """Tell whether safetensors stores a dtype of numpy."""
    kinds = "bool float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32"
    return name in (*kinds.split(), "uint64")


def plain_array(array: np.ndarray) -> np.ndarray:
    """Return an array that safetensors can store: bytes, of dtypes that it lacks."""
    array = np.array(array, order="C")
    if _native(array.dtype.name):
        return array
    return array.reshape(*array.shape, 1).view(np.uint8)


def restored_array(array: np.ndarray, dtype: str) -> np.ndarray:
    """Return an array of a dtype from what `plain_array` has made of it."""
    if _native(dtype):
        return array
    return np.ascontiguousarray(array).view(jnp.dtype(dtype))[..., 0]


def beside(path: Path, word: str) -> Path:
    """Return the hidden folder beside a folder that a save goes through."""
    return path.with_name(f".{path.name}.{word}")
