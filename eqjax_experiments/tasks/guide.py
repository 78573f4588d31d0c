"""Let an exact test of one network name the groups: EquiNAS_S."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar, Literal

from rich.console import Console

import eqjax as eq
from eqjax.search import (
    Tightened,
    evident_schedule,
    guided_schedule,
    named_group,
    tighten,
)
from eqjax.training import Split
from eqjax_experiments.data.splits import Dataset
from eqjax_experiments.engine import experiment
from eqjax_experiments.engine.experiment import Experiment
from eqjax_experiments.engine.trial import TrainingState, Trial, reading, weights_of
from eqjax_experiments.tasks.probe import (
    Journal,
    ProbeTask,
    answer,
    key_of_test,
)
from eqjax_experiments.tasks.task import TRAINING


@dataclasses.dataclass(frozen=True)
class GuidedTask(ProbeTask):
    """Let an exact test of one network name the groups."""

    COMMAND: ClassVar[str] = "guide"

    groups: tuple[str, ...] | None = None
    """Subgroups that may be named, with all that two of them generate; all subgroups if
    not given."""
    use: Literal["retrained", "continued"] = "retrained"
    """Train a network of the named groups from scratch, or relax the probe and train it
    on."""
    probe: float = 0.375
    """Length of the probe's training, as a share of --epochs."""
    late: float = 0.5
    """Share of the layers, from the output, that get the named group."""
    criterion: Literal["test", "losses", "evidence"] = "test"
    """The late layers get the group that the test names, by the gradients of a probe
    with the ambient group in all layers; or by the losses of held-out images of a probe
    without symmetry, which also see classes that a reflection exchanges; or each layer
    gets the group of the most evidence, by Laplace's approximation, of one half of the
    tested images given the other."""
    milestones: int = 2
    """How often a continued probe is tested, relaxed and tightened."""
    epochs: float | None = None
    """Passes over the training images behind the final network; 4 if not given, and at
    least 1,000 steps."""

    def __post_init__(self) -> None:
        """Reject values that no search can run with."""
        super().__post_init__()
        self.check_positive("epochs")
        self.check_whole("milestones")
        for name in ("probe", "late"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"--{name} must be above 0 and at most 1")
        if self.use == "continued" and self.by_losses:
            raise ValueError(
                "--use continued relaxes a symmetric probe, and --criterion losses "
                "asks one without symmetry; use --use retrained"
            )
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

    @property
    def by_losses(self) -> bool:
        """Whether held-out losses are tested, and not gradients."""
        return self.criterion == "losses"

    def length(self, dataset: Dataset) -> int:
        """Return the steps behind the final network."""
        return self.steps(self.passes_over(dataset, self.epochs), dataset)

    def prepare(self, dataset: Dataset) -> Experiment:
        """Return the training of the probe, and what follows it."""
        return self.plan(dataset, Journal())

    def run(self, folder: Path, console: Console) -> list[dict[str, Any]]:
        """Search, or continue to, in a folder; return the rows of the report."""
        dataset = self.load()
        journal = Journal(folder, console)
        return experiment.run(self.plan(dataset, journal), dataset, folder, console)

    def plan(self, dataset: Dataset, journal: Journal) -> Experiment:
        """Return the whole search, which writes what it finds into a journal."""
        self.inputs(self.seen(dataset))  # raises where a batch is too large
        steps = self.length(dataset)
        first = max(1, round(self.probe * steps))
        lengths = [first, steps]
        if self.use == "continued":
            lengths = [first] * self.milestones
            lengths.append(steps - sum(lengths))
        return Stages(self, dataset, journal, lengths).experiment(0, self.probed, None)


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
            seen=self.dataset if last else task.seen(self.dataset),
        )

    def _found(
        self, stage: int, model: eq.EquivariantCNN, state: TrainingState
    ) -> eq.Architecture:
        """Return the groups of the next stage, tested now or read from the journal."""
        entries = self.journal.entries
        if stage >= len(entries):
            entry = self._test(stage, model, state)
            self.journal.keep(entry, self.task.ambient_group)
        else:
            entry = entries[stage]
        return eq.Architecture.parse(self.task.ambient_group, entry["next"])

    def _test(
        self, stage: int, model: eq.EquivariantCNN, state: TrainingState
    ) -> dict[str, Any]:
        task, dataset = self.task, self.dataset
        variables = weights_of(state).variables
        samples = task.samples(dataset)
        self.journal.say(f"testing with {len(samples.labels)} images")
        report = task.ask(variables, model, samples, stage)
        self.journal.say(report)
        group, _ = named_group(report)
        told = answer(report)
        if task.criterion == "evidence":
            found, evidence = self._evident(stage, model, variables, samples)
        else:
            whole = eq.Architecture.uniform(task.ambient_group, task.layers)
            before = whole if task.by_losses else model.architecture
            found = guided_schedule(before, group, task.late)
            evidence = {}
        self.journal.say(f"named: {group.name}; {told.text}")
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
            "decided": told.decided,
            "answer": told.text,
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
        self, stage: int, model: eq.EquivariantCNN, variables: Any, samples: Split
    ) -> tuple[eq.Architecture, dict[str, Any]]:
        """Return the groups of the most evidence, and the evidence for the journal."""
        task = self.task
        rows = eq.laplace_evidence(
            variables,
            model=model,
            x=samples.images,
            y=samples.labels,
            key=key_of_test(task.seed, stage),
            groups=task.named_within(task.groups, task.ambient_group),
        )
        self.journal.say(rows)
        told = {
            "/".join(path): {name: round(value, 4) for name, value in row.items()}
            for path, row in rows.items()
        }
        found = evident_schedule(model.architecture, model.layer_names, rows)
        return found, {"evidence_for_relaxing": told}
