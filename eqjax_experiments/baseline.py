"""Train a network of fixed symmetry, or one that relaxes it in another way.

python -m experiments.baseline [--method static] [--groups C4] [--data rotated] ...
"""

from __future__ import annotations

from eqjax_experiments import shell
from eqjax_experiments.tasks.baseline import BaselineTask


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    shell.train(BaselineTask, "baseline", __doc__, arguments)


if __name__ == "__main__":
    main()
