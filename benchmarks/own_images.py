"""Does the default search name the right group of somebody's own, few pictures?

    python -m benchmarks.own_images [--quick] [--json FILE]

Draws 600 gray pictures of 60 x 80 pixels as PNG files, a folder per class: spirals that
wind to the left, spirals that wind to the right, and rings, each at any angle and
somewhat off the centre. Rotations leave the classes alone, and a reflection exchanges
two of them: the group is C4. Runs `python -m experiments.evolve --data FOLDER --seed S`
as it is by default for S = 0 to 4 (0 alone, and shorter, with --quick). Its last line
has the shares of runs that named C4 (`right`), named another group (`wrong`), and said
that they cannot tell (`undecided`).
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console

from benchmarks.report import arguments, finish
from eqjax_experiments.data.catalogue import ROOT_VARIABLE
from eqjax_experiments.tasks.evolve import EvolutionTask, evolve

TRUTH = "C4"
PER_CLASS = 200
HEIGHT, WIDTH = 60, 80
WINDING = {"left": -1, "right": 1, "rings": 0}


def picture(winding: int, rng: np.random.Generator) -> np.ndarray:
    """Draw thin bright lines, one spiral or rings, as uint8 (height, width)."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    y -= (HEIGHT - 1) / 2 + rng.uniform(-4, 4)
    x -= (WIDTH - 1) / 2 + rng.uniform(-4, 4)
    radius, angle = np.hypot(y, x), np.arctan2(y, x)
    pitch, phase = rng.uniform(7, 10), rng.uniform()
    turns = radius / pitch - winding * angle / (2 * np.pi) - phase
    from_line = pitch * np.abs(turns - np.round(turns))
    drawn = np.clip(1.8 - from_line, 0, 1) * (radius < rng.uniform(20, 27))
    noisy = drawn + rng.normal(0, 0.1, drawn.shape)
    return np.round(255 * np.clip(noisy, 0, 1)).astype(np.uint8)


def draw(folder: Path) -> None:
    """Write all pictures."""
    rng = np.random.default_rng(0)
    for name, winding in WINDING.items():
        (folder / name).mkdir(parents=True)
        for i in range(PER_CLASS):
            Image.fromarray(picture(winding, rng)).save(folder / name / f"{i:03}.png")


def named(folder: Path, runs: Path, seed: int, quick: bool) -> dict[str, Any]:
    """Run a search, or read its result, and return what it says."""
    lengths: dict[str, Any] = {"generations": 1, "first_epochs": 0.5} if quick else {}
    task = EvolutionTask(data=str(folder), seed=seed, **lengths)
    run = runs / f"seed-{seed}"
    run.mkdir(parents=True, exist_ok=True)
    console = Console(width=120, highlight=False)
    return evolve(task, task.load(), run, console)


def main() -> None:
    """Draw, search and report."""
    options = arguments(__doc__)
    rows: dict[str, float] = {}
    verdicts: list[str | None] = []
    with tempfile.TemporaryDirectory() as temporary:
        os.environ.setdefault(ROOT_VARIABLE, temporary)  # of what is cached
        folder = Path(temporary) / "pictures"
        draw(folder)
        for seed in range(1 if options.quick else 5):
            begin = time.perf_counter()
            result = named(folder, Path(temporary), seed, options.quick)
            said = result["verdict"]
            verdicts.append(said["group"])
            print(f"seed {seed}: {said['group'] or 'undecided'}; {said['reason']}")
            best = min(result["front"], key=lambda member: member["validation_error"])
            rows[f"seed {seed}: named {said['group'] or 'none'}"] = 1.0
            for split in ("validation", "test"):
                rows[f"seed {seed}: {split} error (%)"] = 100 * best[f"{split}_error"]
            rows[f"seed {seed}: seconds"] = time.perf_counter() - begin
    count = len(verdicts)
    right, undecided = verdicts.count(TRUTH) / count, verdicts.count(None) / count
    summary = {
        "right": right,
        "undecided": undecided,
        "wrong": 1 - right - undecided,
        "named": verdicts,
    }
    finish(options, rows, summary)


if __name__ == "__main__":
    main()
