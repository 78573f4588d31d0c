"""Compare methods over several seeds, at equal training steps per network.

A step of EquiNAS_D takes a gradient for the weights and one for the mixture, and an
evolution trains many networks for every one that it returns. Seconds are those of the
whole method, with compiling, all of its networks, and retraining where there is any.

python -m experiments compare --list
python -m experiments compare --data rotated --methods D4 C4 EquiNAS_E --seeds 5
"""

from __future__ import annotations

import dataclasses

from rich.console import Console
from rich.table import Table

from eqjax_experiments import shell
from eqjax_experiments.reports.statistics import summarize
from eqjax_experiments.reports.tables import print_table
from eqjax_experiments.runs import files
from eqjax_experiments.tasks.comparison import ComparisonTask
from eqjax_experiments.tasks.cost import Cost, cost_of

OPTIONS = (shell.RunOutput, ComparisonTask)


def print_methods(console: Console, task: ComparisonTask) -> None:
    """Print a line per method."""
    table = Table("method", "what it is", "source", "gradient steps")
    for name in task.method_names:
        method = task.known[name]
        steps = f"{task.gradient_steps(name):,}"
        table.add_row(name, method.what, method.source, steps)
    console.width = max(console.width, 300)  # a line each, on any terminal
    console.print(table)


def cost_of_all(task: ComparisonTask) -> Cost:
    """Return what all methods and seeds would cost, at the rate of the reference."""
    steps = sum(map(task.gradient_steps, task.method_names)) * task.seeds
    return cost_of(task.configure(task.reference_name, task.seed), steps)


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    console = shell.console()
    with shell.errors_end_it(console):
        output, settings = shell.parse(console, __doc__, arguments, *OPTIONS)
        if settings.show:
            print_methods(console, settings)
            return
        if output.dry_run:
            settings.check()
            shell.say_the_cost(console, output, cost_of_all(settings))
            return
        task, folder = shell.open_folder(console, settings)
    console.print(f"writing to {folder}")
    resume = shell.command_line(task.COMMAND, "--name", folder.name, "--resume")
    with shell.errors_end_it(console), shell.interruptible(console, resume):
        rows = task.run(folder, console)
        comparison = summarize(rows, task.reference_name)
        table = [dataclasses.asdict(line) for line in comparison.lines]
        files.write_record(folder / files.RESULT, {"table": table})
    print_table(console, task.data_label, comparison)
    output.write({"run": str(folder), "table": table})


if __name__ == "__main__":
    main()
