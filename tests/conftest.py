"""Double precision for laws, and runtime checks of all jaxtyping annotations.

Nearly all of the tests' time is compiling, so LLVM does not optimize here: half of the
time. Commands and programs in processes of their own are compiled as users have them.
"""

import os

import hypothesis
import jax
import jaxtyping

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
