"""Networks of eqjax beside the same of escnn and of plain PyTorch, on the CPU.

    python -m benchmarks.peers [--quick] [--json FILE] [--only wrn resnet ...]

Needs PyTorch and escnn, which eqjax itself does not:

    pip install torch --index-url https://download.pytorch.org/whl/cpu
    pip install --no-deps escnn pymanopt
    pip install joblib scipy autograd cloudpickle

- `4 channels`, `16 channels`: 8 convolutions of 5x5 taps over D4, three poolings, and a
  head of two layers; batch 64, 28x28.
- `wrn`: WRN-16-4 over D4 (`eq.wide_resnet`), 8, 16 and 32 channels per element; batch
  32, 32x32. In all libraries, stages average to halve, as eqjax's do.
- `resnet`: ResNet-18 over D4 for small images, 4 to 32 channels per element; batch 32,
  33x33. Convolutions and 1x1 shortcuts are strided, which odd sizes leave symmetric.
- `volume`: four 3x3x3 convolutions over O, two poolings; batch 8, 16x16x16. PyTorch is
  its only peer: escnn's groups in space need lie_learn.

All have regular fields, batch norms and an invariant head, and the plain ones the same
real width. escnn steers its kernels on circular bases, which are other kernels than
eqjax's, and fewer. PyTorch runs eagerly. With --quick, blocks and batches are smaller.

Measured in turns are a training step with Adam, and a prediction for the same batch by
what `eq.export` and escnn's `.export()` make of the network, its norms kept. Once each:
the seconds of building it with its initial weights, those of compiling eqjax's step,
and the most memory that a step adds to weights and Adam's state, as XLA plans it and as
PyTorch's allocator counts it. What oneDNN takes inside of an operation is in neither.
Libraries keep tables, so that only the first network of a process shows in full what
building takes: choose it by --only.
"""

from __future__ import annotations

import copy
import functools
import importlib
import itertools
import os
import sys
import time
import types
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
import optax

import eqjax as eq
from benchmarks.export import prediction
from benchmarks.report import arguments, finish, seconds_in_turns
from eqjax import training

if TYPE_CHECKING:
    from benchmarks.peer_networks import Case, Plain

Costs = dict[str, float]
QUANTITIES = {
    "eqjax": "step (ms)",
    "inference": "inference (ms)",
    "memory": "memory (MB)",
}


class Programs(NamedTuple):
    """What is timed of a network, and what was measured on the way to it."""

    step: Callable[[], Any]
    predict: Callable[[], Any]
    costs: Costs


def import_peers() -> tuple[Any, Any]:
    """Return torch and escnn.

    escnn imports lie_learn for rotations in space, and lie_learn's builds need NumPy 1.
    The plane does without, so an empty module stands in for it. And it imports
    pymanopt, which switches JAX to 64 bits. PyTorch's threads are made to sleep while
    they wait for each other: those that spin take the cores from all that runs beside
    them, and wait for one another several times as long where the cores are shared.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    needed = "lie_learn.representations.SO3.wigner_d"
    parts = needed.split(".")
    for i in range(1, len(parts) + 1):
        name = ".".join(parts[:i])
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules[needed].__dict__.setdefault("wigner_D_matrix", None)
    with_x64 = jax.config.read("jax_enable_x64")
    peers = importlib.import_module("torch"), importlib.import_module("escnn")
    jax.config.update("jax_enable_x64", with_x64)
    return peers


def batch(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return random images, channels last, and labels."""
    rng = np.random.default_rng(0)
    return rng.normal(size=shape).astype(np.float32), rng.integers(10, size=shape[0])


def of_eqjax(case: Case) -> Programs:
    """Return the programs of a network of eqjax."""
    x, y = batch(case.shape)
    optimizer = optax.adam(1e-3)
    times = [time.perf_counter()]
    state = training.init_state(jax.random.key(0), case.model, optimizer, x)
    times.append(time.perf_counter())
    step = functools.partial(training.train_step, model=case.model, optimizer=optimizer)
    run = jax.jit(step).lower(state, x, y).compile()
    times.append(time.perf_counter())
    memory: Any = run.memory_analysis()
    added = memory.temp_size_in_bytes + memory.output_size_in_bytes
    weights, plain = eq.export(case.model, state.variables, format="linen", inputs=x)
    costs = {
        "build (s)": times[1] - times[0],
        "compile (s)": times[2] - times[1],
        "memory (MB)": added / 1e6,
    }
    predict = prediction(plain, weights, x)
    return Programs(functools.partial(run, state, x, y), predict, costs)


def of_torch(torch: Any, builder: Plain, case: Case) -> Programs:
    """Return the programs of a network of PyTorch."""
    from benchmarks.peer_networks import exported

    images, labels = batch(case.shape)
    x = torch.tensor(np.ascontiguousarray(np.moveaxis(images, -1, 1)))
    y = torch.tensor(labels)
    begin = time.perf_counter()
    network = builder.network(case.model, case.shape[-1])
    built = time.perf_counter() - begin
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)

    def step() -> float:
        loss = torch.nn.functional.cross_entropy(network(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    step()
    plain = exported(copy.deepcopy(network).eval())

    def predict() -> Any:
        with torch.inference_mode():
            return plain(x)

    added = peak_bytes(torch, step)
    return Programs(step, predict, {"build (s)": built, "memory (MB)": added / 1e6})


def peak_bytes(torch: Any, step: Callable[[], Any]) -> int:
    """Return the most that a step has allocated at once."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # no lines of the profiler's own
    with torch.profiler.profile(profile_memory=True) as profile:
        step()
    events = profile.profiler.kineto_results.events()
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    return max(itertools.accumulate(size for _, size in sorted(changes)))


def measured(programs: dict[str, Programs], repeats: int) -> dict[str, Costs]:
    """Return what the programs of each library cost."""
    steps = {library: own.step for library, own in programs.items()}
    predictions = {library: own.predict for library, own in programs.items()}
    steps_taken = seconds_in_turns(steps, repeats)
    predictions_taken = seconds_in_turns(predictions, repeats)
    return {
        library: {
            "step (ms)": 1e3 * steps_taken[library],
            "inference (ms)": 1e3 * predictions_taken[library],
            **own.costs,
        }
        for library, own in programs.items()
    }


def ratios(
    found: dict[str, dict[str, Costs]], quantity: str, peer: str
) -> dict[str, float]:
    """Return what eqjax takes over a peer, by network."""
    return {
        name: costs["eqjax"][quantity] / costs[peer][quantity]
        for name, costs in found.items()
        if peer in costs
    }


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__, only="*")
    try:
        torch, escnn = import_peers()
    except ImportError as error:
        sys.exit(f"{error}; install the peers as follows\n{__doc__}")
    from benchmarks.peer_networks import cases

    torch.set_num_threads(os.cpu_count())
    found: dict[str, dict[str, Costs]] = {}
    for name, case in cases(quick=options.quick).items():
        if any(fnmatchcase(name, pattern) for pattern in options.only):
            programs = {"eqjax": of_eqjax(case)}
            for library, builder in case.peers().items():
                programs[library] = of_torch(torch, builder, case)
            found[name] = measured(programs, 3 if options.quick else 9)
    rows = {
        f"{name}: {library}, {quantity}": value
        for name, costs in found.items()
        for library, own in costs.items()
        for quantity, value in own.items()
    }
    summary: dict[str, Any] = {}
    for kind, quantity in QUANTITIES.items():
        for peer in ("escnn", "torch"):
            summary[f"{kind}_over_{peer}"] = ratios(found, quantity, peer)
    versions = {"torch": torch.__version__, "escnn": escnn.__version__}
    finish(options, rows, {**summary, **versions})


if __name__ == "__main__":
    main()
