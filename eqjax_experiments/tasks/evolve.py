"""Evolve which symmetry each layer of a network has."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import jax
import numpy as np
import tyro
from rich.console import Console

import eqjax as eq
from eqjax.population.devices import fetch
from eqjax.search import (
    PARSIMONY,
    POLICIES,
    SEARCHES,
    SELECTIONS,
    Checkpoint,
    SearchLoop,
    Verdict,
    best_of_history,
    pareto_front,
    selecting_samples,
    verdict,
)
from eqjax.training import Metrics
from eqjax_experiments.data.splits import Dataset
from eqjax_experiments.engine import experiment
from eqjax_experiments.engine.records import record_all, resume_records
from eqjax_experiments.engine.trial import by_class
from eqjax_experiments.reports.printing import progress, summary
from eqjax_experiments.runs import files, networks, search_checkpoints
from eqjax_experiments.tasks.task import CHILD, FIRST, Length, MethodTask

LOSSES = "losses"  # a folder: an array per generation, where images are compared
SHOWN_STEPS = 250  # of the first training, between two lines on it

if TYPE_CHECKING:
    SearchName = SelectionName = PolicyName = ParsimonyName = str
else:
    SearchName = tyro.extras.literal_type_from_choices(tuple(SEARCHES))
    SelectionName = tyro.extras.literal_type_from_choices(tuple(SELECTIONS))
    PolicyName = tyro.extras.literal_type_from_choices(tuple(POLICIES))
    ParsimonyName = tyro.extras.literal_type_from_choices(("none", *PARSIMONY))


@dataclasses.dataclass(frozen=True)
class EvolutionTask(MethodTask):
    """Evolve which symmetry each layer of a network has."""

    COMMAND: ClassVar[str] = "evolve"
    USUAL: ClassVar[dict[str, Length]] = {"first_epochs": FIRST, "epochs": CHILD}

    search: SearchName = "EquiNAS_E"
    """How architectures are proposed, and which of them survive."""
    groups: tuple[str, ...] | None = None
    """Subgroups that layers may have; the search starts from the largest. One subgroup
    of the ambient group of every kind if not given."""
    generations: int = 4
    """Generations after the first training."""
    population_size: Annotated[int, tyro.conf.arg(aliases=["--population"])] = 4
    """Members kept after every generation."""
    children: int = 3
    """Children per member and generation, the unchanged copy among them."""
    selection: SelectionName = "pareto"
    """Which children survive; random is the control. Of aging, the answer is the best
    child of its history, which --retrain trains."""
    parsimony: ParsimonyName = "none"
    """Whether a relaxed child survives beside one with more symmetry only if its losses
    are lower by more than one standard error, image by image."""
    rescore: bool = False
    """Half of the validation images, drawn anew for every generation, select; the other
    half score the members that survive."""
    proposals: PolicyName | None = None
    """Which children a member has; as the search itself has it if not given."""
    first_epochs: float | None = None
    """Passes over the training images before the first generation; 2 if not given, and
    at least 500 steps."""
    epochs: float | None = None
    """Passes over the training images per child; half of one if not given, and at least
    125 steps."""
    moments: Literal["carried", "restarted"] = "carried"
    """What the optimizer keeps of a layer is carried when it is relaxed, or starts at
    zero."""
    retrain: bool = False
    """Control: train the best architecture from scratch, for as many steps."""

    def __post_init__(self) -> None:
        """Reject values that no search can run with."""
        super().__post_init__()
        self.check_whole("population_size", "children")
        self.check_positive("epochs", "first_epochs")
        if self.generations < 0:
            raise ValueError("--generations must be at least 0")

    @property
    def passes(self) -> float:
        """Passes over the training images of all children together, at most."""
        first = FIRST.passes if self.first_epochs is None else self.first_epochs
        epochs = CHILD.passes if self.epochs is None else self.epochs
        children = self.generations * self.population_size * self.children
        alone = first + self.generations * epochs
        return first + children * epochs + self.retrain * alone

    def lengths(self, dataset: Dataset) -> list[int]:
        """Return the training steps of a member in every generation."""
        first = self.passes_over(dataset, self.first_epochs, FIRST)
        child = self.passes_over(dataset, self.epochs, CHILD)
        return [
            self.steps(first, dataset),
            *[self.steps(child, dataset)] * self.generations,
        ]

    @property
    def candidates(self) -> tuple[eq.Group, ...]:
        """The groups that layers may have, the one that contains all others first."""
        return self.subgroups(self.families if self.groups is None else self.groups)

    def verdict(self, records: Sequence[dict[str, Any]], dataset: Dataset) -> Verdict:
        """Return what the records of all generations say of the data's symmetry."""
        samples = len(dataset.validation.labels)
        samples = selecting_samples(samples) if self.rescore else samples
        return verdict(records, self.ambient_group, self.candidates, samples)

    @property
    def first_architecture(self) -> eq.Architecture:
        """The most symmetric architecture, where the search starts."""
        return eq.Architecture.uniform(self.candidates[0], self.layers)

    def first_model(self) -> Any:
        """Return the network where the search starts."""
        return self.model(self.first_architecture)

    def run(self, folder: Path, console: Console) -> list[dict[str, Any]]:
        """Search, or continue to, in a folder; return the rows of the report."""
        result = evolve(self, self.load(), folder, console, jax.devices()[:1])
        if not result["front"]:
            return [{"reading": "diverged", "groups": [], "test_error": None}]
        return result["readings"] + retrain(self, result, folder, console)


def make_loop(
    task: EvolutionTask,
    dataset: Dataset,
    devices: Sequence[jax.Device] | None = None,
    data_devices: int = 1,
) -> SearchLoop:
    """Return the search that a task describes, on these devices."""
    lengths = task.lengths(dataset)
    model = task.first_model()
    optimizer = task.weight_optimizer(*lengths)
    inputs = task.inputs(dataset)
    strategy = eq.choose_strategy(
        model,
        optimizer,
        inputs,
        members=task.population_size * task.children,
        devices=devices,
        data=data_devices,
    )
    search = SEARCHES[task.search](
        population_size=task.population_size,
        select=SELECTIONS[task.selection],
        candidates=task.candidates,
        children=task.children,
        parsimony=None if task.parsimony == "none" else PARSIMONY[task.parsimony],
    )
    if task.proposals is not None:
        search = dataclasses.replace(search, propose=POLICIES[task.proposals])
    return SearchLoop(
        search=search,
        make_model=task.model,
        population=eq.Population(
            model,
            optimizer,
            inputs,
            strategy,
            restart=task.moments == "restarted",
        ),
        train=dataset.train,
        validation=dataset.validation,
        first_steps=lengths[0],
        steps=lengths[-1],
        seed=task.seed,
        rescore=task.rescore,
    )


def evolve(
    task: EvolutionTask,
    dataset: Dataset,
    folder: Path,
    console: Console,
    devices: Sequence[jax.Device] | None = None,
    data_devices: int = 1,
) -> dict[str, Any]:
    """Run, or continue, the search of a folder and return its result."""
    result = folder / files.RESULT
    if result.exists():
        return files.read_record(result)
    loop = make_loop(task, dataset, devices, data_devices)
    saved = folder / files.CHECKPOINT
    if saved.exists():
        point = search_checkpoints.load_checkpoint(
            saved, task.ambient_group, loop.template
        )
        done = f"going on after generation {point.state.generation - 1}"
    else:
        point = loop.start(task.first_architecture)
        done = f"{loop.first_steps} steps first"
    console.print(
        f"training {loop.population.strategy}: {done}, then {loop.steps} steps per "
        "child; compiling"
    )
    records = resume_records(folder, point.state.generation)
    if len(records) < point.state.generation:  # the verdict is told by all of them
        raise files.DamagedFileError(
            folder / files.METRICS,
            f"it has {len(records)} of {point.state.generation} generations",
        )
    with progress(console, "children") as shown:
        bar = shown.add_task("", total=None)

        def generations(point: Checkpoint) -> Iterator[tuple[Checkpoint, dict]]:
            while point.state.generation <= task.generations:
                label = f"generation {point.state.generation}/{task.generations}"

                def show(done: int, total: int, label: str = label) -> None:
                    shown.update(bar, completed=done, total=total, description=label)

                follow = first_numbers if point.state.generation == 0 else None
                point, record = loop.generation(point, show, follow)
                if (losses := record.pop("losses", None)) is not None:
                    write_losses(folder, record["generation"], losses)
                yield point, record

        def first_numbers(steps: int, metrics: Metrics) -> None:
            if steps % SHOWN_STEPS <= loop.population.strategy.steps_per_call:
                error = 100 * float(np.mean(fetch(metrics.error)))
                console.print(
                    f"step {steps}/{loop.first_steps}: training error {error:.0f} %"
                )

        def report(point: Checkpoint, record: dict, seconds: float) -> None:
            records.append(record)
            label = f"generation {record['generation']}/{task.generations}"
            console.print(f"{label}: {summary(point, record)} ({seconds:.0f} s)")

        def save(point: Checkpoint) -> None:
            search_checkpoints.save_checkpoint(saved, point)

        produced = generations(point)
        point = record_all(
            point, produced, folder, key="generation", save=save, report=report
        )
    front = test_front(loop, point, dataset)
    draw(task, records, front, folder)
    for number, (row, i) in enumerate(
        zip(front, pareto_front(point.state.scores), strict=True), 1
    ):
        networks.save(
            networks.inside(folder) / f"member-{number}",
            task.model(point.state.architectures[i]),
            point.members[i].variables,
            dataset,
            task.inputs(dataset),
            **row,
        )
    best = [best_of(front, sum(task.lengths(dataset)))] if front else []
    if best:
        number = pareto_front(point.state.scores)[front.index(least_error(front))]
        model = task.model(point.state.architectures[number])
        best[0] |= by_class(model, point.members[number].variables, dataset)
    named = task.verdict(records, dataset)
    found = {
        "front": front,
        "verdict": {
            "group": None if named.group is None else named.group.name,
            "reason": named.reason,
        },
        "diverged": point.state.diverged,
        "readings": best,
    }
    if task.selection == "aging":
        found["history_best"] = best_of_history(records)
    files.write_record(result, found)
    return found


def write_losses(folder: Path, generation: int, losses: np.ndarray) -> None:
    """Write the losses of a generation, (children, validation images)."""
    (folder / LOSSES).mkdir(exist_ok=True)
    buffer = io.BytesIO()
    np.save(buffer, losses)
    name = f"generation-{generation}.npy"
    files.write_atomically(folder / LOSSES / name, buffer.getvalue())


def draw(
    task: EvolutionTask,
    records: Sequence[dict[str, Any]],
    front: Sequence[dict[str, Any]],
    folder: Path,
) -> None:
    """Write the picture of a search into its folder."""
    from eqjax_experiments.reports import (
        pictures,
    )  # slow to import, and needed at the end

    names = [
        name.replace("conv", "layer ").replace("stage", "stage ")
        for name in task.first_model().layer_names
    ]
    figure = pictures.search_figure(records, front, names, task.ambient_group)
    pictures.save(figure, folder / "search.png")


def least_error(front: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the member with the least validation error."""
    return min(front, key=lambda member: member["validation_error"])


def best_of(front: Sequence[dict[str, Any]], steps: int) -> dict[str, Any]:
    """Return the member with the least validation error as a row of the report."""
    best = least_error(front)
    return {
        "reading": "best of front",
        "groups": best["groups"],
        "validation_error": best["validation_error"],
        "test_error": best["test_error"],
        "training_parameters": best["parameters"],
        "test_parameters": best["parameters"],
        "steps": steps,
    }


def retrain(
    task: EvolutionTask, result: dict[str, Any], folder: Path, console: Console
) -> list[dict[str, Any]]:
    """Train the best architecture from scratch, for the steps that led to it."""
    if not (task.retrain and result["readings"]):
        return []
    dataset = task.load()
    (best,) = result["readings"]
    best = {**best, **(result.get("history_best") or {})}
    follow = experiment.retraining(
        task,
        task.model(eq.Architecture.parse(task.ambient_group, best["groups"])),
        task.weight_optimizer(best["steps"]),
        best["steps"],
    )
    return experiment.run(follow, dataset, folder / follow.name, console)


def test_front(
    loop: SearchLoop, point: Checkpoint, dataset: Dataset
) -> list[dict[str, Any]]:
    """Evaluate the Pareto front of the last generation once on the test images."""
    state = point.state
    front = pareto_front(state.scores)
    measured = loop.evaluate(point, front, dataset.test)
    return [
        {
            "groups": list(state.architectures[i].names),
            "parameters": state.scores[i].parameters,
            "validation_error": state.scores[i].error,
            "test_error": float(metrics.error),
        }
        for i, metrics in zip(front, measured, strict=True)
    ]
