"""A page for every package of eqjax, with the docstrings of what it offers."""

from __future__ import annotations

import ast

from docs.generated.links import ROOT

# In the order of eqjax/__init__.py; nnx is imported by its name.
APART = ["nnx"]


def packages() -> list[str]:
    """Return the names of all packages, each after those that it imports from."""
    tree = ast.parse((ROOT / "eqjax/__init__.py").read_text())
    imported = [n.module or "" for n in tree.body if isinstance(n, ast.ImportFrom)]
    return [module.removeprefix("eqjax.") for module in imported] + APART


def names(package: str) -> tuple[list[str], list[str]]:
    """Return the public names of a package, and the other ones that it offers.

    Args:
      package: such as "layers".

    Returns:
      What `__all__` lists, and what else the package imports from its modules.
    """
    tree = ast.parse((ROOT / f"eqjax/{package}/__init__.py").read_text())
    public: list[str] = []
    imported: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            imported += [alias.asname or alias.name for alias in node.names]
        elif isinstance(node, ast.Assign):
            (target,) = node.targets
            if isinstance(target, ast.Name) and target.id == "__all__":
                public = ast.literal_eval(node.value)
    return public, [name for name in imported if name not in public]


def page(package: str) -> str:
    """Return the page of a package, in Markdown."""
    tree = ast.parse((ROOT / f"eqjax/{package}/__init__.py").read_text())
    public, others = names(package)
    prefix = "eqjax.nnx." if package in APART else "eq."
    lines = [f"# {package}", "", ast.get_docstring(tree) or "", ""]
    if public:
        lines += [f"Public, as `{prefix}NAME`:", ""]
    for name in public:
        lines += [f"::: eqjax.{package}.{name}", ""]
    if others:
        lines += [
            "## Names of the package alone",
            "",
            f"For code that needs more than the public names, as `eqjax.{package}.NAME`"
            "; these may change.",
            "",
        ]
    for name in others:
        lines += [
            f"::: eqjax.{package}.{name}",
            "    options:",
            "      heading_level: 3",
            "",
        ]
    return "\n".join(lines)


def index() -> str:
    """Return the page that lists all public names, by package."""
    lines = [
        "# Public names",
        "",
        "`import eqjax as eq` gives all of them but those of `eqjax.nnx`, which is "
        "imported by its name. A package imports only from those above it.",
        "",
        "| package | |",
        "|---|---|",
    ]
    for package in packages():
        public, _ = names(package)
        linked = [f"[`{name}`][eqjax.{package}.{name}]" for name in public]
        lines.append(f"| [`{package}`]({package}.md) | {', '.join(linked)} |")
    return "\n".join(lines) + "\n"
