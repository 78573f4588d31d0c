"""How long a prediction takes: exported, as the model itself, and of a plain network.

    python -m benchmarks.export [--quick] [--json FILE]

The 8-layer D4 network of (4, 8) channels per fiber element, and of (16, 32); 28x28
images, batches of 1 and 16; with --quick the first of each alone. The plain network has
the same real width and Flax's own convolutions and norms, which are also those that an
exported network is made of. `exported_over_plain`: the seconds of the exported network,
norms kept, over those of the plain one, worst case. `folded_over_plain`: with norms
folded into the convolutions. `model_over_plain`: of the model as it is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

import eqjax as eq
from benchmarks.plain import PlainCNN
from benchmarks.report import arguments, finish, seconds_in_turns
from benchmarks.step import network


def prediction(
    model: nn.Module, variables: Mapping[str, Any], x: np.ndarray
) -> Callable[[], Any]:
    """Return a compiled prediction, with the weights given as they would be served."""
    return functools.partial(jax.jit(lambda x: model.apply(variables, x)), x)


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__)
    rows: dict[str, float] = {}
    ratios: dict[str, dict[str, float]] = {"exported": {}, "folded": {}, "model": {}}
    for channels in (4,) if options.quick else (4, 16):
        model = network(channels)
        plain = PlainCNN(tuple(8 * n for n in model.features), of_flax=True)
        for batch in (1,) if options.quick else (1, 16):
            rng = np.random.default_rng(0)
            x = rng.normal(size=(batch, 28, 28, 1)).astype(np.float32)
            programs = {"plain": prediction(plain, plain.init(jax.random.key(0), x), x)}
            variables = jax.jit(model.init)(jax.random.key(0), x)
            for name, fold in (("exported", False), ("folded", True)):
                weights, exported = eq.export(
                    model, variables, format="linen", inputs=x, fold_norms=fold
                )
                programs[name] = prediction(exported, weights, x)
            programs["model"] = prediction(model, variables, x)
            repeats = 15 if batch == 1 else 5
            seconds = seconds_in_turns(programs, repeats)
            case = f"{channels} channels, batch {batch}"
            for name, taken in seconds.items():
                rows[f"{case}: {name} (ms)"] = 1e3 * taken
            for name, found in ratios.items():
                found[case] = seconds[name] / seconds["plain"]
    summary: dict[str, Any] = {}
    for name, found in ratios.items():
        summary[f"{name}_over_plain"] = max(found.values())
        summary[f"{name}_over_plain_by_case"] = found
    finish(options, rows, summary)


if __name__ == "__main__":
    main()
