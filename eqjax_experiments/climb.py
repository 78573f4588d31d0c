"""Climb to better networks by morphisms that relax or grow them (NASH).

python -m experiments climb
python -m experiments climb --data quarter --moves groups
"""

from __future__ import annotations

from eqjax_experiments import shell
from eqjax_experiments.tasks.climb import ClimbTask

OPTIONS = (shell.RunOutput, ClimbTask)


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    shell.train(ClimbTask, __doc__, arguments)


if __name__ == "__main__":
    main()
