"""Compare methods over several seeds, at equal training steps per network.

A step of EquiNAS_D takes a gradient for the weights and one for the mixture, and an
evolution trains many networks for every one that it returns. Seconds are those of the
whole method, with compiling, all of its networks, and retraining where there is any.

python -m experiments.compare [--data rotated] [--methods D4 EquiNAS_E] [--seeds 5] ...
"""

from __future__ import annotations

import dataclasses
import difflib
import sys

import tyro
from rich.console import Console

from experiments import methods, runs
from experiments.collect import Piece, collect
from experiments.methods import METHODS
from experiments.summarize import print_table, summarize
from experiments.task import Task


@dataclasses.dataclass(frozen=True)
class Config(Task):
    """Compare methods over several seeds, at equal training steps per network."""

    methods: tuple[str, ...] = tuple(METHODS)
    """Which methods."""
    seeds: int = 5
    """Seeds of each, from --seed on."""
    epochs: float = 4.0
    """Passes over the training images behind every network."""
    reference: str = "D4"
    """Row of the table that all others are tested against."""

    def __post_init__(self) -> None:
        """Reject methods that are none."""
        super().__post_init__()
        self.check_whole("seeds")
        self.check_positive("epochs")
        for method in self.methods:
            if method not in METHODS:
                near = difflib.get_close_matches(method, METHODS, 1, 0)[0]
                raise ValueError(
                    f"--methods knows no {method!r}, nearest: {near!r}; there are "
                    f"{', '.join(METHODS)}"
                )
        if self.reference not in self.methods:
            raise ValueError(
                f"--reference {self.reference!r} must be one of --methods, "
                f"{', '.join(self.methods)}"
            )

    def configure(self, method: str, seed: int) -> Task:
        """Return the configuration of a method with this network, data and seed."""
        own = {field.name: getattr(self, field.name) for field in TASK_FIELDS}
        changes = {"seed": seed, "name": None, "resume": False, "epochs": self.epochs}
        return METHODS[method](**{**own, **changes})

    def pieces(self) -> list[Piece]:
        """Return every method with every seed."""
        return [
            Piece(self.data_label, method, self.configure(method, seed))
            for method in self.methods
            for seed in range(self.seed, self.seed + self.seeds)
        ]


TASK_FIELDS = dataclasses.fields(Task)


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    try:
        config = tyro.cli(Config, args=arguments, description=__doc__)
        for piece in config.pieces():
            methods.check(piece.config)  # errors leave no folder behind
        folder = runs.open_run(config, f"compare-{config.label}")
        config = runs.saved_config(folder, Config)
    except (ValueError, OSError) as error:
        console.print(f"error: {error}", markup=False)
        raise SystemExit(2) from None
    console.print(f"writing to {folder}")
    try:
        rows = collect(config.pieces(), folder, console)
    except KeyboardInterrupt:
        console.print(f"interrupted; go on with: --name {folder.name} --resume")
        raise SystemExit(130) from None
    comparison = summarize(rows, config.reference)
    table = [dataclasses.asdict(line) for line in comparison.lines]
    runs.write_json(folder / "result.json", {"table": table})
    print_table(console, config.data_label, comparison)


if __name__ == "__main__":
    main()
