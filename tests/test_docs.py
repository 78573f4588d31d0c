"""Links lead somewhere, generated pages are complete, and the site is offline."""

import importlib
import json
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import eqjax as eq
from benchmarks import orbits
from docs.generated import links, reference, results
from docs.generated.docstrings import fenced

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
RESULTS = sorted((ROOT / "benchmarks/results").glob("*.json"))


def anchors(page):
    """Anchors of a page's headings, as repositories show them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    titles = [re.sub(r"\]\(.*?\)|[`\[*]", "", title) for title in titles]
    return {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for path, anchor in re.findall(
        r"\]\((?!\w+:)([^)#\s]*)#?([^)\s]*)\)", page.read_text()
    ):
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), (path, anchor)


def test_anchors_are_those_of_headings(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b` c: d\n\n```\n# no heading\n```\n\n## [One](x.md) EquiNAS_S\n"
    )
    assert anchors(page) == {"a-b-c-d", "one-equinas_s"}


def test_every_public_name_is_in_the_reference():
    found = {}
    for package in reference.packages():
        module = importlib.import_module(f"eqjax.{package}")
        page = reference.page(package)
        for name in module.__all__:
            assert re.search(rf"^::: eqjax.{package}.{name}$", page, re.MULTILINE)
            found[name] = package
        public, others = reference.names(package)
        assert public == module.__all__
        assert all(hasattr(module, name) for name in others)
    shown = {n for n in dir(eq) if not n.startswith("_")} - set(reference.packages())
    assert shown <= set(found)


def leaves(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from leaves(each)
    else:
        yield value


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_every_figure_of_a_result_is_on_its_page(path):
    page = results.page(path)
    result = json.loads(path.read_text())
    measured = [v for key, v in result.items() if key not in results.ENVIRONMENT]
    found = [value for value in leaves(measured) if value is not None]
    numbers = Counter(results.cell(v) for v in found if not isinstance(v, str | bool))
    tables = "".join(line for line in page.splitlines(keepends=True) if "|" in line)
    printed = Counter(re.split(r" *[|\n] *|, |: | \(| to |\)", tables))
    assert not numbers - printed
    assert all(results.cell(value) in page for value in found)  # words, too
    for version in leaves([result.get(key) for key in results.ENVIRONMENT]):
        assert version is None or results.cell(version) in page
    widths = [line.count(" | ") for line in page.split("\n") if "| --- |" in line]
    assert max(widths) < 15


def test_figures_of_rows_and_columns_are_a_table():
    page = "".join(results.rendered({"a: x": 1, "a: y": 2.0, "b: x": 3, "b: y": None}))
    assert page == "|  | x | y |\n| --- | --- | --- |\n| a | 1 | 2 |\n| b | 3 |  |\n"


def test_links_between_files_become_links_between_pages():
    text = "[a](../README.md) [b](../benchmarks/results/step.json) [c](#d) [e](f.md#g)"
    moved = links.relinked(text, "speed.md")
    assert moved == "[a](index.md) [b](benchmarks/step.md) [c](#d) [e](f.md#g)"
    outside = "[a](docs/speed.md) [b](eqjax/ops/windows.py) [c](https://d.e/f.md)"
    moved = links.relinked(outside, "index.md")
    assert moved == "[a](speed.md) [b](eqjax/ops/windows.py) [c](https://d.e/f.md)"


def test_doctests_are_fenced():
    assert fenced("A.\n\n>>> 1\n1\n") == "A.\n\n```pycon\n>>> 1\n1\n```\n"
    assert fenced("A.\n\n>>> 1") == "A.\n\n```pycon\n>>> 1\n```"
    assert fenced("No example.") == "No example."


@pytest.mark.parametrize("index", [orbits.lifting, orbits.centre])
@pytest.mark.parametrize("group", orbits.GROUPS, ids=lambda group: group.name)
def test_cells_have_one_color_exactly_where_they_share_a_parameter(index, group):
    tied = index(group).reshape(-1)
    drawn = orbits.colors(index(group), index(orbits.D4)).reshape(-1, 3)
    same = (drawn[:, None] == drawn[None]).all(-1)
    np.testing.assert_array_equal(same, tied[:, None] == tied[None])


def test_the_page_of_the_mathematics_counts_the_orbits_of_the_tables():
    page = (ROOT / "docs/mathematics.md").read_text()
    (row,) = re.findall(r"^\| lifting, of 72 entries \| (.*) \|$", page, re.MULTILINE)
    counted = [len(np.unique(orbits.lifting(group))) for group in orbits.GROUPS]
    assert [int(cell) for cell in row.split(" | ")] == counted


class Loaded(HTMLParser):
    """What a browser loads with a page."""

    ATTRIBUTES: ClassVar = {
        "audio": ("src",),
        "embed": ("src",),
        "iframe": ("src",),
        "img": ("src", "srcset"),
        "link": ("href",),
        "object": ("data",),
        "script": ("src",),
        "source": ("src", "srcset"),
        "video": ("src", "poster"),
    }

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == "link" and given.get("rel") in ("canonical", "prev", "next"):
            return
        names = self.ATTRIBUTES.get(tag, ())
        self.found += [given[name] for name in names if given.get(name)]


def from_elsewhere(text):
    """Addresses in HTML that a browser fetches over a network."""
    inline = re.findall(r"url\(['\"]?([^'\")]+)", text)
    found = Loaded(text).found + inline
    return [a for a in found if re.match(r"(\w+:)?//", a.strip())]


def inside(text):
    """Links of a page to files of its site."""
    links = re.findall(r"<a [^>]*href=\"?([^\"#?> ]+)", text)
    return [link for link in links if not re.match(r"\w+:", link)]


def test_links_inside_the_site_are_found():
    page = '<a href="a.html#b">.</a> <a class=c href=../d.py>.</a> <a href="#e">.</a>'
    assert inside(page + '<a href="https://f.g">.</a>') == ["a.html", "../d.py"]


def test_what_is_loaded_from_elsewhere_is_found():
    page = '<a href="https://a.b">.</a><img src="c.png"><style>d {url(e.woff)}</style>'
    assert from_elsewhere(page) == []
    script = '<script src="https://unpkg.com/f.js"></script>'
    style = "<style>@font-face {src: url('//fonts.g.com/h.woff')}</style>"
    assert len(from_elsewhere(page + script + style)) == 2


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_loads_nothing(tmp_path, environment):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    done = subprocess.run(
        [*command, "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env=environment | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    pages = list(tmp_path.rglob("*.html"))
    built = {str(page.relative_to(tmp_path)) for page in pages}
    assert {"index.html", "tutorial.html", "reference/layers.html"} <= built
    assert {f"benchmarks/{path.stem}.html" for path in RESULTS} <= built
    for page in pages:
        text = page.read_text()
        assert from_elsewhere(text) == [], page
        if page.name != "404.html":  # whose links begin at the root of a server
            assert [a for a in inside(text) if not (page.parent / a).exists()] == []
    for style in tmp_path.rglob("*.css"):
        fetched = re.findall(
            r"(?:url\(|@import )['\"]?(\w*:?//[^'\")]+)", style.read_text()
        )
        assert fetched == [], style
    for package in reference.packages():
        text = (tmp_path / f"reference/{package}.html").read_text()
        public, others = reference.names(package)
        for name in (*public, *others):
            assert f'id="eqjax.{package}.{name}"' in text, name
    text = re.sub(r"<[^>]+>", "", (tmp_path / "reference/layers.html").read_text())
    assert "kernel_size: int | Sequence[int]," in text  # of a linen module
    assert "&gt;&gt;&gt; layer = GroupConv(16, 3, group=D4)" in text
    text = re.sub(r"<[^>]+>", "", (tmp_path / "reference/training.html").read_text())
    assert 'Float[Array, "batch ..."]' in text  # shapes
    for page in (tmp_path / "reference").glob("*.html"):
        assert "<blockquote>" not in page.read_text(), page
