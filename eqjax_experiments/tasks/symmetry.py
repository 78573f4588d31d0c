"""Which symmetry the data have: a probe, and an exact test of its gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from rich.console import Console

import eqjax as eq
from eqjax.analysis.drawing import evidence_figure
from eqjax.search import named_group
from eqjax_experiments.data.splits import Dataset
from eqjax_experiments.engine import experiment
from eqjax_experiments.engine.experiment import Experiment
from eqjax_experiments.engine.trial import Trial
from eqjax_experiments.runs import files
from eqjax_experiments.tasks.guide import key_of_test, test_of
from eqjax_experiments.tasks.task import Length, SingleTask

EVIDENCE, PICTURE = "evidence.json", "evidence.png"
PROBE = Length(
    passes=2.0, steps=500
)  # `benchmarks.symmetry` measures how often it errs
DOUBTFUL = 0.05  # a named group with a smaller p is neither rejected nor sure


@dataclasses.dataclass(frozen=True)
class SymmetryTask(SingleTask):
    """Test which symmetry the data have, seen from one network of the ambient group."""

    COMMAND: ClassVar[str] = "test-symmetry"
    USUAL: ClassVar[dict[str, Length]] = {"epochs": PROBE}

    groups: tuple[str, ...] | None = None
    """Subgroups to test, with all that two of them generate; all subgroups if not
    given."""
    level: float = 0.01
    """Probability that the test rejects a group which the data have."""
    tested_images: int = 8000
    """Training images that are tested with, at most."""
    epochs: float | None = None
    """Passes over the training images; 2 if not given, and at least 500 steps."""

    def __post_init__(self) -> None:
        """Reject values that no test can run with."""
        super().__post_init__()
        self.check_positive("epochs")
        self.check_whole("tested_images")
        if self.network == "paper":
            raise ValueError(
                "--network paper keeps no group exactly, so that none can be tested; "
                "use --network exact"
            )
        if self.groups == ():
            raise ValueError("--groups needs at least one group")
        if not 0 < self.level < 1:
            raise ValueError("--level must be between 0 and 1")

    @property
    def passes(self) -> float:
        """Passes over the training images, without those of the test."""
        return PROBE.passes if self.epochs is None else self.epochs

    def candidates_of(self, group: eq.Group) -> tuple[eq.Group, ...] | None:
        """Return the subgroups of a group that are tested; None for all."""
        if self.groups is None:
            return None
        named = {self.ambient_group.subgroup(name, 0) for name in self.groups}
        return tuple(H for H in group.subgroups if H in named)

    def prepare(self, dataset: Dataset) -> Experiment:
        """Return the training of the probe."""
        return self.plan(dataset, Path(), Console(quiet=True))

    def run(self, folder: Path, console: Console) -> list[dict[str, Any]]:
        """Train the probe and test, or continue to, in a folder."""
        dataset = self.load()
        return experiment.run(
            self.plan(dataset, folder, console), dataset, folder, console
        )

    def plan(self, dataset: Dataset, folder: Path, console: Console) -> Experiment:
        """Return the training of the probe, which is tested at its end."""
        self.inputs(dataset)  # raises where a batch is too large
        steps = self.steps(self.passes_over(dataset, self.epochs, PROBE), dataset)
        model = self.model(eq.Architecture.uniform(self.ambient_group, self.layers))

        def test(variables: Any, dataset: Dataset) -> list[dict[str, Any]]:
            images, labels = dataset.train
            samples = (images[: self.tested_images], labels[: self.tested_images])
            console.print(f"testing with {len(samples[1])} training images")
            report = test_of(
                variables,
                model,
                samples,
                key_of_test(self.seed, 0),
                level=self.level,
                groups=self.candidates_of(model.symmetry(dataset.image_shape[:-1])),
            )
            console.print(str(report), markup=False)
            keep(report, model.architecture.names, steps, folder)
            return []  # nothing is read off the test images

        return Experiment(self, Trial(model, self.weight_optimizer(steps)), steps, test)


def keep(
    report: eq.SymmetryTest, names: Sequence[str], steps: int, folder: Path
) -> None:
    """Write what a test found into a folder, and draw it."""
    from eqjax_experiments.reports import pictures  # slow to import

    text, decided = answer(report)
    entry = {
        "step": steps,
        "groups": list(names),
        "next": list(names),
        "named": named_group(report).group.name,
        "decided": decided,
        "answer": text,
        **report.numbers(),
    }
    figure = evidence_figure([{**entry, "title": text}], report.group.ambient)
    pictures.save(figure, folder / PICTURE)
    files.write_records(folder / EVIDENCE, [entry])  # last: it says all is done


def found_in(folder: Path) -> dict[str, Any]:
    """Return what the test of a finished run found."""
    return files.read_records(folder / EVIDENCE)[0]


class Answer(NamedTuple):
    """Which symmetry the data have, in a sentence, and whether they tell."""

    text: str
    decided: bool


def answer(report: eq.SymmetryTest) -> Answer:
    """Return which symmetry the data have.

    A test can only reject. That a group is named says that these data do not contradict
    it, and that they contradict every group that contains it.
    """
    groups = report.maximal
    names = " or ".join(H.name for H in groups)
    level = f"at the level {100 * report.level:g} %"
    more = "more images, or a longer training (--epochs), would tell"
    if len(groups) > 1:
        text = f"{names}, and not all of them together; {more}"
        return Answer(f"undecided: symmetric under {text}", decided=False)
    (group,) = groups
    if group.order == 1:
        whole = report.group.name
        text = f"no symmetry of {whole}: every group in it is rejected {level}"
        return Answer(text, decided=True)
    p = report.network[group.name].p
    if p < DOUBTFUL:
        text = f"{names} is not rejected {level}, but its p is {p:.3f}; {more}"
        return Answer(f"undecided: {text}", decided=False)
    if group == report.group:
        return Answer(
            f"symmetric under {names}: the data do not contradict the largest group "
            f"that was tested (p {p:.2f})",
            decided=True,
        )
    return Answer(
        f"symmetric under {names} (p {p:.2f}): every group that contains it is "
        f"rejected {level}",
        decided=True,
    )
