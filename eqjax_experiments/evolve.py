"""Evolve which symmetry each layer of a network has: EquiNAS_E.

python -m experiments evolve
python -m experiments evolve --data path/to/folder --name first
python -m experiments evolve --name first --resume
"""

from __future__ import annotations

import contextlib

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
from eqjax_experiments.tasks.cost import cost_of
from eqjax_experiments.tasks.evolve import EvolutionTask, evolve, retrain

OPTIONS = (shell.RunOutput, EvolutionTask, Hosts)


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    console = shell.console()
    with contextlib.ExitStack() as held:
        with shell.errors_end_it(console):
            output, settings, hosts = shell.parse(console, __doc__, arguments, *OPTIONS)
            if output.dry_run:
                settings.check()
                shell.say_the_cost(console, output, cost_of(settings))
                return
            with hosts.leaving():
                devices = hosts.connect(settings.batch_size)
                task, folder = shell.open_folder(console, settings, hosts.replicate)
            dataset = task.load()
            held.enter_context(run_folder.alone(folder))
        console.quiet = console.quiet or hosts.process > 0
        console.print(f"writing to {folder}")
        say_what_the_data_are(console, dataset)
        model = task.first_model()
        say_what_is_exact(console, model, dataset.image_shape[:-1])
        resume = shell.command_line(task.COMMAND, "--name", str(task.name), "--resume")
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
        if hosts.process == 0:
            output.write({"run": str(folder), **result, "retrained": retrained})


if __name__ == "__main__":
    main()
