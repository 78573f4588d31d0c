"""Does EquiNAS_S name the group of classes that a reflection exchanges?

    python -m benchmarks.exchanged [--quick] [--json FILE] [--seeds N]

`eqjax guide` with its defaults, by the gradients of a symmetric probe (`--criterion
test`) and by the held-out losses of one without symmetry (`--criterion losses`): on the
600 pictures of `own_images`, whose spirals to the left and to the right are two classes
(C4, of D4), and on screws and their mirror images (O, of Oh). `named_right` is the
share of runs that name the true group and call it decided, `named_wrong` of those that
name another one so, `undecided` the rest; `test_error` is the mean, in percent.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console

from benchmarks import own_images
from benchmarks.report import arguments, finish
from eqjax_experiments.data import synthetic
from eqjax_experiments.data.catalogue import ROOT_VARIABLE
from eqjax_experiments.tasks.guide import GuidedTask
from eqjax_experiments.tasks.symmetry import found_in

CRITERIA: tuple[Literal["test", "losses"], ...] = ("test", "losses")


def share(said: list[str], group: str) -> float:
    """Return the share of runs that said this."""
    return said.count(group) / len(said)


def main() -> None:
    """Draw, search and report."""
    options = arguments(__doc__, seeds=3)
    rows: dict[str, float] = {}
    named: dict[str, list[str]] = {}
    truth: dict[str, str] = {}
    errors: dict[str, list[float]] = {}
    length: dict[str, Any] = {"epochs": 0.2} if options.quick else {}
    with tempfile.TemporaryDirectory() as temporary:
        os.environ.setdefault(ROOT_VARIABLE, temporary)  # of what is cached
        pictures = Path(temporary) / "pictures"
        own_images.draw(pictures)
        screws = synthetic.KINDS["chirality"]
        questions: dict[str, tuple[str, dict[str, Any]]] = {
            "pictures": (own_images.TRUTH, {"data": str(pictures)}),
            "screws": (screws.group, {"data": "chirality", "ambient": screws.ambient}),
        }
        for data, (group, own) in questions.items():
            for criterion in CRITERIA:
                name = f"{data}, {criterion}"
                truth[name] = group
                for seed in range(1 if options.quick else options.seeds):
                    task = GuidedTask(seed=seed, criterion=criterion, **own, **length)
                    folder = Path(temporary) / f"{name}-{seed}"
                    (row,) = task.run(folder, Console(quiet=True))
                    found = found_in(folder)
                    said = found["named"] if found["decided"] else "undecided"
                    named.setdefault(name, []).append(said)
                    errors.setdefault(name, []).append(100 * row["test_error"])
                    rows[f"{name}, seed {seed}: test error (%)"] = errors[name][-1]
                    print(f"{name}, true {group}, seed {seed}: {said}", flush=True)
    right = {name: share(named[name], truth[name]) for name in named}
    undecided = {name: share(named[name], "undecided") for name in named}
    summary = {
        "named_right": right,
        "undecided": undecided,
        "named_wrong": {
            name: round(1 - right[name] - undecided[name], 4) for name in named
        },
        "named": named,
        "test_error": {name: float(np.mean(own)) for name, own in errors.items()},
    }
    finish(options, rows, summary)


if __name__ == "__main__":
    main()
