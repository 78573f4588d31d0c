"""Preprocess a data set once, and find it again.

A cache is a folder named by a checksum over the settings and the source's files. It is
written beside its place and moved there when it is whole; a lock that dies with its
process keeps others from writing the same one. Every file's checksum is compared when
it is opened; a damaged cache is built again.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from eqjax_experiments.data.progress import tracked
from eqjax_experiments.data.splits import Dataset, Split, StoredImages, unit

SPLITS = ("train", "validation", "test")
VERSION = 3  # of preprocessing: raise it where sources come out different
META = "meta.json"  # the last file to be written
SMALLEST_VARIANCE = 1e-8  # taken for a channel that is the same everywhere
IN_MEMORY = 2**29  # bytes; data sets that are larger as float32 are read as needed


@dataclasses.dataclass(frozen=True)
class Contents:
    """All that a source holds, its images one after another.

    Attributes:
      images: (*space, channels) each, of one shape, uint8 or float32 in [0, 1].
      labels: (n,), class numbers from 0.
      parts: numbers of the training, validation and test images.
      shape: of an image.
      dtype: of the images.
      classes: how many there are.
      normalization: mean and deviation per channel; of the training images if None.
      names: of the classes, where they are known.
      remark: what was made of the images, for people.
    """

    images: Iterator[np.ndarray]
    labels: np.ndarray
    parts: tuple[np.ndarray, np.ndarray, np.ndarray]
    shape: tuple[int, ...]
    dtype: type[np.generic]
    classes: int
    normalization: tuple[Sequence[float], Sequence[float]] | None = None
    names: tuple[str, ...] = ()
    remark: str = ""


class Source(Protocol):
    """A data set on disk and how it is preprocessed; a frozen dataclass."""

    def checksum(self) -> str:
        """Return what changes with the files; raise where they are missing."""
        ...

    def read(self) -> Contents:
        """Return what the files hold; raise ValueError where they are damaged."""
        ...


def fixed_size(name: str, size: int | None) -> None:
    """Raise ValueError where somebody asks to scale images that have one size."""
    if size is not None:
        raise ValueError(f"--image-size does nothing with --data {name}")


def load(source: Source, root: Path) -> Dataset:
    """Return a data set, preprocessed now or before.

    Args:
      source: what to read, and how.
      root: folder of all caches.

    Raises:
      FileNotFoundError: a file of the source is missing.
      ValueError: a file of the source is not what it should be.
    """
    described = {
        "source": describe(source),
        "checksum": source.checksum(),
        "version": VERSION,
    }
    key = hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]
    folder = root / f"{type(source).__name__.lower()}-{key}"
    with _locked(folder.with_suffix(".lock")):
        if not _is_whole(folder):
            shutil.rmtree(folder, ignore_errors=True)
            try:
                _build(source.read(), described, folder)
            finally:
                shutil.rmtree(folder.with_suffix(".partial"), ignore_errors=True)
    listing: dict[str, str] = getattr(source, "listing", dict)()
    return dataclasses.replace(_open(folder), listing=listing)


def describe(source: Any) -> str:
    """Return a source and its settings in words, without the folders it lies in."""
    settings = [
        describe(value) if dataclasses.is_dataclass(value) else f"{name}={value}"
        for name, value in vars(source).items()
        if not isinstance(value, Path)
    ]
    return f"{type(source).__name__}({', '.join(settings)})"


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def file_checksum(file: Path, kind: str = "sha256") -> str:
    """Return the checksum of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, kind).hexdigest()


def list_contents(files: Sequence[Path], folder: Path) -> dict[str, str]:
    """Return a checksum of what every file holds, by its path in a folder.

    A file whose size and time are those of the last call is not read again.
    """
    listing = {}
    for file in tracked(files, "reading files"):
        stat = file.stat()
        key = (file.resolve(), stat.st_size, stat.st_mtime_ns)
        if key not in _known:
            _known[key] = file_checksum(file)[:32]
        listing[str(file.relative_to(folder))] = _known[key]
    return listing


_known: dict[tuple[Path, int, int], str] = {}  # of files that this process has read


def contents_checksum(listing: Mapping[str, str]) -> str:
    """Return a checksum of the names and contents of many files."""
    return hashlib.sha256(json.dumps(sorted(listing.items())).encode()).hexdigest()


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return in words which files were added, removed and changed."""
    found = {
        "added": sorted(now.keys() - before.keys()),
        "removed": sorted(before.keys() - now.keys()),
        "changed": sorted(f for f in before.keys() & now if before[f] != now[f]),
    }
    return "; ".join(
        f"{len(files):,} {what}, such as {files[0]}"
        for what, files in found.items()
        if files
    )


def _is_whole(folder: Path) -> bool:
    if not (folder / META).exists():
        return False
    try:
        meta = json.loads((folder / META).read_text())
        intact = meta.pop("digest") == _digest(meta)
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    return intact and all(
        (folder / name).exists() and file_checksum(folder / name) == checksum
        for name, checksum in meta["files"].items()
    )


def _digest(meta: dict[str, Any]) -> str:
    """Return a checksum of what META says, which is kept there beside it."""
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _build(contents: Contents, described: dict[str, Any], folder: Path) -> None:
    if not all(map(len, contents.parts)):
        counts = ", ".join(str(len(part)) for part in contents.parts)
        raise ValueError(f"too few images to split: parts of {counts}")
    if len(np.unique(contents.labels)) < 2:
        raise ValueError("expected images of at least two classes, found one")
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for name, part in zip(SPLITS, contents.parts, strict=True):
        np.save(partial / f"{name}-labels.npy", contents.labels[part].astype(np.int32))
    label = f"preparing {folder.name.rpartition('-')[0]}"
    measured = _write_images(contents, partial, label)
    mean, deviation = contents.normalization or measured
    meta = {
        **described,
        "mean": list(mean),
        "deviation": list(deviation),
        "classes": contents.classes,
        "names": contents.names,
        "remark": contents.remark,
        "files": {file.name: file_checksum(file) for file in partial.iterdir()},
    }
    meta["digest"] = _digest(meta)
    (partial / META).write_text(json.dumps(meta, indent=2) + "\n")
    partial.rename(folder)


def _write_images(
    contents: Contents, folder: Path, label: str
) -> tuple[np.ndarray, np.ndarray]:
    """Write the images of all splits, one pass over the source.

    Returns:
      Mean and deviation of the training images, per channel.
    """
    place: dict[int, tuple[str, int]] = {}  # of every image: split, number there
    sums = np.zeros((2, contents.shape[-1]))
    total = len(contents.labels)
    with ExitStack() as opened:
        stores = {}
        for name, part in zip(SPLITS, contents.parts, strict=True):
            place |= {int(image): (name, i) for i, image in enumerate(part)}
            store = opened.enter_context((folder / f"{name}-images.npy").open("wb"))
            header = {
                "descr": np.dtype(contents.dtype).str,
                "fortran_order": False,
                "shape": (len(part), *contents.shape),
            }
            np.lib.format.write_array_header_1_0(store, header)
            stores[name] = store, store.tell()
        images = tracked(contents.images, label, total)
        for number, image in zip(range(total), images, strict=True):
            name, i = place[number]
            store, begin = stores[name]
            pixels = np.ascontiguousarray(image, contents.dtype)
            store.seek(begin + i * pixels.nbytes)
            store.write(pixels.reshape(contents.shape).data)
            if name == "train":
                values = unit(pixels).astype(np.float64)
                space = tuple(range(values.ndim - 1))
                sums += values.mean(space), (values**2).mean(space)
    mean, square = sums / len(contents.parts[0])
    return mean, np.sqrt(np.maximum(square - mean**2, SMALLEST_VARIANCE))


def _open(folder: Path) -> Dataset:
    meta = json.loads((folder / META).read_text())
    mean, deviation = np.array(meta["mean"]), np.array(meta["deviation"])
    stored = [
        StoredImages(folder / f"{name}-images.npy", mean, deviation) for name in SPLITS
    ]
    fits = 4 * sum(int(np.prod(images.shape)) for images in stored) <= IN_MEMORY
    labels = [
        np.load(folder / f"{name}-labels.npy", allow_pickle=False) for name in SPLITS
    ]
    train, validation, test = (
        Split(images[:] if fits else images, own)
        for images, own in zip(stored, labels, strict=True)
    )
    source = f"{meta['source']}, checksum {meta['checksum']}"
    return Dataset(
        train,
        validation,
        test,
        meta["classes"],
        source,
        names=tuple(meta["names"]),
        remark=meta["remark"],
        mean=tuple(meta["mean"]),
        deviation=tuple(meta["deviation"]),
    )
