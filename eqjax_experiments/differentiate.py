"""Learn by gradient descent how much of each group every layer wants.

python -m experiments differentiate
python -m experiments differentiate --groups D4 C4 C1 --read-off perturbation
"""

from __future__ import annotations

from eqjax_experiments import shell
from eqjax_experiments.tasks.differentiate import DifferentiationTask

OPTIONS = (shell.RunOutput, DifferentiationTask)


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    shell.train(DifferentiationTask, __doc__, arguments)


if __name__ == "__main__":
    main()
