"""Where files of the repository are on the site, and links between them.

The pages are written to be read in the repository, where links go from file to file. On
the site README.md is the first page, a result is the page about its figures, and so on.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = "benchmarks/results"
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")
# Files outside docs/ that are pages of the site, or lie beside them.
SHOWN = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CITATION.cff": "CITATION.cff",
    "CONTRIBUTING.md": "contributing.md",
    "eqjax_experiments/data/DIGITS.md": "digits.md",
}


def files() -> dict[str, str]:
    """Return the place on the site of every file that it has from outside docs/."""
    paths = [*(ROOT / RESULTS).iterdir(), *(ROOT / "notebooks").glob("*.py")]
    places = sorted(path.relative_to(ROOT).as_posix() for path in paths)
    return SHOWN | {place: place for place in places}


def stored() -> list[Path]:
    """Return the results that have a page each."""
    return sorted((ROOT / RESULTS).glob("*.json"))


def places() -> dict[str, str]:
    """Return what links to a file outside docs/ lead to on the site."""
    pages = {f"{RESULTS}/{p.name}": f"benchmarks/{p.stem}.md" for p in stored()}
    return files() | pages


def relinked(text: str, uri: str) -> str:
    """Return a page with its links between files as links between pages.

    Args:
      text: of the page, in Markdown.
      uri: of the page on the site.

    >>> page = "[one](docs/speed.md#measured), [two](benchmarks/results/step.json)"
    >>> relinked(page, "index.md")
    '[one](speed.md#measured), [two](benchmarks/step.md)'
    """
    sources = {place: source for source, place in SHOWN.items()}
    source = sources.get(uri, f"docs/{uri}")
    shown = places()

    def moved(match: re.Match[str]) -> str:
        target = posixpath.join(posixpath.dirname(source), match[1])
        target = posixpath.normpath(target)
        if target not in shown and not target.startswith("docs/"):
            return match[0]  # mkdocs says that there is no such page
        place = shown.get(target, target.removeprefix("docs/"))
        place = posixpath.relpath(place, posixpath.dirname(uri) or ".")
        return f"]({place}{match[2] or ''})"

    return LINK.sub(moved, text)
