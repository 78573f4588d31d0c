"""What tasks share that train a probe and ask it which symmetry the data have.

There are two exact tests. By gradients, the probe has the ambient group in all layers
and is asked with images that it was trained on. By losses, it has no symmetry and is
asked with images that it has not seen: half of those for training, and those for
validation.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

import eqjax as eq
from eqjax.analysis import HeldOutTest, SymmetryTest
from eqjax.analysis.drawing import evidence_figure
from eqjax.groups.axes import preserving_subgroup
from eqjax.training import Split
from eqjax_experiments.data.splits import Dataset, first_of
from eqjax_experiments.runs import files
from eqjax_experiments.runs.reading import EVIDENCE
from eqjax_experiments.tasks.task import SingleTask

Report = SymmetryTest | HeldOutTest
PICTURE = "evidence.png"
DRAWS = 999
DOUBTFUL = 0.05  # a named group with a smaller p is neither rejected nor sure


@dataclasses.dataclass(frozen=True)
class ProbeTask(SingleTask):
    """A task that trains a probe and tests it."""

    groups: tuple[str, ...] | None = None
    """Subgroups to test, with all that two of them generate; all subgroups if not
    given."""
    level: float = 0.01
    """Probability that the test rejects a group which the data have."""
    tested_images: int = 4000
    """Training images that are tested with, at most."""

    def __post_init__(self) -> None:
        """Reject values that no test can run with."""
        super().__post_init__()
        self.check_whole("tested_images")
        if self.network == "paper":
            raise ValueError(
                "--network paper keeps no group exactly, so that none can be tested; "
                "use --network exact"
            )
        if self.groups == ():
            raise ValueError("--groups needs at least one group")
        self.named_within(self.groups, self.ambient_group)
        if not 0 < self.level < 1:
            raise ValueError("--level must be between 0 and 1")
        if self.by_losses and not all(self.ambient_group.exact):
            raise ValueError(
                "losses can be tested under groups that move pixels onto pixels, and "
                f"--ambient {self.ambient} holds others; pass --ambient "
                f"{self.ambient_group.exact_subgroup.name}, or test by gradients"
            )

    @property
    @abc.abstractmethod
    def by_losses(self) -> bool:
        """Whether held-out losses are tested, and not gradients."""

    @property
    def probed(self) -> eq.Architecture:
        """The groups of the probe."""
        whole = self.ambient_group
        group = whole.smallest if self.by_losses else whole
        return eq.Architecture.uniform(group, self.layers)

    def seen(self, dataset: Dataset) -> Dataset:
        """Return what the probe is trained on: all training images, or half of them."""
        if not self.by_losses:
            return dataset
        images, labels = dataset.train
        half = len(labels) // 2
        first = Split(first_of(images, half), labels[:half])
        return dataclasses.replace(dataset, train=first)

    def samples(self, dataset: Dataset) -> Split:
        """Return the images to test the probe with."""
        images, labels = dataset.train
        begin = len(labels) // 2 if self.by_losses else 0
        tested = slice(begin, begin + self.tested_images)
        samples = Split(images[tested], labels[tested])
        if not self.by_losses:
            return samples
        both = zip(samples, dataset.validation, strict=True)
        return Split(*(np.concatenate([own[:], more[:]]) for own, more in both))

    def ask(self, variables: Any, model: Any, samples: Split, stage: int = 0) -> Report:
        """Return what the test of a trained probe says.

        Args:
          variables: of the probe.
          model: the probe.
          samples: to test it with.
          stage: how many tests of this run there were before.
        """
        shape = np.shape(samples.images)[1:-1]
        settings: dict[str, Any] = {
            "model": model,
            "x": samples.images,
            "y": samples.labels,
            "key": key_of_test(self.seed, stage),
            "level": self.level,
            "draws": max(DRAWS, math.ceil(1 / self.level)),
        }
        if self.by_losses:
            whole = preserving_subgroup(self.ambient_group, shape)
            groups = self.named_within(self.groups, whole)
            return eq.held_out_test(variables, group=whole, groups=groups, **settings)
        groups = self.named_within(self.groups, model.symmetry(shape))
        return eq.symmetry_test(variables, groups=groups, **settings)


def key_of_test(seed: int, stage: int) -> jax.Array:
    """Return the key of a test; 0 and 1 are those of weights and batches."""
    return jax.random.fold_in(jax.random.key(seed), 2 + stage)


@dataclasses.dataclass(frozen=True)
class Journal:
    """What the tests of a run found, kept in its folder.

    Attributes:
      folder: of the run; nothing is kept if None.
      console: to print on; nothing is printed if None.
    """

    folder: Path | None = None
    console: Console | None = None

    @property
    def entries(self) -> list[dict[str, Any]]:
        """All that was found so far."""
        file = None if self.folder is None else self.folder / EVIDENCE
        return [] if file is None or not file.exists() else files.read_records(file)

    def keep(self, entry: dict[str, Any], ambient: eq.Group) -> None:
        """Add what a test found under an ambient group, and draw all of it."""
        if self.folder is None:
            return
        entries = [*self.entries, entry]
        from eqjax_experiments.reports import pictures  # slow to import

        titled = [
            {**each, "title": f"step {each['step']}: {each['answer']}"}
            for each in entries
        ]
        pictures.save(evidence_figure(titled, ambient), self.folder / PICTURE)
        last = self.folder / EVIDENCE  # which says that all is done
        files.write_records(last, entries)

    def say(self, text: Any) -> None:
        """Print, if there is where to."""
        if self.console is not None:
            self.console.print(str(text), markup=False)


class Answer(NamedTuple):
    """Which symmetry the data have, in a sentence, and whether they tell."""

    text: str
    decided: bool


def answer(report: Report) -> Answer:
    """Return which symmetry the data have.

    A test can only reject. That a group is named says that these data do not contradict
    it, and that they contradict every group that contains it.
    """
    groups = report.maximal
    names = " or ".join(H.name for H in groups)
    if isinstance(report, HeldOutTest) and report.is_blind:
        losses = f"loss {report.loss:.2f}, by chance {report.chance:.2f}"
        text = f"undecided: the network has not learned the classes ({losses}); more"
        hint = "images, another length of training (--epochs) or another --network"
        return Answer(f"{text} {hint} may tell", decided=False)
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
