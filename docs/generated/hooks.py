"""What mkdocs calls while it builds the site: generated pages, and links."""

from __future__ import annotations

from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from docs.generated import links, reference, results
from docs.generated.links import ROOT, stored

GENERATED = ("reference/", "benchmarks/")  # folders of the site, with their own links


def generated() -> dict[str, str]:
    """Return the text of every page that no file holds, by its place on the site."""
    packages = reference.packages()
    pages = {f"reference/{name}.md": reference.page(name) for name in packages}
    pages["reference/index.md"] = reference.index()
    pages |= {f"benchmarks/{p.stem}.md": results.page(p) for p in stored()}
    pages["benchmarks/index.md"] = results.index(stored())
    return pages


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add what is generated to the navigation."""
    assert config.nav is not None
    sections: dict[str, Any] = {k: v for part in config.nav for k, v in part.items()}
    sections["Reference"] += [{"Public names": "reference/index.md"}]
    sections["Reference"] += [
        {f"eqjax.{name}": f"reference/{name}.md"} for name in reference.packages()
    ]
    sections["Benchmarks"] += ["benchmarks/index.md"]
    sections["Benchmarks"] += [{p.stem: f"benchmarks/{p.stem}.md"} for p in stored()]
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the generated pages, and files from outside docs/."""
    for uri, text in generated().items():
        files.append(File.generated(config, uri, content=text))
    for path, place in links.files().items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **kwargs: Any) -> str:
    """Make links between files links between pages."""
    del kwargs
    uri = page.file.src_uri
    if uri.startswith(GENERATED):
        return markdown
    return links.relinked(markdown, uri)
