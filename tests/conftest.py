"""Double precision for laws, and runtime checks of all jaxtyping annotations."""

import jax
import jaxtyping

jax.config.update("jax_enable_x64", True)
jaxtyping.install_import_hook(
    ["eqjax.kernels", "eqjax.convolution", "eqjax.training"], "beartype.beartype"
)
