"""Test which symmetry the images of a folder, or other data, have.

A network without symmetry is trained for some hundred steps on half of the training
images. The other half is moved by the elements of every group: where that raises the
loss by more than chance, the data do not have the group (`eqjax.held_out_test`). With
--by gradients a network of the largest group is asked (`eqjax.symmetry_test`), which
also tests rotations by 45 degrees, and does not see classes that a reflection swaps.

python -m experiments test-symmetry path/to/folder
python -m experiments test-symmetry chirality --ambient Oh
python -m experiments test-symmetry rotated --ambient D8 --by gradients --name angles
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Annotated, Literal

import tyro

from eqjax_experiments import shell
from eqjax_experiments.reports.printing import say_what_the_data_are
from eqjax_experiments.runs import run_folder
from eqjax_experiments.tasks import symmetry
from eqjax_experiments.tasks.cost import cost_of
from eqjax_experiments.tasks.probe import PICTURE
from eqjax_experiments.tasks.symmetry import SymmetryTask
from eqjax_experiments.tasks.task import DATA_HELP


@dataclasses.dataclass(frozen=True)
class SymmetrySettings:
    """Test which symmetry data have."""

    data: Annotated[
        tyro.conf.Positional[str | None],
        tyro.conf.arg(metavar="DATA", help=f"{DATA_HELP} Not needed to --resume."),
    ] = None
    ambient: str = "D4"
    """Largest group to test: its subgroups are tested. D4 has right-angle rotations and
    reflections; D8 rotations by 45 degrees, too; Oh is for volumes, flip for
    sequences."""
    by: Literal["losses", "gradients"] = "losses"
    """What tells: the losses of held-out images of a network without symmetry; or the
    gradients of one with the largest group."""
    level: float = 0.01
    """Probability that the test rejects a group which the data have."""
    epochs: float | None = None
    """Passes of the probe over the training images; 2 if not given, and at least 500
    steps."""
    image_size: int | None = None
    """Pixels per side that colour images are scaled to; 64 if not given."""
    network: Literal["exact", "resnet", "wide_resnet"] = "exact"
    """The probe: a small network, or one of residual blocks."""
    batch_size: int = 32
    """Images per training step; at most half of the training images."""
    seed: int = 0
    """Of weights, batches and draws."""
    name: str | None = None
    """Folder under runs/; made up if not given."""
    resume: bool = False
    """Continue the run --name where it was saved last."""

    def task(self) -> SymmetryTask:
        """Return the task of these settings.

        Raises:
          ValueError: there are no data to begin with.
        """
        settings = dataclasses.asdict(self)
        if self.data is None:
            if not self.resume:
                raise ValueError("expected the data to test, such as path/to/folder")
            del settings["data"]  # the run knows
        return SymmetryTask(**settings)


OPTIONS = (shell.RunOutput, SymmetrySettings)


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    console = shell.console()
    with contextlib.ExitStack() as held:
        with shell.errors_end_it(console):
            output, settings = shell.parse(console, __doc__, arguments, *OPTIONS)
            asked = settings.task()
            if output.dry_run:
                asked.check()
                shell.say_the_cost(console, output, cost_of(asked))
                return
            task, folder = shell.open_folder(console, asked)
            dataset = task.load()
            held.enter_context(run_folder.alone(folder))
        console.print(f"writing to {folder}")
        say_what_the_data_are(console, dataset)
        resume = shell.command_line(task.COMMAND, "--name", folder.name, "--resume")
        with shell.interruptible(console, resume):
            task.run(folder, console)
        found = symmetry.found_in(folder)
        console.print(f"answer: {found['answer']}", markup=False)
        console.print(f"picture: {folder / PICTURE}")
        output.write({"run": str(folder), **found})


if __name__ == "__main__":
    main()
