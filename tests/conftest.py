"""Double precision for laws, and runtime checks of all jaxtyping annotations.

Nearly all of the tests' time is compiling, so LLVM does not optimize here, and XLA
emits fusions in the older way where it still can: less than half of the time. All
workers, and commands in processes of their own, which are compiled as users have them,
share one compilation cache; the next run begins with it.
"""

import collections
import ctypes
import dataclasses
import functools
import gc
import os
import zlib
from pathlib import Path

import hypothesis
import jax
import jaxtyping
import pytest

FLAGS = ["--xla_backend_optimization_level=0"]
if jax.__version_info__ < (
    0,
    11,
):  # later ones do not know it, and an unknown one kills
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))
COMPILED = {
    "jax_compilation_cache_dir": str(
        Path(__file__).parents[1] / ".pytest_cache" / "compiled"
    ),
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": 0,
}
for setting, value in COMPILED.items():
    jax.config.update(setting, value)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_num_cpu_devices", 4)  # for meshes; all else uses the first
jaxtyping.install_import_hook(
    ["eqjax.kernels", "eqjax.ops", "eqjax.training"],
    "beartype.beartype",
)
# The same examples everywhere, and no clock: the machines that run this are shared.
hypothesis.settings.register_profile("eqjax", deadline=None, derandomize=True)
hypothesis.settings.load_profile("eqjax")


def pytest_addoption(parser):
    parser.addoption(
        "--one-in",
        type=int,
        default=1,
        help="run one in so many cases of every parametrized test",
    )


def pytest_collection_modifyitems(config, items):
    """Keep a share of the cases, and begin with the files that take longest.

    So no worker is left with one of those at the end.
    """
    left_out = beyond_the_share(items, config.getoption("one_in"))
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def beyond_the_share(items, share):
    """The cases that are left out where one in so many of every test is run.

    Which ones are run depends on their names alone, and of every test one is.
    """
    cases = collections.defaultdict(list)
    for item in items:
        cases[item.nodeid.partition("[")[0]].append(item)
    return {
        item
        for own in cases.values()
        for item in sorted(own, key=lambda item: zlib.crc32(item.nodeid.encode()))[
            -(-len(own) // share) :
        ]
    }


@functools.cache
def digits_of(task):
    """The embedded digits, read once."""
    from eqjax_experiments.data import digits

    return digits.load(task)


@pytest.fixture(scope="session")
def environment():
    """The environment of commands in processes of their own, as users have them."""
    kept = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    cache = {setting.upper(): str(value) for setting, value in COMPILED.items()}
    return {**kept, **cache, "PYTHONPATH": str(Path(__file__).parents[1])}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Run in an empty directory, on a part of the digits rotated by right angles."""
    from eqjax_experiments.data import catalogue
    from eqjax_experiments.data.splits import Split

    monkeypatch.chdir(tmp_path)
    whole = digits_of("quarter")
    few = (Split(*(a[:200] for a in split)) for split in whole.splits)
    names = ("train", "validation", "test")
    small = dataclasses.replace(whole, **dict(zip(names, few, strict=True)))
    monkeypatch.setattr(catalogue, "load", lambda *settings: small)
    return tmp_path


@pytest.fixture(scope="module", autouse=True)
def no_programs_are_left_behind():
    """Forget what a file has compiled: that is what fills a worker's memory."""
    yield
    forget_programs()


@pytest.fixture(autouse=True)
def programs_are_bounded():
    """Forget all programs within a file, too, before they take much more memory."""
    yield
    if resident_bytes() > max(ENOUGH, left_after_forgetting["bytes"] + ENOUGH / 2):
        forget_programs()


ENOUGH = 3 * 2**28  # bytes
left_after_forgetting = {"bytes": 0}


def resident_bytes():
    """Memory of this process, where the system tells; the bound is for Linux."""
    file = Path("/proc/self/statm")
    if not file.exists():
        return 0
    return int(file.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def forget_programs():
    jax.clear_caches()
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)  # what is free goes back to the system
    left_after_forgetting["bytes"] = resident_bytes()
