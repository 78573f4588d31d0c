"""Neural networks whose symmetry is part of the architecture and can be searched."""

__version__ = "0.1.0"

from eqjax.analysis import (
    count_compilations as count_compilations,
    distances as distances,
    equivariance_error as equivariance_error,
)
from eqjax.architecture import (
    Architecture as Architecture,
    enumerate_architectures as enumerate_architectures,
    random_architecture as random_architecture,
)
from eqjax.augmentation import augment as augment
from eqjax.capacity import choose_strategy as choose_strategy
from eqjax.constraints import Constraint as Constraint, Tied as Tied
from eqjax.devices import Strategy as Strategy, device_mesh as device_mesh
from eqjax.differentiable import (
    DifferentiableSearch as DifferentiableSearch,
    random_gradients as random_gradients,
)
from eqjax.discretization import (
    collapse as collapse,
    discretize as discretize,
    mixtures as mixtures,
)
from eqjax.evolution import Evolution as Evolution
from eqjax.groups import (
    Group as Group,
    cyclic as cyclic,
    dihedral as dihedral,
    flip as flip,
    full_octahedral as full_octahedral,
    octahedral as octahedral,
)
from eqjax.layers import (
    GroupConv as GroupConv,
    GroupConvTranspose as GroupConvTranspose,
    InvariantHead as InvariantHead,
    LiftingConv as LiftingConv,
    transform as transform,
)
from eqjax.mixed import (
    MixedGroupConv as MixedGroupConv,
    MixedInvariantHead as MixedInvariantHead,
    MixedLiftingConv as MixedLiftingConv,
    Mixture as Mixture,
)
from eqjax.models import (
    EquivariantCNN as EquivariantCNN,
    exact as exact,
    paper as paper,
)
from eqjax.morphism import (
    compensated_steps as compensated_steps,
    morph as morph,
    morph_optimizer as morph_optimizer,
)
from eqjax.norms import (
    BatchNorm as BatchNorm,
    ElementBatchNorm as ElementBatchNorm,
    GroupNorm as GroupNorm,
    LayerNorm as LayerNorm,
    RMSNorm as RMSNorm,
)
from eqjax.orbits import (
    Fiber as Fiber,
    quotient as quotient,
    regular as regular,
    trivial as trivial,
)
from eqjax.pooling import (
    FieldDropout as FieldDropout,
    avg_pool as avg_pool,
    fiber_pool as fiber_pool,
    max_pool as max_pool,
    upsample as upsample,
)
from eqjax.population import Population as Population
from eqjax.relaxations import (
    PartialGroup as PartialGroup,
    RelaxedWeights as RelaxedWeights,
    ResidualPathway as ResidualPathway,
    SoftProjection as SoftProjection,
)
from eqjax.windows import window as window
