"""Write a page on a run: what it was, what it found, and how its networks look.

python -m experiments report first
python -m experiments report runs/first --out page.html

One file, report.html in the folder of the run, which is read offline and needs no other
file. Runs of every command can be read, and those that are not finished, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from eqjax_experiments import shell
from eqjax_experiments.runs import files, networks, reading

if TYPE_CHECKING:
    from eqjax.saving import Saved
    from eqjax_experiments.data.splits import Dataset
    from eqjax_experiments.reports.record import Record

PAGE = "report.html"


@dataclasses.dataclass(frozen=True)
class ReportSettings:
    """Write a page on a run."""

    run: tyro.conf.Positional[Path]
    """Folder of a run, or its name."""
    out: Path | None = None
    """File to write; report.html in the folder of the run if not given."""


OPTIONS = (shell.Output, ReportSettings)


def report(run: str | Path) -> str:
    """Return the page on a run, in HTML.

    Args:
      run: folder of a run, or its name.

    Raises:
      FileNotFoundError: there is no such run.
      ValueError: the folder holds none, or a file is damaged.
    """
    record = reading.read(reading.find(run))
    # Charts are slow to import.
    from eqjax_experiments.reports.comparisons import comparisons
    from eqjax_experiments.reports.evidence import evidence
    from eqjax_experiments.reports.family import family_tree
    from eqjax_experiments.reports.feature_maps import feature_maps
    from eqjax_experiments.reports.kernels import kernels
    from eqjax_experiments.reports.overview import lead, outcome, overview
    from eqjax_experiments.reports.page import render
    from eqjax_experiments.reports.searches import front, groups_over_time
    from eqjax_experiments.reports.times import times
    from eqjax_experiments.reports.trainings import distances, errors, mixtures

    network = best_network(record)
    layers: Sequence[str] = ()
    data: Dataset | str = ""  # of no use without a network
    if not isinstance(network, str):
        layers, data = network.model.layer_names, data_of(record)
    sections = [
        overview(record),
        outcome(record),
        comparisons(record),
        front(record, layers),
        family_tree(record, layers),
        groups_over_time(record, layers),
        errors(record),
        mixtures(record),
        evidence(record),
        distances(record),
        kernels(network),
        feature_maps(network, data, record.data),
        times(record),
    ]
    return render(record.folder.resolve().name, lead(record), sections)


def best_network(record: Record) -> Saved | str:
    """Return the network of least validation error, or why there is none."""
    if record.is_comparison:
        return (
            "A comparison holds the networks of many runs; they are in the reports of "
            "these."
        )
    try:
        return networks.find(record.folder)
    except FileNotFoundError:
        return "No network has been saved yet: a run saves its networks at its end."
    except (ValueError, OSError) as error:  # of another version, or damaged
        return f"The networks of this run cannot be read: {error}."


def data_of(record: Record) -> Dataset | str:
    """Return the data of a run, or why they cannot be loaded any more."""
    if "data" not in record.settings:
        return "The run does not say which data it was made with."
    from eqjax_experiments.tasks.baseline import BaselineTask

    names = ("ambient", "data", "data_group", "image_size")
    known = {n: record.settings[n] for n in names if n in record.settings}
    try:
        return BaselineTask(**known).load()
    except (ValueError, OSError) as error:
        return f"The data cannot be loaded any more: {error}."


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    console = shell.console()
    with shell.errors_end_it(console):
        output, settings = shell.parse(console, __doc__, arguments, *OPTIONS)
        page = report(settings.run)
        out = settings.out or reading.find(settings.run) / PAGE
        files.write_atomically(out, page)
    console.print(f"report: {out}", markup=False, soft_wrap=True)
    output.write({"report": str(out)})


if __name__ == "__main__":
    main()
