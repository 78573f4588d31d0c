"""Let an exact test of a symmetric network's gradients name the groups: EquiNAS_S.

python -m experiments guide
python -m experiments guide --data path/to/folder --name first
python -m experiments guide --use continued --criterion evidence
"""

from __future__ import annotations

from eqjax_experiments import shell
from eqjax_experiments.tasks.guide import GuidedTask

OPTIONS = (shell.RunOutput, GuidedTask)


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    shell.train(GuidedTask, __doc__, arguments)


if __name__ == "__main__":
    main()
