"""Double precision for laws, and runtime checks of all jaxtyping annotations.

Nearly all of the tests' time is compiling, so LLVM does not optimize here: half of the
time. Commands and programs in processes of their own are compiled as users have them.
"""

import dataclasses
import os

import hypothesis
import jax
import jaxtyping
import pytest

os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_num_cpu_devices", 4)  # for meshes; all else uses the first
jaxtyping.install_import_hook(
    ["eqjax.kernels", "eqjax.convolution", "eqjax.training", "eqjax.winograd"],
    "beartype.beartype",
)
# The same examples everywhere, and no clock: the machines that run this are shared.
hypothesis.settings.register_profile("eqjax", deadline=None, derandomize=True)
hypothesis.settings.load_profile("eqjax")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Run in an empty directory, on a part of the digits turned by right angles."""
    from experiments.data import catalogue, digits
    from experiments.data.splits import Split

    monkeypatch.chdir(tmp_path)
    whole = digits.load("quarter")
    few = (Split(*(a[:200] for a in split)) for split in whole.splits)
    names = ("train", "validation", "test")
    small = dataclasses.replace(whole, **dict(zip(names, few, strict=True)))
    monkeypatch.setattr(catalogue, "load", lambda *settings: small)
    return tmp_path
