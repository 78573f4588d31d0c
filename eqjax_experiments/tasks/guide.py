"""Let an exact test of a symmetric network's gradients name the groups: EquiNAS_S."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
from rich.console import Console

import eqjax as eq
from eqjax.analysis.drawing import evidence_figure
from eqjax.groups import standard_group
from eqjax.search import (
    Tightened,
    evident_schedule,
    guided_schedule,
    named_group,
    tighten,
)
from eqjax_experiments.data.splits import Dataset
from eqjax_experiments.engine import experiment
from eqjax_experiments.engine.experiment import Experiment
from eqjax_experiments.engine.trial import TrainingState, Trial, reading, weights_of
from eqjax_experiments.runs import files
from eqjax_experiments.tasks.task import TRAINING, SingleTask

EVIDENCE = "evidence.json"  # of all milestones, in the folder of a run
PICTURE = "evidence.png"
DRAWS = 999


@dataclasses.dataclass(frozen=True)
class GuidedTask(SingleTask):
    """Let an exact test of a symmetric network's gradients name the groups."""

    COMMAND: ClassVar[str] = "guide"

    groups: tuple[str, ...] | None = None
    """Subgroups that may be named, with all that two of them generate; all subgroups if
    not given. The probe has the ambient group in all layers."""
    use: Literal["retrained", "continued"] = "retrained"
    """Train a network of the named groups from scratch, or relax the probe and train it
    on."""
    probe: float = 0.375
    """Length of the probe's training, as a share of --epochs."""
    late: float = 0.5
    """Share of the layers, from the output, that get the named group."""
    criterion: Literal["test", "evidence"] = "test"
    """The late layers get the group that the test names; or each layer the group of the
    most evidence, by Laplace's approximation, of one half of the tested images given
    the other."""
    level: float = 0.01
    """Probability that the test rejects a group which the data have."""
    tested_images: int = 4000
    """Training images that are tested with, at most."""
    milestones: int = 2
    """How often a continued probe is tested, relaxed and tightened."""
    epochs: float | None = None
    """Passes over the training images behind the final network; 4 if not given, and at
    least 1,000 steps."""

    def __post_init__(self) -> None:
        """Reject values that no search can run with."""
        super().__post_init__()
        self.check_positive("epochs")
        self.check_whole("tested_images", "milestones")
        if self.network == "paper":
            raise ValueError(
                "--network paper keeps no group exactly, so that none can be tested; "
                "use --network exact"
            )
        if self.candidates_of(self.ambient_group) == ():
            raise ValueError("--groups needs at least one group")
        for name in ("probe", "late"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"--{name} must be above 0 and at most 1")
        if not 0 < self.level < 1:
            raise ValueError("--level must be between 0 and 1")
        if self.use == "continued" and self.probe * self.milestones >= 1:
            raise ValueError(
                "--probe times --milestones must be below 1, so that steps are left "
                "after the last test"
            )

    @property
    def passes(self) -> float:
        """Passes over the training images, without those of the test."""
        epochs = TRAINING.passes if self.epochs is None else self.epochs
        return epochs * (1 + self.probe * (self.use == "retrained"))

    def candidates_of(self, group: eq.Group) -> tuple[eq.Group, ...] | None:
        """Return the subgroups of a group that may be named; None for all."""
        return self.named_within(self.groups, group)

    def length(self, dataset: Dataset) -> int:
        """Return the steps behind the final network."""
        return self.steps(self.passes_over(dataset, self.epochs), dataset)

    @property
    def probed(self) -> eq.Architecture:
        """The groups of the probe: the ambient group in all layers."""
        return eq.Architecture.uniform(self.ambient_group, self.layers)

    def prepare(self, dataset: Dataset) -> Experiment:
        """Return the training of the probe, and what follows it."""
        return self.plan(dataset, Journal(self.ambient))

    def run(self, folder: Path, console: Console) -> list[dict[str, Any]]:
        """Search, or continue to, in a folder; return the rows of the report."""
        dataset = self.load()
        journal = Journal(self.ambient, folder, console)
        return experiment.run(self.plan(dataset, journal), dataset, folder, console)

    def plan(self, dataset: Dataset, journal: Journal) -> Experiment:
        """Return the whole search, which writes what it finds into a journal."""
        self.inputs(dataset)  # raises where a batch is too large
        steps = self.length(dataset)
        first = max(1, round(self.probe * steps))
        lengths = [first, steps]
        if self.use == "continued":
            lengths = [first] * self.milestones
            lengths.append(steps - sum(lengths))
        return Stages(self, dataset, journal, lengths).experiment(0, self.probed, None)


@dataclasses.dataclass(frozen=True)
class Journal:
    """What the tests of a run found, kept in its folder.

    Attributes:
      ambient: name of the ambient group.
      folder: of the run; nothing is kept if None.
      console: to print on; nothing is printed if None.
    """

    ambient: str
    folder: Path | None = None
    console: Console | None = None

    @property
    def entries(self) -> list[dict[str, Any]]:
        """All that was found so far."""
        file = None if self.folder is None else self.folder / EVIDENCE
        return [] if file is None or not file.exists() else files.read_records(file)

    def keep(self, entry: dict[str, Any]) -> None:
        """Add what was found at a milestone, and draw all of it."""
        if self.folder is None:
            return
        entries = [*self.entries, entry]
        from eqjax_experiments.reports import pictures  # slow to import

        titled = [
            {**each, "title": f"step {each['step']}: p by group, {each['named']} named"}
            for each in entries
        ]
        figure = evidence_figure(titled, standard_group(self.ambient))
        pictures.save(figure, self.folder / PICTURE)
        files.write_records(
            self.folder / EVIDENCE, entries
        )  # last: it says all is done

    def say(self, text: Any) -> None:
        """Print, if there is where to."""
        if self.console is not None:
            self.console.print(str(text), markup=False)


@dataclasses.dataclass(frozen=True)
class Stages:
    """The trainings of a search, one after another.

    Attributes:
      task: whose settings they have.
      dataset: to train, test and validate with.
      journal: of the tests.
      lengths: steps of every stage; each but the last ends with a test.
    """

    task: GuidedTask
    dataset: Dataset
    journal: Journal
    lengths: list[int]

    @property
    def tested(self) -> tuple[Any, Any]:
        """The training images that are tested with, and their labels."""
        images, labels = self.dataset.train
        return images[: self.task.tested_images], labels[: self.task.tested_images]

    def experiment(
        self,
        stage: int,
        groups: eq.Architecture,
        before: tuple[eq.EquivariantCNN, TrainingState] | None,
    ) -> Experiment:
        """Return a stage and all that follow it.

        Args:
          stage: its number.
          groups: of its network.
          before: network and state to go on from; None to train from scratch.
        """
        task, last = self.task, stage == len(self.lengths) - 1
        model = task.model(groups)
        continued = task.use == "continued"
        annealed = sum(self.lengths) if continued else self.lengths[stage]
        trial = Trial(model, task.weight_optimizer(annealed))

        def begin() -> TrainingState:
            source, state = before  # type: ignore[misc]
            return trial.relax(state, source, task.inputs(self.dataset))

        def follow(state: TrainingState) -> Experiment:
            found = self._found(stage, model, state)
            kept = (model, state) if continued else None
            return self.experiment(stage + 1, found, kept)

        def read(variables: Any, dataset: Dataset) -> list[dict[str, Any]]:
            if not last:  # the test images are for the network that is found
                return []
            return [reading(task.use, model, variables, dataset, sum(self.lengths))]

        return Experiment(
            task,
            trial,
            self.lengths[stage],
            read,
            begin=None if before is None else begin,
            follow=None if last else follow,
            name=f"stage-{stage + 1}" if stage else "",
        )

    def _found(
        self, stage: int, model: eq.EquivariantCNN, state: TrainingState
    ) -> eq.Architecture:
        """Return the groups of the next stage, tested now or read from the journal."""
        entries = self.journal.entries
        if stage >= len(entries):
            entry = self._test(stage, model, state)
            self.journal.keep(entry)
        else:
            entry = entries[stage]
        return eq.Architecture.parse(self.task.ambient_group, entry["next"])

    def _test(
        self, stage: int, model: eq.EquivariantCNN, state: TrainingState
    ) -> dict[str, Any]:
        task, dataset = self.task, self.dataset
        variables = weights_of(state).variables
        images, labels = self.tested
        self.journal.say(f"testing with {len(labels)} training images")
        report = eq.symmetry_test(
            variables,
            model=model,
            x=images,
            y=labels,
            key=key_of_test(task.seed, stage),
            level=task.level,
            draws=max(DRAWS, math.ceil(1 / task.level)),
            groups=task.candidates_of(model.symmetry(dataset.image_shape[:-1])),
        )
        self.journal.say(report)
        group, decided = named_group(report)
        if task.criterion == "evidence":
            found, evidence = self._evident(stage, model, variables)
        else:
            found = guided_schedule(model.architecture, group, task.late)
            evidence = {}
        doubt = "" if decided else ", the likeliest of several: undecided"
        self.journal.say(f"named: {group.name}{doubt}")
        tried: tuple[Tightened, ...] = ()
        if stage:
            target, tried = tighten(
                variables,
                model=model,
                larger=task.ambient_group,
                x=dataset.validation.images,
                y=dataset.validation.labels,
            )
            back = {each.layer for each in tried if each.accepted}
            found = eq.Architecture(
                tuple(
                    target.architecture.groups[i] if i in back else H
                    for i, H in enumerate(found.groups)
                )
            )
        self.journal.say(f"groups from here on: {found}")
        return {
            "step": sum(self.lengths[: stage + 1]),
            "groups": list(model.architecture.names),
            "named": group.name,
            "decided": decided,
            "next": list(found.names),
            "tightened": [
                {
                    "layer": model.layer_names[each.layer],
                    "from": each.source.name,
                    "to": each.target.name,
                    "difference": round(each.difference, 6),
                    "standard_error": round(each.standard_error, 6),
                    "accepted": each.accepted,
                }
                for each in tried
            ],
            **evidence,
            **report.numbers(),
        }

    def _evident(
        self, stage: int, model: eq.EquivariantCNN, variables: Any
    ) -> tuple[eq.Architecture, dict[str, Any]]:
        """Return the groups of the most evidence, and the evidence for the journal."""
        task = self.task
        images, labels = self.tested
        rows = eq.laplace_evidence(
            variables,
            model=model,
            x=images,
            y=labels,
            key=key_of_test(task.seed, stage),
            groups=task.candidates_of(task.ambient_group),
        )
        self.journal.say(rows)
        told = {
            "/".join(path): {name: round(value, 4) for name, value in row.items()}
            for path, row in rows.items()
        }
        found = evident_schedule(model.architecture, model.layer_names, rows)
        return found, {"evidence_for_relaxing": told}


def key_of_test(seed: int, stage: int) -> jax.Array:
    """Return the key of a test; 0 and 1 are those of weights and batches."""
    return jax.random.fold_in(jax.random.key(seed), 2 + stage)
