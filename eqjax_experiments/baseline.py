"""Train a network of fixed symmetry, or one that relaxes it in another way.

python -m experiments baseline --groups C4
python -m experiments baseline --groups D4 D4 D4 C4 C4 C4 --relaxed-from D4
python -m experiments baseline --method residual --residual.tied-precision 10
"""

from __future__ import annotations

from eqjax_experiments import shell
from eqjax_experiments.tasks.baseline import BaselineTask

OPTIONS = (shell.RunOutput, BaselineTask)


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    shell.train(BaselineTask, __doc__, arguments)


if __name__ == "__main__":
    main()
