"""A long piece of work that survives being killed: metrics, seconds, checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from eqjax_experiments.engine.interrupts import stop_if_asked
from eqjax_experiments.runs import files
from eqjax_experiments.runs.files import METRICS, TIMING

State = TypeVar("State")


def resume_records(folder: Path, done: int) -> list[dict[str, Any]]:
    """Return the records of what a folder's checkpoint has behind it.

    Args:
      folder: of the run.
      done: pieces of work behind the checkpoint; what was written later is cut off.
    """
    files.keep_lines(folder / TIMING, done)
    return files.keep_lines(folder / METRICS, done)


def record_all(
    start: State,
    produced: Iterable[tuple[State, dict[str, Any]]],
    folder: Path,
    *,
    key: str,
    save: Callable[[State], None],
    report: Callable[[State, dict[str, Any], float], None],
) -> State:
    """Write down every piece of work as soon as it is done.

    Args:
      start: the state before the first piece.
      produced: yields the state after every piece, and its record for the metrics.
      folder: of the run.
      key: the entry of a record that numbers the pieces.
      save: writes a checkpoint of the state, whole or not at all.
      report: called with the state, the record, and the seconds that it took.

    Returns:
      The state after the last piece.

    Raises:
      KeyboardInterrupt: the user has asked to stop; all pieces so far are saved.
    """
    last, begin = start, time.perf_counter()
    for state, record in produced:
        seconds = time.perf_counter() - begin
        begin += seconds
        files.append_line(folder / METRICS, record)
        files.append_line(folder / TIMING, {key: record[key], "seconds": seconds})
        save(state)
        report(state, record, seconds)
        stop_if_asked()
        last = state
    return last
