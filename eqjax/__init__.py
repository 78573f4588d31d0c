"""Neural networks whose symmetry is part of the architecture and can be searched."""

__version__ = "0.1.0"

# The packages in their one chain: each imports only from those above it. Public is what
# a package lists in its `__all__`; its other names serve the packages below it.
from eqjax.groups import *
from eqjax.fields import *
from eqjax.ops import *
from eqjax.kernels import *
from eqjax.constraints import *
from eqjax.layers import *
from eqjax.training import *
from eqjax.models import *
from eqjax.morphism import *
from eqjax.exchange import *
from eqjax.saving import *
from eqjax.analysis import *
from eqjax.population import *
from eqjax.search import *
