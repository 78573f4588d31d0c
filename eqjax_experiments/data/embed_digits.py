"""Make digits.npz from MNIST's IDX files: how the embedded file came about.

    python -m experiments.data.embed_digits FOLDER

FOLDER holds the four uncompressed IDX files of MNIST.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np

from eqjax_experiments.data.digits import FILE

# MD5 of the uncompressed files, digits taken, bytes of header.
SOURCES = {
    "train-images-idx3-ubyte": ("6bbc9ace898e44ae57da46a324031adb", 10_000, 16),
    "train-labels-idx1-ubyte": ("a25bea736e30d166cdddb491f175f624", 10_000, 8),
    "t10k-images-idx3-ubyte": ("2646ac647ad5339dbf082846283269ea", 2_000, 16),
    "t10k-labels-idx1-ubyte": ("27ae3e4e09519cfbb04c329615203637", 2_000, 8),
}


def embed(folder: Path) -> None:
    """Write the first training and test digits to the embedded file."""
    parts = {}
    for name, (md5, count, header) in SOURCES.items():
        raw = (folder / name).read_bytes()
        found = hashlib.md5(raw).hexdigest()
        if found != md5:
            raise ValueError(f"{folder / name}: expected MD5 {md5}, found {found}")
        values = np.frombuffer(raw, np.uint8, offset=header)
        item = (28, 28) if "images" in name else ()
        parts[name] = values.reshape(-1, *item)[:count]
    images = [part for name, part in parts.items() if "images" in name]
    labels = [part for name, part in parts.items() if "labels" in name]
    np.savez_compressed(
        FILE, images=np.concatenate(images), labels=np.concatenate(labels)
    )


if __name__ == "__main__":
    embed(Path(sys.argv[1]))
