"""Evolve which symmetry each layer of a network has.

python -m experiments.evolve [--data rotated] [--groups D4 C4 C1] ...
"""

from __future__ import annotations

import contextlib
import dataclasses

import tyro

from eqjax_experiments import shell
from eqjax_experiments.engine.hosts import Hosts
from eqjax_experiments.reports.printing import (
    print_classes,
    print_front,
    print_readings,
    print_verdict,
    say_what_is_exact,
    say_what_the_data_are,
)
from eqjax_experiments.runs import run_folder
from eqjax_experiments.tasks.evolve import EvolutionTask, evolve, retrain


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclasses.dataclass(frozen=True)
class Options:
    """Evolve which symmetry each layer of a network has."""

    task: EvolutionTask
    hosts: Hosts


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    console = shell.console()
    with contextlib.ExitStack() as held:
        with shell.errors_end_it(console):
            options = shell.parse(Options, __doc__, arguments)
            hosts = options.hosts
            with hosts.leaving():
                devices = hosts.connect(options.task.batch_size)
                task, folder = shell.open_folder(
                    console, options.task, "evolve", hosts.replicate
                )
            dataset = task.load()
            held.enter_context(run_folder.alone(folder))
        console.quiet = hosts.process > 0
        console.print(f"writing to {folder}")
        say_what_the_data_are(console, dataset)
        model = task.first_model()
        say_what_is_exact(console, model, dataset.image_shape[:-1])
        resume = f"--name {task.name} --resume"
        with shell.interruptible(console, resume), hosts.leaving(resume):
            result = evolve(task, dataset, folder, console, devices, hosts.data_devices)
            retrained = retrain(task, result, folder, console)
        print_front(console, result["front"])
        for row in result["readings"]:
            print_classes(console, row)
        print_verdict(console, result["verdict"])
        if retrained:
            print_readings(console, retrained)
        console.print(f"picture: {folder / 'search.png'}")


if __name__ == "__main__":
    main()
