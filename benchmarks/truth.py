"""The truth of a search: every schedule of a small network, trained from scratch.

    python -m benchmarks.truth --out truth.npz --seconds 520 --width 126

On a GPU, from the root of a clone, eqjax need not be installed. First measure which
width and form of the convolutions are the fastest there, then train with them:

    python -m benchmarks.truth --pilot --seconds 90
    python -m benchmarks.truth --out truth.npz --seconds 520 --width 126 --form direct

Six groups, one of each family of subgroups of D4, make 126 schedules of five layers
that do not grow with depth. Each is a network of four convolutions and an invariant
head on the embedded digits at 14 x 14 pixels, trained for 4 passes in batches of 32 by
Adam, its rate annealed from 0.005. On each task, networks of a seed start from the same
key and see the same batches. After every pass, errors and losses on validation and test
images are kept: an array (tasks, seeds, schedules, passes), not a number where nothing
was trained. The file is written after every task and seed; started again, the program
goes on with those that the file does not have.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import eqjax as eq
from eqjax.ops.convolution import FORMS
from eqjax.training.batches import batches
from eqjax.training.state import count_parameters
from eqjax_experiments.data import digits
from eqjax_experiments.data.schedules import METRICS
from eqjax_experiments.data.splits import Dataset
from eqjax_experiments.engine.optimizers import optimizer

SIZE, BATCH, RATE, PASSES, SEEDS, LAYERS = 14, 32, 0.005, 4, 3, 5
NETWORK: dict[str, Any] = {
    "features": (2, 4, 4, 8),
    "kernel_size": 5,
    "pool_after": (1, 2),
    "head_features": 32,
}
STEPS_PER_CALL = 50
EVALUATED = 500  # images at once
INPUTS = jax.ShapeDtypeStruct((BATCH, SIZE, SIZE, 1), np.float32)


@dataclasses.dataclass(frozen=True)
class FormedStrategy(eq.Strategy):
    """A strategy whose convolutions have a given form.

    Attributes:
      chosen: the form, as `eqjax.ops.prefer` takes it; the usual one if empty.
    """

    chosen: str = ""

    @property
    def form(self) -> str:
        """The form of convolutions."""
        return self.chosen or super().form


def six_groups() -> tuple[eq.Group, ...]:
    """Return a subgroup of D4 of every family, the largest first."""
    D4 = eq.dihedral(4)
    families = dict.fromkeys(group.family for group in D4.subgroups)
    return tuple(D4.subgroup(family, 0) for family in families)


def network(architecture: eq.Architecture) -> eq.EquivariantCNN:
    """Return the network of a schedule."""
    return eq.exact(architecture, **NETWORK)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is trained, and for how long.

    Attributes:
      schedules: of groups.
      passes: over the training images.
      steps: of one pass.
      images: of every split that are evaluated; all if None.
    """

    schedules: tuple[eq.Architecture, ...]
    passes: int
    steps: int
    images: int | None = None

    @classmethod
    def make(cls, *, quick: bool) -> Plan:
        """Return the whole plan, or a little of it."""
        every = tuple(eq.enumerate_architectures(six_groups(), LAYERS))
        if quick:
            return cls(every[::32], passes=2, steps=4, images=100)
        return cls(every, PASSES, digits.TRAIN // BATCH)

    @property
    def models(self) -> list[eq.EquivariantCNN]:
        """The network of every schedule."""
        return [network(schedule) for schedule in self.schedules]

    def population(self, width: int, form: str) -> eq.Population:
        """Return the programs that train stacks of the networks."""
        annealed = optimizer("adam", RATE, (self.passes * self.steps,))
        per_call = min(self.steps, STEPS_PER_CALL)
        strategy = FormedStrategy(width, per_call, chosen=form)
        return eq.Population(self.models[0], annealed, INPUTS, strategy)


class Truth:
    """The arrays of the file, filled stack by stack.

    Attributes:
      path: of the file; what it holds is read, if it is there.
      arrays: by name.
    """

    def __init__(self, path: Path, plan: Plan) -> None:
        shape = (len(digits.VARIANTS), SEEDS, len(plan.schedules), plan.passes)
        described = {
            "tasks": np.array(digits.VARIANTS),
            "seeds": np.arange(SEEDS),
            "schedules": np.array([schedule.names for schedule in plan.schedules]),
            "steps": np.arange(1, plan.passes + 1) * plan.steps,
        }
        empty = {name: np.full(shape, np.nan, np.float32) for name in METRICS}
        self.path, self.arrays = path, {**described, **empty}
        if not path.exists():
            self.arrays["parameters"] = np.array(list(map(parameters, plan.models)))
            return
        with np.load(path, allow_pickle=False) as found:
            for name, expected in described.items():
                if not np.array_equal(found[name], expected):
                    raise ValueError(
                        f"{path} holds other {name} than are trained here; choose "
                        "another --out, or the same --quick"
                    )
            self.arrays = dict(found)

    def has(self, task: str, seed: int) -> bool:
        """Tell whether a task and seed are trained."""
        return not np.isnan(self._row(METRICS[0], task, seed)).all()

    def put(self, task: str, seed: int, found: dict[str, np.ndarray]) -> None:
        """Add the metrics (schedules, passes) of a task and seed; write the file."""
        for name, values in found.items():
            self._row(name, task, seed)[:] = values
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part.npz")
        np.savez_compressed(part, **self.arrays)  # type: ignore[arg-type]
        part.replace(self.path)

    def _row(self, name: str, task: str, seed: int) -> np.ndarray:
        return self.arrays[name][digits.VARIANTS.index(task), seed]


def parameters(model: eq.EquivariantCNN) -> int:
    """Return how many parameters a network has."""
    x = jax.ShapeDtypeStruct((1, *INPUTS.shape[1:]), np.float32)
    return count_parameters(jax.eval_shape(model.init, jax.random.key(0), x)["params"])


def same_keys(seed: int, count: int) -> jax.Array:
    """Return the key of a seed, many times."""
    return jax.numpy.stack([jax.random.key(seed)] * count)


class Trainer:
    """Trains all schedules on a task with a seed.

    Attributes:
      plan: what is trained.
      population: the programs.
      left: seconds that are left, asked for after every pass.
    """

    def __init__(
        self, plan: Plan, population: eq.Population, left: Callable[[], float]
    ) -> None:
        self.plan, self.population, self.left = plan, population, left
        self._initial: dict[tuple[int, int], Any] = {}

    def train(
        self, dataset: Dataset, seed: int
    ) -> tuple[dict[str, np.ndarray], float] | None:
        """Return the metrics (schedules, passes), and the seconds of all steps.

        None if the time is over before the end.
        """
        models, parts, seconds = self.plan.models, [], 0.0
        for part in self.population.split(len(models)):
            stack = self._untrained(models[part], seed, part.start)
            members, passes = len(models[part]), []
            for drawn in self._passes(dataset, seed):
                begin = time.perf_counter()
                stack, _ = self.population.train(stack, drawn)
                jax.block_until_ready(stack.step)
                seconds += time.perf_counter() - begin
                passes.append([m[:members] for m in self._measure(stack, dataset)])
                if self.left() < 0:
                    return None
            parts.append(np.array(passes))  # (passes, metrics, members)
        table = np.concatenate(parts, axis=2)
        found = {name: table[:, i].T for i, name in enumerate(METRICS)}
        return found, seconds

    def _untrained(
        self, models: Sequence[eq.EquivariantCNN], seed: int, start: int
    ) -> Any:
        """Return the stack of a seed, drawn once for all tasks."""
        if (seed, start) not in self._initial:
            keys = same_keys(seed, len(models))
            drawn = self.population.init(keys, models)
            self._initial[seed, start] = jax.device_get(drawn)
        return jax.device_put(self._initial[seed, start])

    def _passes(self, dataset: Dataset, seed: int) -> Iterator[list]:
        plan = self.plan
        rng = np.random.default_rng([seed, 0])
        drawn = batches(dataset.train, BATCH, plan.passes * plan.steps, rng)
        for _ in range(plan.passes):
            yield list(itertools.islice(drawn, plan.steps))

    def _measure(self, stack: Any, dataset: Dataset) -> list[Any]:
        found = []
        for split in (dataset.validation, dataset.test):
            x, y = (a[: self.plan.images] for a in split)
            metrics = self.population.evaluate(stack, x, y, min(EVALUATED, len(y)))
            found += [metrics.error, metrics.loss]
        return found


def pilot(plan: Plan, widths: Sequence[int], left: Callable[[], float]) -> None:
    """Print the time of steps by width and form of the convolutions."""
    dataset = digits.load("upright", size=SIZE)
    print("width  form        s/step  s/1000 steps of all  s to compile", flush=True)
    for width, form in itertools.product(widths, ("winograd", "direct", "auto")):
        if form == "auto" and jax.default_backend() != "cpu":
            print(f"{width:5}  auto      the same program as direct")
            continue
        if left() < 0:
            print("the time is over")
            return
        population = plan.population(width, form)
        models, per_call = plan.models[:width], min(plan.steps, STEPS_PER_CALL)
        stack = population.init(same_keys(0, len(models)), models)
        seconds = []
        for steps in (per_call, 2 * per_call):  # the first call compiles
            rng = np.random.default_rng(0)
            drawn = list(batches(dataset.train, BATCH, steps, rng))
            begin = time.perf_counter()
            stack, _ = population.train(stack, drawn)
            jax.block_until_ready(stack.step)
            seconds.append(time.perf_counter() - begin)
        compiling, step = seconds[0] - seconds[1] / 2, seconds[1] / 2 / per_call
        everyone = 1000 * step * -(-len(plan.schedules) // width)
        print(
            f"{width:5}  {form:9} {step:8.5f}  {everyone:19.1f}  {compiling:12.1f}",
            flush=True,
        )


def train_all(options: argparse.Namespace, plan: Plan, left: Callable) -> None:
    """Train what the file does not have, for as long as there is time."""
    truth = Truth(options.out, plan)
    population = plan.population(options.width, options.form)
    trainer = Trainer(plan, population, left)
    needed = 0.0
    for seed, task in itertools.product(options.seeds, options.tasks):
        if truth.has(task, seed):
            print(f"{task}, seed {seed}: there already", flush=True)
            continue
        if left() < needed:
            break
        begin = time.perf_counter()
        trained = trainer.train(digits.load(task, size=SIZE), seed)
        if trained is None:
            break
        found, seconds = trained
        truth.put(task, seed, found)
        needed = time.perf_counter() - begin
        best = np.nanmin(found["test_error"][:, -1])
        print(
            f"{task}, seed {seed}: {seconds / plan.passes / plan.steps:.5f} s per step "
            f"of all, {needed:.1f} s, best test error {best:.4f}",
            flush=True,
        )
    wanted = list(itertools.product(options.tasks, options.seeds))
    done = sum(truth.has(*each) for each in wanted)
    device = jax.devices()[0].device_kind
    print(json.dumps({"device": device, "stacks": done, "of": len(wanted)}))


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    numbers = range(SEEDS)
    add = parser.add_argument
    add("--quick", action="store_true", help="a few schedules and steps")
    add("--pilot", action="store_true", help="time widths and forms, train nothing")
    add("--tasks", nargs="+", choices=digits.VARIANTS, default=digits.VARIANTS)
    add("--seeds", nargs="+", type=int, choices=numbers, default=numbers)
    add("--width", type=int, default=126, help="networks at a time")
    add("--form", choices=FORMS, default="", help="of the convolutions")
    add("--seconds", type=float, default=float("inf"), help="stop after so many")
    add("--out", type=Path, help="the file, .npz")
    options = parser.parse_args()
    if options.out is None and not options.pilot:
        parser.error("--out FILE.npz is needed, where to write what is found")
    return options


def main() -> None:
    """Time programs, or train and write."""
    end = time.perf_counter()
    options = arguments()
    end += options.seconds
    plan = Plan.make(quick=options.quick)

    def left() -> float:
        return end - time.perf_counter()

    if options.pilot:
        pilot(plan, (2, 4) if options.quick else (126, 42, 21), left)
    else:
        train_all(options, plan, left)


if __name__ == "__main__":
    main()
