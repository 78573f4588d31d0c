"""Which symmetry the data have: a network is trained, and an exact test asks it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar, Literal

from rich.console import Console

from eqjax_experiments.data.splits import Dataset
from eqjax_experiments.engine import experiment
from eqjax_experiments.engine.experiment import Experiment
from eqjax_experiments.engine.trial import Trial
from eqjax_experiments.runs import files
from eqjax_experiments.runs.reading import EVIDENCE
from eqjax_experiments.tasks.probe import Journal, ProbeTask, answer
from eqjax_experiments.tasks.task import Length

PROBE = Length(passes=2.0, steps=500)


@dataclasses.dataclass(frozen=True)
class SymmetryTask(ProbeTask):
    """Test which symmetry the data have, by a network that is trained for it."""

    COMMAND: ClassVar[str] = "test-symmetry"
    USUAL: ClassVar[dict[str, Length]] = {"epochs": PROBE}

    by: Literal["losses", "gradients"] = "losses"
    """What tells: the losses of held-out images, moved, of a network without symmetry
    that half of the training images have trained; or the gradients of a network with
    the ambient group in all layers, for groups that move pixels between pixels, too."""
    tested_images: int = 8000
    """Images that are tested with, at most."""
    epochs: float | None = None
    """Passes over the images of the training; 2 if not given, and at least 500 steps.
    """

    def __post_init__(self) -> None:
        """Reject values that no test can run with."""
        super().__post_init__()
        self.check_positive("epochs")

    @property
    def by_losses(self) -> bool:
        """Whether held-out losses are tested, and not gradients."""
        return self.by == "losses"

    @property
    def passes(self) -> float:
        """Passes over the training images, without those of the test."""
        return PROBE.passes if self.epochs is None else self.epochs

    def prepare(self, dataset: Dataset) -> Experiment:
        """Return the training of the network."""
        return self.plan(dataset, Journal())

    def run(self, folder: Path, console: Console) -> list[dict[str, Any]]:
        """Train and test, or continue to, in a folder."""
        dataset = self.load()
        plan = self.plan(dataset, Journal(folder, console))
        return experiment.run(plan, dataset, folder, console)

    def plan(self, dataset: Dataset, journal: Journal) -> Experiment:
        """Return the training of the network, which is asked at its end."""
        seen = self.seen(dataset)
        self.inputs(seen)  # raises where a batch is too large
        steps = self.steps(self.passes_over(seen, self.epochs, PROBE), seen)
        model = self.model(self.probed)
        names = list(model.architecture.names)

        def test(variables: Any, _: Dataset) -> list[dict[str, Any]]:
            if journal.entries:  # the run was killed behind the test
                return []
            samples = self.samples(dataset)
            journal.say(f"testing with {len(samples.labels)} images")
            report = self.ask(variables, model, samples)
            journal.say(report)
            found = answer(report)
            entry = {
                "step": steps,
                "groups": names,
                "next": names,
                "named": report.maximal[0].name,
                "decided": found.decided,
                "answer": found.text,
                **report.numbers(),
            }
            journal.keep(entry, self.ambient_group)
            return []  # nothing is read off the test images

        trial = Trial(model, self.weight_optimizer(steps))
        return Experiment(self, trial, steps, test, seen=seen)


def found_in(folder: Path) -> dict[str, Any]:
    """Return what the test of a finished run found."""
    return files.read_records(folder / EVIDENCE)[0]
