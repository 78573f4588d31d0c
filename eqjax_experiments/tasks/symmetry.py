"""Which symmetry the data have: a network is trained, and an exact test asks it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from rich.console import Console

import eqjax as eq
from eqjax.analysis import HeldOutTest, SymmetryTest
from eqjax.analysis.drawing import evidence_figure
from eqjax.training import Split
from eqjax_experiments.data.splits import Dataset, first_of
from eqjax_experiments.engine import experiment
from eqjax_experiments.engine.experiment import Experiment
from eqjax_experiments.engine.trial import Trial
from eqjax_experiments.runs import files
from eqjax_experiments.tasks.guide import DRAWS, key_of_test
from eqjax_experiments.tasks.task import Length, SingleTask

Report = SymmetryTest | HeldOutTest
EVIDENCE, PICTURE = "evidence.json", "evidence.png"
PROBE = Length(passes=2.0, steps=500)
DOUBTFUL = 0.05  # a named group with a smaller p is neither rejected nor sure


@dataclasses.dataclass(frozen=True)
class SymmetryTask(SingleTask):
    """Test which symmetry the data have, by a network that is trained for it."""

    COMMAND: ClassVar[str] = "test-symmetry"
    USUAL: ClassVar[dict[str, Length]] = {"epochs": PROBE}

    by: Literal["losses", "gradients"] = "losses"
    """What tells: the losses of held-out images, moved, of a network without symmetry
    that half of the training images have trained; or the gradients of a network with
    the ambient group in all layers, for groups that move pixels between pixels, too."""
    groups: tuple[str, ...] | None = None
    """Subgroups to test, with all that two of them generate; all subgroups if not
    given."""
    level: float = 0.01
    """Probability that the test rejects a group which the data have."""
    tested_images: int = 8000
    """Images that are tested with, at most."""
    epochs: float | None = None
    """Passes over the images of the training; 2 if not given, and at least 500 steps.
    """

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
        if self.by == "losses" and not all(self.ambient_group.exact):
            raise ValueError(
                f"--ambient {self.ambient} moves pixels between pixels; pass --by "
                f"gradients, or --ambient {self.ambient_group.exact_subgroup.name}"
            )

    @property
    def passes(self) -> float:
        """Passes over the training images, without those of the test."""
        return PROBE.passes if self.epochs is None else self.epochs

    def prepare(self, dataset: Dataset) -> Experiment:
        """Return the training of the network."""
        return self.plan(dataset, Path(), Console(quiet=True))

    def run(self, folder: Path, console: Console) -> list[dict[str, Any]]:
        """Train and test, or continue to, in a folder."""
        dataset = self.load()
        plan = self.plan(dataset, folder, console)
        return experiment.run(plan, self.parts(dataset)[0], folder, console)

    def parts(self, dataset: Dataset) -> tuple[Dataset, Split]:
        """Return what is trained on, and the images to test with.

        By losses the latter must not have been seen: they are half of the training
        images, and those for validation. By gradients they may.
        """
        images, labels = dataset.train
        half = 0 if self.by == "gradients" else len(labels) // 2
        tested = slice(half, half + self.tested_images)
        held_out = Split(images[tested], labels[tested])
        if self.by == "gradients":
            return dataset, held_out
        first = Split(first_of(images, half), labels[:half])
        both = zip(held_out, dataset.validation, strict=True)
        unseen = Split(*(np.concatenate([own[:], more[:]]) for own, more in both))
        return dataclasses.replace(dataset, train=first), unseen

    def plan(self, dataset: Dataset, folder: Path, console: Console) -> Experiment:
        """Return the training of the network, which is asked at its end."""
        seen, held_out = self.parts(dataset)
        self.inputs(seen)  # raises where a batch is too large
        steps = self.steps(self.passes_over(seen, self.epochs, PROBE), seen)
        whole = self.ambient_group
        tied_to = whole if self.by == "gradients" else whole.smallest
        model = self.model(eq.Architecture.uniform(tied_to, self.layers))

        def test(variables: Any, _: Dataset) -> list[dict[str, Any]]:
            console.print(f"testing with {len(held_out.labels)} images")
            settings: dict[str, Any] = {
                "model": model,
                "x": held_out.images,
                "y": held_out.labels,
                "key": key_of_test(self.seed, 0),
                "level": self.level,
                "draws": max(DRAWS, math.ceil(1 / self.level)),
            }
            if self.by == "gradients":
                kept = model.symmetry(dataset.image_shape[:-1])
                groups = self.named_within(self.groups, kept)
                report: Any = eq.symmetry_test(variables, groups=groups, **settings)
            else:
                groups = self.named_within(self.groups, whole)
                report = eq.held_out_test(
                    variables, group=whole, groups=groups, **settings
                )
            console.print(str(report), markup=False)
            found = answer(report, chance(held_out.labels))
            keep(report, found, model.architecture.names, steps, folder)
            return []  # nothing is read off the test images

        trial = Trial(model, self.weight_optimizer(steps))
        return Experiment(self, trial, steps, test)


def chance(labels: np.ndarray) -> float:
    """Return the loss of who knows how frequent the classes are, and nothing else.

    >>> round(chance(np.array([0, 1, 0, 1])), 4)  # the logarithm of 2
    0.6931
    """
    share = np.bincount(labels) / len(labels)
    return float(-(share[share > 0] * np.log(share[share > 0])).sum())


def keep(
    report: Report, found: Answer, names: Sequence[str], steps: int, folder: Path
) -> None:
    """Write what a test found into a folder, and draw it."""
    from eqjax_experiments.reports import pictures  # slow to import

    entry = {
        "step": steps,
        "groups": list(names),
        "next": list(names),
        "named": report.maximal[0].name,
        "decided": found.decided,
        "answer": found.text,
        **report.numbers(),
    }
    figure = evidence_figure([{**entry, "title": found.text}], report.group.ambient)
    pictures.save(figure, folder / PICTURE)
    files.write_records(folder / EVIDENCE, [entry])  # last: it says all is done


def found_in(folder: Path) -> dict[str, Any]:
    """Return what the test of a finished run found."""
    return files.read_records(folder / EVIDENCE)[0]


class Answer(NamedTuple):
    """Which symmetry the data have, in a sentence, and whether they tell."""

    text: str
    decided: bool


def answer(report: Report, chance: float = math.inf) -> Answer:
    """Return which symmetry the data have.

    A test can only reject. That a group is named says that these data do not contradict
    it, and that they contradict every group that contains it. A network that knows no
    more than the frequency of the classes has seen nothing that could contradict.

    Args:
      report: of the test.
      chance: loss of who knows the frequencies.
    """
    groups = report.maximal
    names = " or ".join(H.name for H in groups)
    loss = getattr(report, "loss", -math.inf)
    if loss >= chance:
        text = f"the network has not learned the classes (loss {loss:.2f}, by chance "
        hint = f"{chance:.2f}); train it longer (--epochs), or with another --network"
        return Answer(f"undecided: {text}{hint}", decided=False)
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
