"""How far from the best schedule is what a search returns, and at what cost?

    python -m benchmarks.regret [--quick] [--json FILE] [--seeds N] [--only '*S*']

The regret of a schedule is its test error minus that of the best of all 126, both by
the table of `experiments.data.schedules` in the mean over seeds, in percentage points.
Every search has a seed for each of the table's; those that train by the table alone
have the trainings of that seed. Searches by real runs (about two minutes each on a
core, 72 of them or more) use the same network on the same digits; with --json
results/regret.json, each is written to results/regret.jsonl as soon as it is done, and
not run again; --only has patterns of those that are wanted. The cost is the gradient
steps of all networks together. A search names the group that all layers of its schedule
have in common; the share of right ones is given, too. The last line has the means by
method, and of any two searches by real runs the difference of regrets, paired by task
and seed, with its 95 % interval (`paired`, of two seeds or more); docs/regret.png is
drawn from them (not with --quick, which runs short searches on one task with one seed).
"""

from __future__ import annotations

import argparse
import fnmatch
import functools
import itertools
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import eqjax as eq
from benchmarks.real_searches import RealSearch, real_searches
from benchmarks.report import arguments, finish, interval
from benchmarks.table_searches import Outcome, fixed, table_searches
from eqjax_experiments import shell
from eqjax_experiments.data.schedules import Schedule, Schedules
from eqjax_experiments.reports.pictures import save
from eqjax_experiments.reports.tradeoffs import regret_figure
from eqjax_experiments.runs import files

PICTURE = Path(__file__).parents[1] / "docs/regret.png"
TRUTH = {"upright": "C1", "flipped": "D1:i", "quarter": "C4", "rotated": "C4"}
FIXED = ("D4", "C4", "C1")

Search = Callable[[str, int], list[Outcome]]  # of a task and a seed


class Figures(NamedTuple):
    """What a search is judged by, in the mean over what it may return.

    Attributes:
      regret: in percentage points.
      steps: gradient steps.
      right: the share that has the true group.
    """

    regret: float
    steps: float
    right: float


@functools.cache
def common_group(schedule: Schedule) -> str:
    """Return the group that all layers have in common.

    >>> common_group(("D4", "D2:i", "D1:i"))
    'D1:i'
    """
    first, *rest = eq.Architecture.parse(eq.dihedral(4), schedule).groups
    return first.meet(*rest).name


def judge(table: Schedules, task: str, outcomes: list[Outcome]) -> Figures:
    """Return the figures of a search on a task."""
    returned = {outcome.schedule for outcome in outcomes}
    errors = {s: table.query(task, s).test_error for s in returned}
    best = table.best(task).test_error
    found = Figures(0.0, 0.0, 0.0)
    for schedule, steps, share in outcomes:
        regret = 100 * (errors[schedule] - best)
        right = common_group(schedule) == TRUTH[task]
        new = (regret, steps, float(right))
        found = Figures(*(a + share * b for a, b in zip(found, new, strict=True)))
    return found


def searches(
    table: Schedules, real: dict[str, RealSearch], saved: Path | None
) -> dict[tuple[str, int], Search]:
    """Return every search by its name, and by its size where it has one, else 0."""
    found: dict[tuple[str, int], Search] = {}
    for name, sizes in table_searches(len(table.schedules)).items():
        for size, search in sizes.items():
            found[name, size] = functools.partial(search, table)
    for group in FIXED:
        found[f"{group} everywhere", 0] = functools.partial(fixed, group, table)
    found["the true group everywhere", 0] = lambda task, seed: fixed(
        TRUTH[task], table, task, seed
    )
    for name, run in real.items():
        found[name, 0] = functools.partial(remembered, name, run, saved)
    return found


def remembered(
    name: str, run: RealSearch, saved: Path | None, task: str, seed: int
) -> list[Outcome]:
    """Return what a search finds, or what it found before, by the file."""
    asked = {"method": name, "task": task, "seed": seed}
    for line in files.read_lines(saved) if saved else []:
        if asked.items() <= line.items():
            return [Outcome(tuple(line["schedule"]), line["steps"])]
    begin = time.perf_counter()
    schedule, steps = run(task, seed)
    seconds = time.perf_counter() - begin
    print(
        f"{name}, {task}, seed {seed}: {' '.join(schedule)}, {seconds:.0f} s",
        flush=True,
    )
    if saved is not None:
        saved.parent.mkdir(parents=True, exist_ok=True)
        row = {**asked, "schedule": schedule, "steps": steps, "seconds": seconds}
        files.append_line(saved, row)
    return [Outcome(schedule, steps)]


def compare(
    table: Schedules, methods: dict[tuple[str, int], Search], tasks: dict[str, tuple]
) -> dict[tuple[str, int], dict[tuple[str, int], Figures]]:
    """Return the figures of every search, by task and seed."""
    found: dict[tuple[str, int], dict[tuple[str, int], Figures]] = {}
    for task, seeds in tasks.items():  # all methods on one: they share programs
        for seed in seeds:
            for method, search in methods.items():
                figures = judge(table, task, search(task, seed))
                found.setdefault(method, {})[task, seed] = figures
    return found


def title(name: str, size: int) -> str:
    """Return what a method is called in rows."""
    return f"{name}, {size}" if size else name


def paired(found: dict, names: Iterable[str]) -> dict[str, dict[str, float]]:
    """Return the differences of regrets between any two methods, with intervals."""
    rows = {}
    for one, other in itertools.combinations(names, 2):
        a, b = found[one, 0], found[other, 0]
        differences = np.array([a[at].regret - b[at].regret for at in a])
        rows[f"{one} - {other}"] = interval(differences)
    return rows


def report(
    options: argparse.Namespace, found: dict, real: Iterable[str], *, picture: bool
) -> None:
    """Print and write the figures of all methods; draw them."""
    rows: dict[str, float] = {}
    summary: dict[str, Any] = {"regret": {}, "steps": {}, "right": {}}
    points: dict[str, list[tuple[float, float]]] = {}
    for (name, size), by_task in found.items():
        for (task, seed), figures in by_task.items():
            rows[f"{title(name, size)}, {task}, seed {seed}: regret"] = figures.regret
        means = Figures(*map(statistics.mean, zip(*by_task.values(), strict=True)))
        for word, value in means._asdict().items():
            summary[word][title(name, size)] = round(value, 4)
        points.setdefault(name, []).append((means.steps, means.regret))
    if all(len(runs) > 1 for runs in found.values()):
        summary["paired"] = paired(found, real)
    if picture:
        save(regret_figure(points), PICTURE)
    finish(options, rows, summary)


def main() -> None:
    """Search, judge, and write."""
    options = arguments(__doc__, seeds=3, only="*")
    shell.keep_compiled()
    table = Schedules.load()
    seeds = min(options.seeds, len(table.seeds(table.tasks[0])))
    tasks = {task: table.seeds(task)[:seeds] for task in table.tasks}
    saved = options.json and options.json.with_suffix(".jsonl")
    if options.quick:
        tasks, saved = {"quarter": table.seeds("quarter")[:1]}, None
    real = real_searches(quick=options.quick)
    wanted = {
        name: run
        for name, run in real.items()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in options.only)
    }
    methods = searches(table, wanted, saved)
    found = compare(table, methods, tasks)
    report(options, found, wanted, picture=not options.quick)


if __name__ == "__main__":
    main()
