"""Rerun the experiments of Maile et al. (2023), and continue where it was interrupted.

python -m experiments reproduce --list --only 'paper/rotmnist/*'
python -m experiments reproduce --only 'small/rotmnist/*' --seeds 3

Patterns are those of a shell. The same command again skips what is finished, and
continues the rest from the last pass over the data or the last generation. Rows go to
runs/NAME/results.jsonl; the command summarize makes tables and pictures of them.
"""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
from collections.abc import Sequence
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from eqjax_experiments import shell
from eqjax_experiments.reports.statistics import by_experiment, summarize
from eqjax_experiments.reports.tables import print_table
from eqjax_experiments.runs import files, run_folder
from eqjax_experiments.runs.collect import collect
from eqjax_experiments.runs.files import ROWS
from eqjax_experiments.tasks.cost import duration
from eqjax_experiments.tasks.presets import Preset, presets

# Multiplications of convolutions per second on two cores (AMD EPYC), as measured: of
# the small network (13.6 ms a step, benchmarks/results/mixed.json), and of the paper's
# (1,136 ms, benchmarks/results/step.json).
RATES = {"small": 0.34e11, "exact": 1.8e11, "paper": 1.8e11}


@dataclasses.dataclass(frozen=True)
class ReproduceSettings:
    """Rerun the experiments of Maile et al. (2023)."""

    only: tuple[str, ...] = ()
    """Names or patterns of the experiments to run, such as 'small/rotmnist/*'."""
    show: Annotated[bool, tyro.conf.arg(name="list")] = False
    """Print the experiments and what they cost, and stop."""
    seeds: int = 5
    """Seeds of each."""
    first_seed: int = 0
    """The first of them; the others follow."""
    name: str = "reproduce"
    """Folder under runs/."""

    def __post_init__(self) -> None:
        """Reject seeds that do not exist."""
        if self.seeds < 1 or self.first_seed < 0:
            raise ValueError("--seeds must be at least 1, and --first-seed at least 0")

    def chosen(self) -> list[Preset]:
        """Return the presets that the patterns match, in their own order.

        Raises:
          ValueError: one matches nothing, or none is given.
        """
        known = presets()
        for pattern in self.only:
            if not fnmatch.filter(known, pattern):
                near = difflib.get_close_matches(pattern, known, 1, 0)[0]
                raise ValueError(f"--only {pattern!r} matches nothing; nearest: {near}")
        if not (self.only or self.show):
            raise ValueError("--only needs names or patterns; --list prints all names")
        patterns = self.only or ("*",)
        return [
            preset
            for name, preset in known.items()
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        ]


OPTIONS = (shell.RunOutput, ReproduceSettings)


def print_list(console: Console, chosen: Sequence[Preset]) -> None:
    """Print what every preset costs."""
    table = Table(title="experiments, with what they cost per seed")
    table.add_column("name")
    for column in ("training steps of all networks", "on two CPU cores, about"):
        table.add_column(column, justify="right")
    for preset in chosen:
        seconds = preset.multiplications / RATES[preset.flavour]
        table.add_row(preset.name, f"{preset.steps:,}", duration(seconds))
    console.print(table)


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    console = shell.console()
    with shell.errors_end_it(console):
        output, settings = shell.parse(console, __doc__, arguments, *OPTIONS)
        chosen = settings.chosen()
        if settings.show or output.dry_run:
            print_list(console, chosen)
            return
        console.print(f"looking at the data of {len(chosen)} experiments")
        with shell.interruptible(console, "the same command"):
            for preset in chosen:
                preset.task.check()  # errors leave no folder behind
        folder = run_folder.named_folder(settings.name)
        if (folder / files.CONFIG).exists():
            raise ValueError(
                f"{folder} is the run of another command; choose another --name"
            )
        folder.mkdir(parents=True, exist_ok=True)
        console.print(f"writing to {folder / ROWS}")
        seeds = range(settings.first_seed, settings.first_seed + settings.seeds)
        wanted = [preset.method_run(seed) for seed in seeds for preset in chosen]
        with shell.interruptible(console, "the same command"):
            rows = collect(wanted, folder, console)
    compared = {name: summarize(own) for name, own in by_experiment(rows).items()}
    for experiment, comparison in compared.items():
        print_table(console, experiment, comparison)
    tables = {
        experiment: [dataclasses.asdict(line) for line in comparison.lines]
        for experiment, comparison in compared.items()
    }
    output.write({"run": str(folder), "tables": tables})


if __name__ == "__main__":
    main()
