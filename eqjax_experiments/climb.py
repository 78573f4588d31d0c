"""Climb to better networks by morphisms that relax or grow them (NASH).

python -m experiments.climb [--data rotated] [--moves groups] ...
"""

from __future__ import annotations

from eqjax_experiments import shell
from eqjax_experiments.tasks.climb import ClimbTask


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    shell.train(ClimbTask, "climb", __doc__, arguments)


if __name__ == "__main__":
    main()
