"""A page for every stored result of a benchmark: what it is, where, and its figures."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from docs.generated.links import RESULTS, ROOT

ENVIRONMENT = ("environment", "environments")
Cells = Sequence[Sequence[str]]


def page(path: Path) -> str:
    """Return the page of a result, in Markdown.

    Args:
      path: of the JSON file.
    """
    result = json.loads(path.read_text())
    lines = [f"# {path.stem}", "", described(result), "", "## Measured on", ""]
    lines += [*measured_on(result), f"[The file](results/{path.name})", ""]
    for name, value in result.items():
        if name in (*ENVIRONMENT, "rows"):
            continue
        lines += [f"## {name.capitalize()}", "", *rendered(value)]
    if "rows" in result:
        lines += ["## Rows", "", '??? note "All figures"', ""]
        for block in rendered(result["rows"]):
            lines += [f"    {line}" if line else "" for line in block.split("\n")]
    return "\n".join(lines) + "\n"


def index(paths: Sequence[Path]) -> str:
    """Return the page that lists all results, in Markdown."""
    rows = []
    for path in paths:
        result = json.loads(path.read_text())
        first, *_ = environments(result).values()
        summary = described(result).partition("\n")[0]
        rows.append([f"[{path.stem}]({path.stem}.md)", summary, str(first["device"])])
    text = (
        "Every figure in these pages has its script under `benchmarks/` and its result "
        f"under `{RESULTS}/`, with command, versions and device. Each is run with "
        "`python -m benchmarks.NAME`."
    )
    head = ["result", "question", "device"]
    return f"# Benchmarks\n\n{text}\n\n{table(head, rows)}\n"


def environments(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return command, versions and device of a result, of each part where they vary."""
    several = result.get("environments")
    return several if several else {"": result["environment"]}


def measured_on(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield a table of what all parts of a result share, and one of the rest."""
    places = environments(result)
    first, *_ = places.values()
    shared = {k for k, v in first.items() if all(p[k] == v for p in places.values())}
    yield flat({k: v for k, v in first.items() if k in shared})
    if len(shared) < len(first):
        own = [{k: v for k, v in p.items() if k not in shared} for p in places.values()]
        yield across(dict(zip(places, own, strict=True)))


def described(result: Mapping[str, Any]) -> str:
    """Return the docstring of the command that wrote a result."""
    first, *_ = environments(result).values()
    _, _, module, *_ = first["command"].split()  # python -m MODULE ...
    path = module.replace(".", "/").replace("experiments/", "eqjax_experiments/", 1)
    text = ast.get_docstring(ast.parse((ROOT / f"{path}.py").read_text())) or ""
    return "\n\n".join(map(as_it_stands, text.split("\n\n")))


def as_it_stands(paragraph: str) -> str:
    """Return a paragraph, fenced if it holds columns or commands."""
    columns = re.search(r"^(\S+ {2,}\S|python -m )", paragraph, re.MULTILINE)
    return f"```text\n{paragraph}\n```" if columns else paragraph


def rendered(value: Any) -> Iterator[str]:
    """Yield the figures of a part of a result as tables, each with an empty line.

    Args:
      value: of the result: nested dictionaries and lists of numbers and words.
    """
    if is_cell(value) and not isinstance(value, dict):
        yield f"{cell(value)}\n"
    elif isinstance(value, list):
        heads = list(dict.fromkeys(key for row in value for key in row))
        yield table(heads, [[cell(row.get(key)) for key in heads] for row in value])
    elif alike(value):
        yield across(value)
    else:
        cells = {name: each for name, each in value.items() if is_cell(each)}
        if cells:
            yield flat(cells)
        for name, each in value.items():
            if name not in cells:
                yield f"**{name}**\n"
                yield from rendered(each)


def flat(values: Mapping[str, Any]) -> str:
    """Return a table of named figures, "ROW: COLUMN" or one in a row."""
    split = [name.rpartition(": ")[::2] for name in values]
    rows = list(dict.fromkeys(row for row, _ in split))
    columns = list(dict.fromkeys(column for _, column in split))
    full = 2 * len(values) > len(rows) * len(columns)
    if full and len(rows) > 1 and 1 < len(columns) <= 8:
        found = dict(zip(split, map(cell, values.values()), strict=True))
        body = [[row, *(found.get((row, c), "") for c in columns)] for row in rows]
        return table(["", *columns], body)
    return table(["", ""], [[name, cell(value)] for name, value in values.items()])


def across(values: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a table of dictionaries with the same keys, long rather than wide."""
    heads = list(dict.fromkeys(key for each in values.values() for key in each))
    body = [[name, *(cell(v.get(key)) for key in heads)] for name, v in values.items()]
    whole = [["", *heads], *body]
    if len(heads) > max(6, len(values)) or len(values) == 1:
        whole = [list(column) for column in zip(*whole, strict=True)]
    return table(whole[0], whole[1:])


def alike(value: Mapping[str, Any]) -> bool:
    """Tell whether a dictionary holds dictionaries of cells, with most keys in each."""
    each = [v for v in value.values() if isinstance(v, dict) and not interval(v)]
    if len(each) < len(value) or not all(is_cell(v) for d in each for v in d.values()):
        return False
    keys = [set(d) for d in each]
    return 2 * len(set.intersection(*keys)) >= len(set.union(*keys))


def is_cell(value: Any) -> bool:
    """Tell whether a value has its place in a single cell of a table."""
    if isinstance(value, list):
        return all(not isinstance(v, list | dict) for v in value)
    return not isinstance(value, dict) or interval(value) or small(value)


def interval(value: Mapping[str, Any]) -> bool:
    """Tell whether a value is a mean with the ends of its interval."""
    return value.keys() == {"mean", "low", "high"}


def small(value: Mapping[str, Any]) -> bool:
    """Tell whether a dictionary is so small that it is told in words."""
    return len(value) <= 2 and not any(
        isinstance(v, list | dict) for v in value.values()
    )


def cell(value: Any) -> str:
    """Return a value as it is printed in a cell.

    >>> cell(1234), cell(0.123456), cell({"mean": 1.5, "low": 1, "high": 2.0})
    ('1,234', '0.1235', '1.5 (1 to 2)')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(cell, value))
    if isinstance(value, dict):
        if interval(value):
            return "{} ({} to {})".format(*map(cell, value.values()))
        if all(name.isdigit() for name in value):  # by seed
            return ", ".join(map(cell, value.values()))
        return ", ".join(f"{name}: {cell(each)}" for name, each in value.items())
    return str(value).replace("|", r"\|")


def table(heads: Sequence[str], rows: Cells) -> str:
    """Return a table in Markdown, with an empty line after it."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
