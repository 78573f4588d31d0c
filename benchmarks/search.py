"""A whole search on stacks against the same search with static, recompiled layers.

    python -m benchmarks.search [--quick] [--json FILE]

EquiNAS_E on digits rotated by any angle with the network of `make search`: 8
generations after the first training, 10 members, 2 children each (with --quick 3
generations of 2 members, trained for less). The baseline trains one child after
another, with static groups, and compiles a training step and an evaluation for every
new architecture; with
`jax.lax` convolutions, which compile in a third of the time and make it the faster
baseline of the two.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import jax

import eqjax as eq
from benchmarks.report import arguments, finish
from eqjax import training
from eqjax.analysis import count_compilations
from eqjax.ops import prefer
from eqjax.search import Checkpoint, Proposal, SearchLoop
from eqjax.search.loop import row
from eqjax.training import TrainState
from eqjax_experiments.tasks.evolve import EvolutionTask, make_loop


class Recompiling(SearchLoop):
    """The search with static groups: a program for every architecture."""

    def _train_children(
        self, before: Checkpoint, proposals: Sequence[Proposal], on_call: Any
    ) -> tuple[list[TrainState], list[dict]]:
        del on_call
        members, rows = [], []
        for proposal in proposals:
            parent = before.state.architectures[proposal.parent]
            model = self.make_model(proposal.architecture)
            state = before.members[proposal.parent]
            if proposal.architecture != parent:
                sides: dict[str, Any] = {
                    "source": self.make_model(parent),
                    "target": model,
                }
                x = self.population.inputs
                variables, _ = eq.morph(state.variables, **sides, inputs=x)
                moments = eq.morph_optimizer(state.opt_state, **sides, inputs=x)
                state = training.pack_state(variables, moments, state.step)
            state, fitted = training.train(
                state,
                self.batches(before.state),
                model=model,
                optimizer=self.population.optimizer,
            )
            measured = training.evaluate(state.variables, *self.validation, model=model)
            members.append(state)
            rows.append(row(proposal, state, fitted, measured))
        return members, rows


def run(search: SearchLoop, config: EvolutionTask) -> tuple[float, list[int], int]:
    """Return seconds, compilations per generation, and how many children there were."""
    begin = time.perf_counter()
    point, compilations, children = None, [], 0
    for _ in range(config.generations + 1):
        with count_compilations() as compiled:
            point = point or search.start(config.first_architecture)
            point, record = search.generation(point, lambda done, total: None)
        compilations.append(compiled.count)
        children += len(record["children"])
    return time.perf_counter() - begin, compilations, children


def main() -> None:
    """Run both searches and report."""
    options = arguments(__doc__)
    config = EvolutionTask(generations=8, population_size=10, children=2)
    if options.quick:
        config = dataclasses.replace(
            config, generations=3, population_size=2, first_epochs=0.1, epochs=0.1
        )
    data = config.load()
    ours = make_loop(config, data)
    fields = {f.name: getattr(ours, f.name) for f in dataclasses.fields(SearchLoop)}
    seconds, compilations, children = run(ours, config)
    jax.clear_caches()
    with prefer("direct"):
        baseline, recompilations, others = run(Recompiling(**fields), config)
    rows = {
        "ours (s)": seconds,
        "ours: children": children,
        "ours: programs compiled in the first generation": compilations[0],
        "ours: programs compiled later": sum(compilations[1:]),
        "recompiling (s)": baseline,
        "recompiling: children": others,
        "recompiling: programs compiled": sum(recompilations),
        "ours (s per child)": seconds / children,
        "recompiling (s per child)": baseline / others,
    }
    summary = {
        "ours_over_recompiling": seconds / baseline,
        "ours_over_recompiling_per_child": (seconds / children) / (baseline / others),
        "compilations_after_first_generation": sum(compilations[1:]),
    }
    finish(options, rows, summary)


if __name__ == "__main__":
    main()
