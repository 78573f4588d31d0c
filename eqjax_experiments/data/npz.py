"""Archives of arrays, .npz, read whole and checked, without code that they may hold."""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

# What zipfile, zlib and numpy raise for archives that were cut or changed: encrypted or
# compressed in ways that nobody has chosen (RuntimeError), larger than any memory, ...
DAMAGES = (
    ValueError,
    EOFError,
    OSError,
    KeyError,
    RuntimeError,
    MemoryError,
    SyntaxError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
)


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """Return all arrays of an archive by name.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no archive of arrays, or damaged; the message names it.
    """
    try:
        opened = np.load(file, allow_pickle=False)
        if not isinstance(opened, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array")
        with opened:
            return {name: opened[name] for name in opened.files}
    except FileNotFoundError:
        raise
    except DAMAGES as error:
        raise ValueError(f"{file} is not a readable .npz archive: {error}") from None
