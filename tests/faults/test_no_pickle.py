"""No file that is read can run code: nothing is pickled, anywhere."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [
    path
    for package in ("eqjax", "eqjax_experiments", "benchmarks")
    for path in sorted((ROOT / package).rglob("*.py"))
]
PICKLING = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve"}
PICKLING |= {"marshal", "jsonpickle"}
LOADERS = ("numpy.load", "numpy.lib.npyio.load")
UNPICKLERS = ("torch.load", "torch.save", "pandas.read_pickle", "jax.numpy.load")
UNPICKLERS += ("orbax.checkpoint.PyTreeCheckpointer", "numpy.lib.format.read_array")


def names_of(tree):
    """What every imported name of a file stands for."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                whole = alias.name if alias.asname else alias.name.split(".")[0]
                found[alias.asname or whole] = whole
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return found


def imported(tree):
    """The full name of everything that is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def dotted(node, names):
    """The full name of what is called, as far as imports tell."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value, names)}.{node.attr}"
    return names.get(node.id, node.id) if isinstance(node, ast.Name) else "?"


def faults(text):
    """All that a source does with pickles, or might."""
    tree = ast.parse(text)
    names = names_of(tree)
    for name in imported(tree):
        if PICKLING & set(name.split(".")):
            yield f"imports {name}"
    for node in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
        called = dotted(node.func, names)
        given = {k.arg: k.value for k in node.keywords}
        allowed = given.get("allow_pickle")
        refused = isinstance(allowed, ast.Constant) and allowed.value is False
        if called in UNPICKLERS or called.endswith(("__import__", "import_module")):
            literal = [a.value for a in node.args if isinstance(a, ast.Constant)]
            if called in UNPICKLERS or PICKLING & set(map(str, literal)):
                yield f"line {node.lineno} calls {called}"
        elif called in LOADERS and not refused:
            yield f"line {node.lineno} calls {called} without allow_pickle=False"
        elif "allow_pickle" in given and not refused:
            yield f"line {node.lineno} allows pickles"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_pickled(path):
    assert not list(faults(path.read_text()))


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "import joblib as fast",
        "import sklearn.externals.joblib",
        "import importlib\nimportlib.import_module('dill')",
        "import numpy as np\nnp.load('a.npy')",
        "import numpy\nnumpy.load('a.npz', allow_pickle=True)",
        "from numpy import load as read\nread('a.npz')",
        "import numpy as np\nnp.load('a.npz', allow_pickle=not strict)",
        "import numpy as np\nnp.save('a.npy', x, allow_pickle=True)",
        "import torch\ntorch.load('a.pt')",
        "import jax.numpy as jnp\njnp.load('a.npy')",
    ],
)
def test_a_pickle_would_be_found(text):
    assert list(faults(text))
