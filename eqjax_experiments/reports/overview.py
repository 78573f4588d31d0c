"""What a run was, and what came out of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eqjax_experiments.data.splits import counted
from eqjax_experiments.reports.page import Folded, Part, Section, Table, Text
from eqjax_experiments.reports.printing import percent
from eqjax_experiments.reports.record import Record, Row

COMMANDS = {
    "test-symmetry": "a test of which symmetry the data have",
    "evolve": "a search by evolution, EquiNAS_E",
    "differentiate": "a search by gradient descent, EquiNAS_D",
    "guide": "a search guided by a test of a probe, EquiNAS_S",
    "climb": "hill climbing by morphisms",
    "generate": "a search of generators",
    "baseline": "the training of one network",
    "compare": "a comparison of methods over several seeds",
    "reproduce": "experiments of the paper",
}


def lead(record: Record) -> str:
    """Return what the page is about, and whether the run is at its end."""
    what = COMMANDS.get(str(record.command), "a run of an unknown command")
    state = {
        True: "The run is finished.",
        False: f"The run is not finished: {record.progress}. This is what there is.",
        None: "Rows are added as runs finish.",
    }[record.finished]
    return f"{record.folder}: {what}, on {record.about or 'unknown data'}. {state}"


def overview(record: Record) -> Section:
    """Return what was run, and on what."""
    seconds = record.seconds
    counts = [sum(split) for split in zip(*record.images.values(), strict=True)]
    images = "unknown"
    if counts:
        names = ("training", "validation", "test")
        shown = [f"{n:,} {name}" for n, name in zip(counts, names, strict=True)]
        images = (
            f"{', '.join(shown)}, in {counted(len(record.images), 'class', 'classes')}"
        )
    device = record.environment.get("device", "unknown")
    versions = [f"{k} {v}" for k, v in record.environment.items() if k != "device"]
    rows = [
        ("command", record.command or "unknown"),
        ("data", record.about or "unknown"),
        ("images", images),
        ("versions", ", ".join(versions) or "unknown"),
        ("device", device),
        ("seconds", f"{seconds:,.0f}" if seconds else "not recorded"),
    ]
    parts: list[Part] = [Table(("", ""), rows, left=(0, 1))]
    if record.images:
        by_class = [(name, *map(str, own)) for name, own in record.images.items()]
        head = ("class", "training", "validation", "test")
        parts.append(Folded("Images by class", [Table(head, by_class)]))
    settings = [(name, shown) for name, shown in flat(record.settings)]
    if settings:
        table = Table(("setting", "value"), settings, left=(0, 1))
        parts.append(Folded("All settings", [table]))
    else:
        parts.append(Text("The folder holds no settings of its own."))
    return Section("What was run", parts)


def flat(settings: Row, before: str = "") -> list[tuple[str, str]]:
    """Return settings, nested ones too, as text."""
    rows = []
    for name, value in settings.items():
        if isinstance(value, dict):
            rows += flat(value, f"{before}{name}.")
        else:
            rows.append((before + name, _shown(value)))
    return rows


def _shown(value: Any) -> str:
    if value is None:
        return "not given"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def outcome(record: Record) -> Section:
    """Return what the run says in the end: its verdict, and its networks."""
    if record.is_comparison:
        return Section("Result", missing="A comparison has a table, and no verdict.")
    parts: list[Part] = []
    verdict = record.result.get("verdict")
    if verdict:
        named = verdict["group"]
        told = f"Symmetry of the data: {named}" if named else "Undecided"
        parts.append(Text(f"{told}; {verdict['reason']}."))
    elif record.evidence:
        last = record.evidence[-1]
        doubt = "" if last.get("decided", True) else ", the likeliest of several"
        told = f"the test of step {last['step']:,} names {last['named']}{doubt}"
        parts.append(Text(f"Symmetry of the data: {last.get('answer', told)}."))
    elif record.command == "evolve":
        parts.append(Text("There is no verdict yet: a search gives it at its end."))
    else:
        parts.append(Text("This command gives no verdict on the symmetry of the data."))
    rows = [_reading(row) for row in record.readings]
    if rows:
        parts.append(Table(HEAD, rows, left=(0, 1)))
    else:
        parts.append(Text("No network has been read out yet."))
    classes = [row for row in record.readings if row.get("class_errors")]
    if classes:
        parts.append(Folded("Test errors by class", [_by_class(classes[-1])]))
    return Section("Result", parts)


def _reading(row: Row) -> list[str]:
    numbers = (f"{row[k]:,}" if row.get(k) is not None else "" for k in COUNTS)
    errors = (
        percent(row[k]) if k in row else "" for k in ("validation_error", "test_error")
    )
    groups = " ".join(row.get("groups", ()))
    return [row["reading"], groups, *errors, *numbers]


HEAD = (
    "network",
    "groups",
    "validation error",
    "test error",
    "parameters, training",
    "at test",
    "steps",
)
COUNTS = ("training_parameters", "test_parameters", "steps")


def _by_class(row: Row) -> Table:
    names = list(row["class_errors"])
    rows = []
    for i, (name, error) in enumerate(row["class_errors"].items()):
        taken = sorted(
            ((n, names[j]) for j, n in enumerate(row["confusion"][i]) if n and j != i),
            reverse=True,
        )
        others = ", ".join(f"{other} {n:,} times" for n, other in taken[:3])
        rows.append((name, percent(error), others or "no other"))
    return Table(("class", "test error", "most often taken for"), rows, left=(0, 2))


def layer_labels(names: Sequence[str], count: int) -> list[str]:
    """Return what layers are called: by their names, or by numbers if unknown."""
    if len(names) != count:
        return [f"layer {i + 1}" for i in range(count)]
    return [name.replace("conv", "layer ").replace("stage", "stage ") for name in names]
