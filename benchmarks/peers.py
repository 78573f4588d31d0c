"""A training step of the D4 network in eqjax beside escnn's, on the CPU.

    python -m benchmarks.peers [--quick] [--json FILE]

Needs PyTorch and escnn, which eqjax itself does not:

    pip install torch --index-url https://download.pytorch.org/whl/cpu
    pip install --no-deps escnn pymanopt
    pip install joblib scipy autograd cloudpickle

Same widths, taps, batch (64) and images (28x28): 8 convolutions of 5x5 taps over D4,
regular to regular, each with batch norm and ReLU, three poolings, a pooled head, Adam.
escnn steers its kernels on circular bases, which are other 5x5 kernels, fewer of them.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.report import arguments, finish, seconds_in_turns
from benchmarks.step import BATCH, network, training_step


def import_peers() -> tuple[Any, Any]:
    """Return torch and escnn.

    escnn imports lie_learn for rotations in space, and lie_learn's builds need NumPy 1.
    The plane does without, so an empty module stands in for it.
    """
    needed = "lie_learn.representations.SO3.wigner_d"
    parts = needed.split(".")
    for i in range(1, len(parts) + 1):
        name = ".".join(parts[:i])
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules[needed].__dict__.setdefault("wigner_D_matrix", None)
    return importlib.import_module("torch"), importlib.import_module("escnn")


def escnn_step(torch: Any, channels: int) -> Callable[[], Any]:
    """Return a training step of the same network in escnn."""
    from escnn import gspaces, nn as enn

    space = gspaces.flipRot2dOnR2(4)
    field = enn.FieldType(space, [space.trivial_repr])
    image, layers = field, []
    for layer, n in enumerate((channels,) * 4 + (2 * channels,) * 4):
        wide = enn.FieldType(space, n * [space.regular_repr])
        conv = enn.R2Conv(field, wide, kernel_size=5, padding=2, bias=False)
        layers += [conv, enn.InnerBatchNorm(wide), enn.ReLU(wide)]
        if layer + 1 in (3, 5, 7):
            layers.append(enn.PointwiseAvgPool2D(wide, kernel_size=2, stride=2))
        field = wide
    body = enn.SequentialModule(*layers, enn.GroupPooling(field))
    head = torch.nn.Sequential(
        torch.nn.Linear(2 * channels, 64),
        torch.nn.BatchNorm1d(64),
        torch.nn.ELU(),
        torch.nn.Linear(64, 10),
    )
    weights = [*body.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(weights, lr=1e-3)
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.normal(size=(BATCH, 1, 28, 28)), dtype=torch.float32)
    y = torch.tensor(rng.integers(10, size=BATCH))

    def step() -> float:
        optimizer.zero_grad()
        logits = head(body(enn.GeometricTensor(x, image)).tensor.mean((2, 3)))
        loss = torch.nn.functional.cross_entropy(logits, y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__)
    try:
        torch, escnn = import_peers()
    except ImportError as error:
        sys.exit(f"{error}; install the peers as follows\n{__doc__}")
    rows: dict[str, float] = {}
    ratios: dict[str, float] = {}
    for channels in (4,) if options.quick else (4, 16):
        programs = {
            "eqjax": training_step(network(channels), "auto"),
            "escnn": escnn_step(torch, channels),
        }
        seconds = seconds_in_turns(programs, 5 if options.quick else 9)
        for name, taken in seconds.items():
            rows[f"{channels} channels: {name} (ms)"] = 1e3 * taken
        ratios[f"{channels} channels"] = seconds["eqjax"] / seconds["escnn"]
    versions = {"torch": torch.__version__, "escnn": escnn.__version__}
    finish(options, rows, {"eqjax_over_escnn": ratios, **versions})


if __name__ == "__main__":
    main()
