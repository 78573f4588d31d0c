"""Compare methods over several seeds, at equal training steps per network.

A step of EquiNAS_D takes a gradient for the weights and one for the mixture, and an
evolution trains many networks for every one that it returns. Seconds are those of the
whole method, with compiling, all of its networks, and retraining where there is any.

python -m experiments.compare [--data rotated] [--methods D4 EquiNAS_E] [--seeds 5] ...
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import tyro
from rich.console import Console
from rich.table import Table
from scipy import stats

from experiments import baseline, command, differentiate, evolve, runs
from experiments.data import digits
from experiments.task import Task

SIX = ("D4", "C4", "D2", "C2", "D1", "C1")


def _baseline(method: baseline.Method, *groups: str, **fixed: Any):
    return lambda **task: baseline.Config(
        **{**task, "method": method, "groups": groups, **fixed}
    )


def _evolve(**fixed: Any):
    """A first training for half of the passes, and four generations."""

    def configure(epochs: float, **task: Any) -> evolve.Config:
        lengths = {"first_epochs": epochs / 2, "epochs": epochs / 8, "generations": 4}
        return evolve.Config(**{**task, **lengths, **fixed})

    return configure


METHODS: dict[str, Callable[..., Task]] = {
    "D4": _baseline("static", "D4"),
    "C4": _baseline("static", "C4"),
    "C1": _baseline("static", "C1"),
    "C4 from D4": _baseline("static", "C4", relaxed_from="D4"),
    "C1 from D4": _baseline("static", "C1", relaxed_from="D4"),
    "random static": _baseline("random", *SIX),
    "augmented by D4": _baseline("augmented", "D4"),
    "augmented by C4": _baseline("augmented", "C4"),
    "residual pathway": _baseline("residual", "D4"),
    "relaxed weights": _baseline("relaxed", "D4"),
    "partial group": _baseline("partial", "D4"),
    "soft projection": _baseline("soft", "D4", learned_softness=True),
    "EquiNAS_D": differentiate.Config,
    "random mixture": lambda **task: differentiate.Config(mixture="random", **task),
    "EquiNAS_E": _evolve(retrain=True),
    "random selection": _evolve(selection="random"),
}
# How a row of the table is called after what was read out. The mixture as it is and
# collapsed are one function; the latter tells the parameters at test.
READINGS = {
    "as trained": "",
    "collapsed": "",
    "best of front": "",
    "discretized": ", discretized",
    "retrained": ", retrained",
}


@dataclasses.dataclass(frozen=True)
class Config(Task):
    """Compare methods over several seeds, at equal training steps per network."""

    methods: tuple[str, ...] = tuple(METHODS)
    """Which methods."""
    seeds: int = 5
    """Seeds of each, from --seed on."""
    epochs: float = 4.0
    """Passes over the training digits behind every network."""
    reference: str = "D4"
    """Row of the table that all others are tested against."""
    together: Literal["auto", "yes", "no"] = "auto"
    """Train seeds under vmap where networks allow it; auto does so on accelerators."""

    def __post_init__(self) -> None:
        """Reject methods that are none."""
        super().__post_init__()
        self.check_whole("seeds")
        self.check_positive("epochs")
        for method in self.methods:
            if method not in METHODS:
                near = difflib.get_close_matches(method, METHODS, 1, 0)[0]
                raise ValueError(
                    f"--methods knows no {method!r}, nearest: {near!r}; there are "
                    f"{', '.join(METHODS)}"
                )
        if self.reference not in self.methods:
            raise ValueError(
                f"--reference {self.reference!r} must be one of --methods, "
                f"{', '.join(self.methods)}"
            )

    def configure(self, method: str, seed: int) -> Task:
        """Return the configuration of a method with this network, data and seed."""
        own = {field.name: getattr(self, field.name) for field in TASK_FIELDS}
        changes = {"seed": seed, "name": None, "resume": False, "epochs": self.epochs}
        return METHODS[method](**{**own, **changes})


TASK_FIELDS = dataclasses.fields(Task)


def trained(
    config: Config, method: str, seeds: Sequence[int], folder: Path
) -> list[list[dict[str, Any]]]:
    """Run a method with some seeds and return the rows of each."""
    dataset = digits.load(config.data)
    settings: list[Any] = [config.configure(method, seed) for seed in seeds]
    if isinstance(settings[0], evolve.Config):
        return [_evolved(each, folder / f"{method}-{each.seed}") for each in settings]
    module: Any = (
        baseline if isinstance(settings[0], baseline.Config) else differentiate
    )
    experiments = [module.prepare(each, dataset) for each in settings]
    alike = all(e.trial == experiments[0].trial for e in experiments)
    if alike and len(seeds) > 1 and _together(config):
        return command.train(experiments, dataset)
    return [command.train([experiment], dataset)[0] for experiment in experiments]


def _together(config: Config) -> bool:
    if config.together == "auto":
        return jax.default_backend() != "cpu"
    return config.together == "yes"


def _evolved(config: evolve.Config, folder: Path) -> list[dict[str, Any]]:
    """Run a search, or go on with it, and return the best of its front."""
    folder.mkdir(exist_ok=True)
    quiet = Console(quiet=True)
    result = evolve.evolve(config, folder, quiet, jax.devices()[:1])
    if not result["front"]:
        raise RuntimeError(f"every member of {folder} diverged")
    best = min(result["front"], key=lambda member: member["validation_error"])
    row = {
        "reading": "best of front",
        "groups": best["groups"],
        "validation_error": best["validation_error"],
        "test_error": best["test_error"],
        "training_parameters": best["parameters"],
        "test_parameters": best["parameters"],
        "steps": sum(config.lengths(digits.load(config.data))),
    }
    return [row, result["retrained"]] if config.retrain else [row]


def collect(config: Config, folder: Path, console: Console) -> list[dict[str, Any]]:
    """Run what is not done yet; return one row per method, seed and reading."""
    file = folder / "rows.jsonl"
    rows = _read(file)
    for method in config.methods:
        seeds = range(config.seed, config.seed + config.seeds)
        missing = [s for s in seeds if (method, s) not in _done(rows)]
        at_once = len(missing) if _together(config) else 1
        for i in range(0, len(missing), max(1, at_once)):
            part = missing[i : i + at_once]
            begin = time.perf_counter()
            found = trained(config, method, part, folder)
            seconds = round((time.perf_counter() - begin) / len(part), 2)
            new = [
                {"method": method, "seed": seed, "seconds": seconds, **row}
                for seed, own in zip(part, found, strict=True)
                for row in own
            ]
            rows += new
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            runs.write_atomically(file, lines)
            for row in new:
                console.print(
                    f"{method}{READINGS.get(row['reading'], ', ' + row['reading'])}, "
                    f"seed {row['seed']}: test error {100 * row['test_error']:.2f} % "
                    f"({seconds:.0f} s)"
                )
    return rows


def _read(file: Path) -> list[dict[str, Any]]:
    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line) for line in lines]


def _done(rows: Sequence[dict[str, Any]]) -> set[tuple[str, int]]:
    return {(row["method"], row["seed"]) for row in rows}


def summarize(
    rows: Sequence[dict[str, Any]], reference: str
) -> Iterator[dict[str, Any]]:
    """Yield the line of every method: means over the seeds, and a paired test.

    The test is Student's t on the differences of test errors, seed by seed, to the
    reference; two-sided.
    """
    table: dict[str, dict[int, dict[str, Any]]] = {}
    for row in rows:
        if row["reading"] in READINGS:
            name = row["method"] + READINGS[row["reading"]]
            table.setdefault(name, {})[row["seed"]] = row
    if reference not in table:
        near = difflib.get_close_matches(reference, table, 1, 0)[0]
        raise ValueError(
            f"--reference {reference!r} is no row of the table; nearest: {near!r}"
        )
    for name, own in table.items():
        errors = [100 * row["test_error"] for row in own.values()]
        both = [seed for seed in own if seed in table[reference]]
        a, b = (
            [100 * t[seed]["test_error"] for seed in both]
            for t in (own, table[reference])
        )
        paired = name != reference and len(both) > 1
        yield {
            "method": name,
            "test_error_mean": statistics.mean(errors),
            "test_error_deviation": statistics.stdev(errors) if errors[1:] else 0.0,
            "training_parameters": _median(own, "training_parameters"),
            "test_parameters": _median(own, "test_parameters"),
            "steps": _median(own, "steps"),
            "seconds": _median(own, "seconds"),
            "difference": statistics.mean(a) - statistics.mean(b) if both else None,
            "p": float(stats.ttest_rel(a, b).pvalue) if paired else None,
            "seeds": len(own),
        }


def _median(own: dict[int, dict[str, Any]], key: str) -> float:
    return statistics.median(row[key] for row in own.values())


def print_table(console: Console, lines: Sequence[dict[str, Any]], reference: str):
    """Print the comparison."""
    table = Table(title="test error over seeds, and medians of the rest")
    table.add_column("method")
    for column in (
        "test error (%)",
        "parameters, training",
        "at test",
        "steps",
        "seconds",
        f"minus {reference}",
        "p",
    ):
        table.add_column(column, justify="right")
    for line in lines:
        p, difference = line["p"], line["difference"]
        table.add_row(
            line["method"],
            f"{line['test_error_mean']:.2f} ± {line['test_error_deviation']:.2f}",
            f"{line['training_parameters']:,.0f}",
            f"{line['test_parameters']:,.0f}",
            f"{line['steps']:,.0f}",
            f"{line['seconds']:.0f}",
            "" if p is None or difference is None else f"{difference:+.2f}",
            "" if p is None else f"{p:.3f}",
        )
    console.print(table)


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    try:
        config = tyro.cli(Config, args=arguments, description=__doc__)
        for method in config.methods:
            config.configure(method, config.seed)
        folder = runs.open_run(config, f"compare-{config.data}-{config.seed}")
        config = runs.saved_config(folder, Config)
    except (ValueError, FileNotFoundError) as error:
        console.print(f"error: {error}", markup=False)
        raise SystemExit(2) from None
    console.print(f"writing to {folder}")
    try:
        rows = collect(config, folder, console)
    except KeyboardInterrupt:
        console.print(f"interrupted; go on with: --name {folder.name} --resume")
        raise SystemExit(130) from None
    lines = list(summarize(rows, config.reference))
    runs.write_json(folder / "result.json", {"table": lines})
    print_table(console, lines, config.reference)


if __name__ == "__main__":
    main()
