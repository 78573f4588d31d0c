"""Networks to test and to compare: probes of five lengths, and all that could follow.

    python -m benchmarks.probes --out FILE.npz [--quick] [--seconds S] [--seeds 0 1]

For each variant of the embedded digits and every seed: the small network of the
commands with D4 in all layers, trained for 125, 250, 375, 500 and 1,000 steps by the
annealed Adam of `experiments.guide`; and, for 1,000 steps, networks with each subgroup
of D4 in all layers and in the late half alone: whatever a test names, the network that
EquiNAS_S would then train, and those that one would pick by hand, are among them. Seeds
of weights and batches are those of the commands. Networks of one task and seed are
trained as one population. The file is written after every task and seed; started again,
the program goes on. On one H100 all takes some minutes; `benchmarks.guided` and
`benchmarks.power` read the file.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

import eqjax as eq
from eqjax.search import guided_schedule
from eqjax.training.batches import batches
from eqjax.training.state import TrainState, count_parameters
from eqjax_experiments.data import digits
from eqjax_experiments.data.splits import Dataset
from eqjax_experiments.engine.optimizers import optimizer
from eqjax_experiments.engine.trial import piece_lengths

D4 = eq.dihedral(4)
BATCH, RATE, LAYERS, SEEDS = 32, 0.005, 5, 5
NETWORK = {
    "features": (2, 4, 4, 8),
    "kernel_size": 5,
    "pool_after": (1, 2, 3),
    "head_features": 32,
}
PER_PASS = digits.TRAIN // BATCH
LENGTHS, FINAL = (125, 250, 375, 500, 1000), 1000
INPUTS = jax.ShapeDtypeStruct((BATCH, 28, 28, 1), np.float32)


def network(architecture: eq.Architecture) -> eq.EquivariantCNN:
    """Return the network of the commands with these groups."""
    return eq.exact(architecture, **NETWORK)  # type: ignore[arg-type]


def probe_network() -> eq.EquivariantCNN:
    """Return the network with D4 everywhere."""
    return network(eq.Architecture.uniform(D4, LAYERS))


def finals() -> dict[str, eq.Architecture]:
    """Return the networks that are compared, by the names of their groups."""
    probe = eq.Architecture.uniform(D4, LAYERS)
    uniform = [eq.Architecture.uniform(H, LAYERS) for H in D4.subgroups]
    late = [guided_schedule(probe, H) for H in D4.subgroups]
    return {str(a): a for a in (*uniform, *late)}


def ordered_batches(dataset: Dataset, seed: int, steps: int) -> Iterator[list]:
    """Yield the batches of every pass, in the order of the commands."""
    for number, length in enumerate(piece_lengths(steps, PER_PASS)):
        rng = np.random.default_rng([seed, number])
        yield list(batches(dataset.train, BATCH, length, rng))


def population(steps: int, width: int) -> eq.Population:
    """Return the programs that train some networks for some steps."""
    annealed = optimizer("adam", RATE, (steps,))
    on_cpu = jax.default_backend() == "cpu"
    strategy = eq.Strategy(1 if on_cpu else width, 8 if on_cpu else 25)
    return eq.Population(probe_network(), annealed, INPUTS, strategy)


def trained(
    programs: eq.Population,
    models: Sequence[eq.EquivariantCNN],
    dataset: Dataset,
    seed: int,
    steps: int,
) -> Iterator[tuple[Any, list[TrainState]]]:
    """Yield the trained stacks, with their members."""
    for part in programs.split(len(models)):
        key = jax.random.fold_in(jax.random.key(seed), 0)
        keys = jax.numpy.stack([key] * len(models[part]))
        stack = programs.init(keys, models[part])
        for drawn in ordered_batches(dataset, seed, steps):
            stack, _ = programs.train(stack, drawn)
        yield stack, programs.unload(stack, models[part])


def flat(state: TrainState) -> dict[str, np.ndarray]:
    """Return the variables of a network as arrays by their paths."""
    return {
        "/".join(p): np.asarray(a) for p, a in flatten_dict(state.variables).items()
    }


def variables_of(file: Any, task: str, seed: int, steps: int) -> dict[str, Any]:
    """Return the variables of a probe, from the file of this program."""
    start = f"{task}/{seed}/probe/{steps}/"
    own = {
        tuple(name[len(start) :].split("/")): file[name]
        for name in file.files
        if name.startswith(start)
    }
    if not own:
        raise ValueError(f"the file holds no probe {start}")
    return unflatten_dict(own)


def one(task: str, seed: int, lengths: Sequence[int], final: int) -> dict[str, Any]:
    """Return all arrays of a task and seed."""
    dataset = digits.load(task)
    found: dict[str, Any] = {}
    for steps in lengths:
        programs = population(steps, 1)
        ((stack, (member,)),) = trained(
            programs, [probe_network()], dataset, seed, steps
        )
        error = float(
            np.asarray(programs.evaluate(stack, *dataset.validation).error)[0]
        )
        found[f"{task}/{seed}/error/{steps}"] = np.float32(error)
        for name, array in flat(member).items():
            found[f"{task}/{seed}/probe/{steps}/{name}"] = array
    architectures = finals()
    models = [network(a) for a in architectures.values()]
    programs = population(final, len(models))
    rows: list[list[float]] = []
    for stack, members in trained(programs, models, dataset, seed, final):
        measured = [
            programs.evaluate(stack, *split)
            for split in (dataset.validation, dataset.test)
        ]
        for i, member in enumerate(members):
            errors = [float(np.asarray(m.error)[i]) for m in measured]
            rows.append([*errors, count_parameters(member.params)])
    found[f"{task}/{seed}/finals"] = np.array(rows)
    return found


def main() -> None:
    """Train what the file does not have, for as long as there is time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="a few steps")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seeds", nargs="+", type=int, default=range(SEEDS))
    options = parser.parse_args()
    end = time.perf_counter() + options.seconds
    arrays: dict[str, Any] = {"finals": np.array(list(finals()))}
    if options.out.exists():
        with np.load(options.out, allow_pickle=False) as file:
            arrays = dict(file)
    needed, done = 0.0, 0
    for seed, task in itertools.product(options.seeds, digits.VARIANTS):
        begin = time.perf_counter()
        if f"{task}/{seed}/finals" not in arrays:
            if begin + needed > end:
                break
            lengths, final = ((8,), 8) if options.quick else (LENGTHS, FINAL)
            arrays |= one(task, seed, lengths, final)
            part = options.out.with_suffix(".part.npz")
            np.savez_compressed(part, **arrays)
            part.replace(options.out)
            needed = time.perf_counter() - begin
            print(f"{task}, seed {seed}: {needed:.1f} s", flush=True)
        done += 1
    device = jax.devices()[0].device_kind
    print(json.dumps({"device": device, "done": done}))


if __name__ == "__main__":
    main()
