"""Memory of a training on Galaxy10 at 256 x 256, which does not fit into it.

    python -m benchmarks.streaming [--quick] [--json FILE]

Writes a file in the layout of Galaxy10 DECaLS with its 17,736 images, of noise (3.5 GB,
and as much for the cache, in the folder for temporary files), preprocesses it, and
trains the small network for a few steps and one pass over the validation images. The
figures are the largest resident memory of the process, the whole of Python and JAX
included, and the seconds that reading a batch of 32 takes beside those of a step.
"""

from __future__ import annotations

import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

import h5py
import jax
import numpy as np
from rich.progress import track

from benchmarks.report import arguments, finish
from eqjax_experiments.data import galaxy10
from eqjax_experiments.data.catalogue import ROOT_VARIABLE
from eqjax_experiments.engine.trial import fit
from eqjax_experiments.tasks.baseline import BaselineTask

STEPS = 10
BLOCK = 64  # images written at once


def write_galaxies(file: Path, rng: np.random.Generator) -> None:
    """Write noise in the layout of Galaxy10 DECaLS, labels in random order."""
    labels = np.repeat(np.arange(10, dtype=np.uint8), galaxy10.COUNTS)
    rng.shuffle(labels)
    shape = (len(labels), galaxy10.SIDE, galaxy10.SIDE, 3)
    with h5py.File(file, "w") as opened:
        opened["ans"] = labels
        for name in ("ra", "dec", "redshift", "pxscale"):
            opened[name] = np.zeros(len(labels))
        images = opened.create_dataset("images", shape, np.uint8)
        for begin in track(range(0, len(labels), BLOCK), "writing galaxies"):
            count = len(labels[begin : begin + BLOCK])
            images[begin : begin + BLOCK] = rng.integers(
                0, 256, (count, *shape[1:]), np.uint8
            )


def gibibytes() -> float:
    """Return the largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Write, preprocess, train, and measure."""
    options = arguments(__doc__)
    if options.quick:
        galaxy10.COUNTS = tuple(count // 20 for count in galaxy10.COUNTS)
    with tempfile.TemporaryDirectory() as root:
        os.environ[ROOT_VARIABLE] = root
        (Path(root) / "galaxy10").mkdir()
        file = Path(root) / "galaxy10" / galaxy10.FILE
        write_galaxies(file, np.random.default_rng(0))
        rows = {"images (GiB)": file.stat().st_size / 2**30}
        task = BaselineTask(data="galaxy10", image_size=galaxy10.SIDE)
        begin = time.perf_counter()
        dataset = task.load()
        rows["preprocessing (s)"] = time.perf_counter() - begin
        rows["peak memory after preprocessing (GiB)"] = gibibytes()
        trial = task.prepare(dataset).trial
        begin = time.perf_counter()
        ((state, _),) = fit(trial, dataset, task.inputs(dataset), 0, [STEPS])
        jax.block_until_ready(state)
        rows[f"{STEPS} steps and validation, compiling included (s)"] = (
            time.perf_counter() - begin
        )
        rng = np.random.default_rng(1)
        reading = []
        for _ in range(20):
            chosen = rng.integers(0, len(dataset.train.labels), task.batch_size)
            begin = time.perf_counter()
            dataset.train.images[chosen]
            reading.append(time.perf_counter() - begin)
        rows["reading a batch (ms)"] = 1e3 * statistics.median(reading)
        rows["peak memory (GiB)"] = gibibytes()
    finish(options, rows, {"peak_memory_gib": rows["peak memory (GiB)"]})


if __name__ == "__main__":
    main()
