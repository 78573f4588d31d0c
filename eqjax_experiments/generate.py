"""Search which elements should generate the groups of a network (Basu et al. 2021).

python -m experiments generate
python -m experiments generate --data quarter --parts 1 --agent random
"""

from __future__ import annotations

from eqjax_experiments import shell
from eqjax_experiments.tasks.generate import GeneratorTask

OPTIONS = (shell.RunOutput, GeneratorTask)


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    shell.train(GeneratorTask, __doc__, arguments)


if __name__ == "__main__":
    main()
