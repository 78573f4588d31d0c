"""Learn by gradient descent how much of each group every layer wants.

python -m experiments.differentiate [--data rotated] [--groups D4 C4 C1] ...
"""

from __future__ import annotations

from eqjax_experiments import shell
from eqjax_experiments.tasks.differentiate import DifferentiationTask


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    shell.train(DifferentiationTask, "differentiate", __doc__, arguments)


if __name__ == "__main__":
    main()
