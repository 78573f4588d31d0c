"""What the collected rows of an experiment say: a line per method, paired by seed."""

from __future__ import annotations

import dataclasses
import difflib
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

# How a row of the table is called after what was read out. The mixture as it is and
# collapsed are one function; the latter tells the parameters at test.
READINGS = {
    "as trained": "",
    "collapsed": "",
    "best of front": "",
    "discretized": ", discretized",
    "perturbation": ", read off by perturbation",
    "fine-tuning": ", read off by fine-tuning",
    "retrained": ", retrained",
}
LEVEL = 0.95  # of the intervals
RESAMPLES = 9_999


@dataclasses.dataclass(frozen=True)
class Line:
    """One method in one experiment; errors in percent, over the seeds.

    Attributes:
      method: its name, and what was read out.
      errors: of the test, by seed.
      difference: mean of the errors less those of the reference, seed by seed.
      interval: of the difference, by bootstrap of the pairs.
      p: of no difference, by Student's t-test of the pairs, two-sided.
      training_parameters: by seed.
      test_parameters: by seed.
      steps: median, of a single network.
      seconds: median, of the whole method.
      last_groups: how often the last layer with a group has which.
    """

    method: str
    errors: dict[int, float]
    difference: float | None
    interval: tuple[float, float] | None
    p: float | None
    training_parameters: dict[int, int]
    test_parameters: dict[int, int]
    steps: float
    seconds: float
    last_groups: dict[str, int]

    @property
    def mean(self) -> float:
        """Mean error."""
        return statistics.mean(self.errors.values())

    @property
    def deviation(self) -> float:
        """Sample standard deviation of the errors; 0 for one seed."""
        errors = list(self.errors.values())
        return statistics.stdev(errors) if errors[1:] else 0.0

    @property
    def median(self) -> float:
        """Median error."""
        return statistics.median(self.errors.values())

    def cells(self) -> list[str]:
        """Return the text of every column."""
        low, high = self.interval or (None, None)
        return [
            self.method,
            str(len(self.errors)),
            f"{self.mean:.2f} ± {self.deviation:.2f}",
            f"{self.median:.2f}",
            "" if self.difference is None else f"{self.difference:+.2f}",
            "" if low is None else f"{low:+.2f} to {high:+.2f}",
            "" if self.p is None else "<0.001" if self.p < 1e-3 else f"{self.p:.3f}",
            f"{statistics.median(self.training_parameters.values()):,.0f}",
            f"{statistics.median(self.test_parameters.values()):,.0f}",
            f"{self.steps:,.0f}",
            f"{self.seconds:.0f}",
            ", ".join(f"{n} {name}" for name, n in self.last_groups.items()),
        ]


class Comparison(NamedTuple):
    """The lines of one experiment, and the one that all others are compared to."""

    reference: str
    lines: list[Line]


def summarize(
    rows: Sequence[dict[str, Any]], reference: str | None = None
) -> Comparison:
    """Return a line for every method of an experiment.

    Args:
      rows: of one experiment, as `collect` returns them.
      reference: the line that all others are compared to, seed by seed; if None, D4
        where there is one, else the first.

    Raises:
      ValueError: there is no such line, a seed is given twice, or the data differ.
    """
    table: dict[str, dict[int, dict[str, Any]]] = {}
    for row in rows:
        if row["reading"] in READINGS and row["test_error"] is not None:
            name = row["method"] + READINGS[row["reading"]]
            if row["seed"] in table.setdefault(name, {}):
                raise ValueError(
                    f"{row['experiment']}, {name}, seed {row['seed']} is there twice; "
                    "summarize files with equal names of experiments one by one"
                )
            table[name][row["seed"]] = row
    sources = {row["data"] for row in rows}
    if len(sources) > 1:
        name, found = rows[0]["experiment"], "; ".join(sources)
        raise ValueError(f"{name} has rows of different data: {found}")
    if reference is None and table:
        reference = "D4" if "D4" in table else next(iter(table))
    if reference not in table:
        near = difflib.get_close_matches(str(reference), table, 1, 0)
        raise ValueError(
            f"--reference {reference!r} is not a row of the table; nearest: "
            f"{', '.join(near) or 'none, the table is empty'}"
        )
    return Comparison(
        reference,
        [_line(name, own, table[reference]) for name, own in table.items()],
    )


def _line(
    name: str, rows: dict[int, dict[str, Any]], reference: dict[int, dict[str, Any]]
) -> Line:
    """Return the line of the rows of every seed, beside those of the reference."""
    errors, base = _errors(rows), _errors(reference)
    pairs = [(errors[seed], base[seed]) for seed in errors if seed in base]
    differences = [] if rows is reference else [a - b for a, b in pairs]
    several = len(differences) > 1
    varied = several and np.ptp(differences) > 0
    groups = Counter(row["groups"][-1] for row in rows.values())
    return Line(
        name,
        errors,
        difference=statistics.mean(differences) if differences else None,
        interval=_interval(differences) if several else None,
        p=_p_value(differences) if varied else None,
        training_parameters={s: row["training_parameters"] for s, row in rows.items()},
        test_parameters={s: row["test_parameters"] for s, row in rows.items()},
        steps=statistics.median(row["steps"] for row in rows.values()),
        seconds=statistics.median(row["seconds"] for row in rows.values()),
        last_groups=dict(groups.most_common()),
    )


def _errors(rows: dict[int, dict[str, Any]]) -> dict[int, float]:
    return {seed: 100 * row["test_error"] for seed, row in rows.items()}


def _p_value(differences: Sequence[float]) -> float:
    """Return that of the paired t test."""
    from scipy import stats  # slow to import, and needed at the end

    return float(stats.ttest_1samp(differences, 0).pvalue)


def _interval(differences: Sequence[float]) -> tuple[float, float]:
    """Return the percentile interval of their mean, over resampled seeds."""
    from scipy import stats

    found = stats.bootstrap(
        (differences,),
        np.mean,
        confidence_level=LEVEL,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def by_experiment(
    rows: Sequence[dict[str, Any]],
) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of every experiment, in their order."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["experiment"], []).append(row)
    return found
