"""What eqjax costs before anything is trained: import time and tables.

    python -m benchmarks.overhead [--quick] [--json FILE]

Prints a table and, as its last line, the summary as one JSON object.
"""

from __future__ import annotations

import functools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import eqjax as eq
from benchmarks.report import arguments, finish
from eqjax.kernels import orbits


def import_seconds(modules: str) -> float:
    """Return the seconds that a fresh interpreter takes to import modules."""
    code = f"import time; t = time.perf_counter(); import {modules}; "
    code += "print(time.perf_counter() - t)"
    command = [sys.executable, "-c", code]
    return float(subprocess.check_output(command))


def table_seconds(make_group: Callable[[], eq.Group], taps: tuple[int, ...]) -> float:
    """Return the seconds to build a group, its lattice and a regular kernel's table."""
    orbits.kernel_table.cache_clear()
    begin = time.perf_counter()
    group = make_group()
    regular = eq.regular(group)
    orbits.kernel_table(group, taps, regular, regular)
    return time.perf_counter() - begin


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__)
    repeats = 3 if options.quick else 15
    ours, theirs = [], []
    for _ in range(repeats):  # in turns, so that a busy machine slows both
        theirs.append(import_seconds("flax.linen, optax"))
        ours.append(import_seconds("eqjax"))
    tables: dict[str, tuple[Callable[[], eq.Group], tuple[int, ...]]] = {
        "D4 5x5": (functools.partial(eq.dihedral, 4), (5, 5)),
        "Oh 3x3x3": (eq.full_octahedral, (3, 3, 3)),
    }
    rows = {
        "import flax.linen, optax (s)": statistics.median(theirs),
        "import eqjax (s)": statistics.median(ours),
    }
    for name, (make, taps) in tables.items():
        seconds = [table_seconds(make, taps) for _ in range(repeats)]
        rows[f"tables {name} (s)"] = statistics.median(seconds)
    summary = {
        "import_over_flax_and_optax": rows["import eqjax (s)"]
        / rows["import flax.linen, optax (s)"],
        "d4_tables_seconds": rows["tables D4 5x5 (s)"],
        "cube_tables_seconds": rows["tables Oh 3x3x3 (s)"],
    }
    finish(options, rows, summary)


if __name__ == "__main__":
    main()
