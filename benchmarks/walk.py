"""From a folder of one's own images to the answer and the best network: how long?

    python -m benchmarks.walk [--quick] [--json FILE] [--clone URL]

Draws the 600 pictures of `own_images` and does with them what README says under "Your
own images", as a user would, every command in a process of its own and an empty
folder: `test-symmetry`, `evolve`, `report`, `predict`, `exactness`. With --clone, from
a new clone of that repository, which `make install` sets up first. Compiled programs
are kept in the empty folder, so that nothing comes from earlier runs. `minutes` is the
time of all together; `answer` and `verdict` are what test and search say of pictures
whose group is C4.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import own_images
from benchmarks.report import finish, parser

COMMANDS = {
    "test-symmetry": "pictures --name asked",
    "evolve": "--data pictures --name first",
    "report": "first",
    "predict": "first pictures/left/000.png pictures/rings",
    "exactness": "first pictures/left",
}
QUICK = {
    "test-symmetry": "--epochs 0.2",
    "evolve": "--generations 1 --epochs 0.2 --first-epochs 0.2",
}


def main() -> None:
    """Walk, and say what came out of it."""
    options = parser(__doc__)
    options.add_argument("--clone", help="repository to begin with")
    given = options.parse_args()
    rows: dict[str, float] = {}
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        own_images.draw(folder / "pictures")
        environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
        program = [sys.executable, "-m", "eqjax_experiments"]
        if given.clone:
            environment.pop("PYTHONPATH", None)
            begin = time.perf_counter()
            clone = folder / "eqjax"
            subprocess.run(["git", "clone", "-q", given.clone, clone], check=True)
            subprocess.run(["make", "-s", "install"], cwd=clone, check=True)
            rows["clone and make install (s)"] = time.perf_counter() - begin
            program = [str(clone / ".venv/bin/eqjax")]
        for command, arguments in COMMANDS.items():
            more = QUICK.get(command, "") if given.quick else ""
            words = [*program, command, *arguments.split(), *more.split()]
            begin = time.perf_counter()
            done = subprocess.run(
                [*words, "--json", f"{command}.json"],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            rows[f"{command} (s)"] = time.perf_counter() - begin
            print(
                f"$ eqjax {' '.join(words[len(program) :])}\n{done.stdout}", flush=True
            )
            if done.returncode:
                sys.exit(done.stderr)
            found[command] = json.loads((folder / f"{command}.json").read_text())
    best = found["evolve"]["readings"][0]
    summary = {
        "minutes": sum(rows.values()) / 60,
        "answer": found["test-symmetry"]["answer"],
        "verdict": found["evolve"]["verdict"],
        "best": {"groups": best["groups"], "test_error": best["test_error"]},
        "kept": found["exactness"]["kept"],
    }
    finish(given, rows, summary)


if __name__ == "__main__":
    main()
