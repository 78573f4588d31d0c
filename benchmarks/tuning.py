"""The rate that every method of `experiments.compare` has of its own, tuned alike.

    python -m benchmarks.tuning [--quick] [--json FILE] [--only 'gamma*']

Three values each, in the small setting of `benchmarks.methods`, on digits rotated by
right angles, seed 0, by the error on the validation images of what the method is judged
by there: the retrained network where there is one; of equal errors, the first.
`benchmarks.methods` takes the best values from benchmarks/results/tuning.json. Methods
without a rate of their own (networks of fixed groups, evolutions, and their controls)
are not here.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from rich.console import Console

from benchmarks.report import arguments, finish
from benchmarks.small import FEW_STEPS, SMALL, TUNED, varied
from eqjax_experiments.runs import run_folder
from eqjax_experiments.tasks.comparison import ComparisonTask

DATA = "quarter"


def validation_error(task: Any, name: str) -> float:
    """Return the validation error, in percent, of what a method is judged by."""
    folder = run_folder.ROOT / "tuning" / name
    *_, last = run_folder.enter(folder, task).run(folder, Console(quiet=True))
    return round(100 * last["validation_error"], 3)


def main() -> None:
    """Tune, print, and write."""
    options = arguments(__doc__, only="*")
    console = Console(width=120, highlight=False)
    settings = FEW_STEPS if options.quick else SMALL
    config = ComparisonTask(data=DATA, seeds=1, **settings)
    rows: dict[str, float] = {}
    summary: dict[str, Any] = {}
    for method, (place, values) in TUNED.items():
        if not any(fnmatchcase(method, pattern) for pattern in options.only):
            continue
        errors = {}
        for value in values[:1] if options.quick else values:
            task = varied(config.configure(method, 0), place, value)
            name = f"tuning-{method}-{value}".replace(" ", "_").replace(",", "")
            errors[value] = validation_error(task, name)
            key = f"{method}, {'.'.join(place)} {value}: validation error (%)"
            rows[key] = errors[value]
            console.print(key, errors[value])
        summary[method] = min(errors, key=errors.__getitem__)
    finish(options, rows, summary)


if __name__ == "__main__":
    main()
