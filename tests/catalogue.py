"""Every layer and every constraint, each in a small setting, by name.

A new layer is one line here, and must obey the laws of layers (tests/layers), of the
morphism, and of encoded architectures. A new constraint in `eqjax.constraints` is here
by itself, and must obey those of tests/constraints.
"""

import dataclasses
import functools
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import eqjax as eq
from eqjax import constraints, training
from eqjax.fields.irreps import representations
from eqjax.population import encoding

RANDOM = nn.initializers.normal(1.0)


@dataclasses.dataclass(frozen=True)
class Case:
    """A layer as a function of its group, and the shape of its input.

    Attributes:
      make: group, other fields -> module, with every initializer random.
      ambient: group of the fiber.
      space: points per axis of the input.
      channels: channels of the input.
      lifts: takes an image without fiber axis.
      fiber_in: fiber of the input; regular if None.
      fiber_out: fiber of the output; None where the output has no fiber axis.
    """

    make: Callable[..., nn.Module]
    ambient: eq.Group
    space: tuple[int, ...]
    channels: int = 2
    lifts: bool = False
    fiber_in: eq.Fiber | None = None
    fiber_out: eq.Fiber | None = None

    def input(self, batch=2, dtype=np.float64):
        rng = np.random.default_rng(0)
        size = self.fiber_in.size if self.fiber_in else self.ambient.order
        fiber = () if self.lifts else (size,)
        shape = (batch, *self.space, *fiber, self.channels)
        return jnp.asarray(rng.normal(size=shape), dtype)

    def variables(self, group, dtype=np.float64):
        """Random variables, statistics included."""
        model = self.make(group)
        shapes = jax.eval_shape(model.init, jax.random.key(0), self.input(dtype=dtype))
        rng = np.random.default_rng(1)
        return jax.tree.map(
            lambda v: jnp.asarray(rng.uniform(0.5, 1.5, size=v.shape), dtype), shapes
        )


@functools.cache
def program(case):
    """One compiled program of a case for all groups, which it takes from its orbits."""
    return jax.jit(partial(case.make(case.ambient).apply, mutable=["batch_stats"]))


@functools.cache
def relaxation(case):
    """One compiled program that carries a case from any group to any other."""
    kind = {"model": case.make(case.ambient), "inputs": abstract(case)}
    return jax.jit(partial(encoding.relax, **kind))


def abstract(case):
    return jax.eval_shape(case.input)


def member(case, group, variables):
    """The encoded state of a case: its group is among its variables."""
    state = training.pack_state(variables, ())
    return encoding.encode(state, model=case.make(group), inputs=abstract(case))


@functools.cache
def orbits(case, group):
    """The tables of a group for a case, to relax it to."""
    return encoding.orbit_variables(case.make(group), abstract(case))


def full_arrays(case, state):
    """The full arrays of an encoded state, by numpy alone."""
    tables = state.collections["orbits"]
    found = {}
    for name, tie in case.make(case.ambient).ties.items():
        table = {key: np.asarray(value) for key, value in tables[name].items()}
        entries = np.asarray(state.params[name])
        if tie.parametrization == "orthonormal":
            size = np.maximum(table.get("size", table.get("orbit_size")), 1.0)
            size = np.repeat(size, len(entries) // len(size))
            entries = entries / np.sqrt(size).reshape(-1, *[1] * (entries.ndim - 1))
        if "carrier" in table:
            found[name] = steered(tie.table, entries, table)
        else:
            found[name] = entries[table["index"]]
    return found


def steered(made, entries, table):
    """Coefficients of every pair, each turned from those of its orbit's first pair."""
    ambient = made.fibers[0].ambient
    turns = representations(made.functions.irreps, ambient.matrices)
    own = entries.reshape(-1, made.functions.size, *entries.shape[1:])
    return np.einsum(
        "hgab,hgb...->ahg...", turns[table["carrier"]], own[table["index"]]
    )


def run(case, group, variables, x):
    """The output of a case over a group, by the one program for all groups."""
    return np.asarray(program(case)(member(case, group, variables).variables, x)[0])


def conv(make, *args, **settings):
    """Set every parameter at random, in the precision of the laws."""
    return partial(make, *args, param_dtype=jnp.float64, bias_init=RANDOM, **settings)


D4 = eq.dihedral(4)
FLIP = eq.flip()
MIRROR = D4.subgroup("D1:i")
HARMONICS = eq.CircularHarmonics()


def plane(make, space, **settings):
    settings.setdefault("fiber_out", eq.regular(D4))
    return Case(lambda H, **fields: make(group=H, **fields), D4, space, **settings)


def line(make, space, **settings):
    settings.setdefault("fiber_out", eq.regular(FLIP))
    return Case(lambda H, **fields: make(group=H, **fields), FLIP, space, **settings)


PLANE = {
    "lift 3x3": plane(conv(eq.LiftingConv, 2, 3), (4, 4), lifts=True),
    "lift 2x2 VALID": plane(
        conv(eq.LiftingConv, 2, 2, padding="VALID"), (4, 4), lifts=True
    ),
    "conv 3x3": plane(conv(eq.GroupConv, 3, 3), (4, 4)),
    "conv 1x1": plane(conv(eq.GroupConv, 3, 1), (3, 3)),
    "conv 3x3 without bias": plane(conv(eq.GroupConv, 3, 3, use_bias=False), (4, 4)),
    "conv 5x5 padding 1": plane(conv(eq.GroupConv, 1, (5, 5), padding=1), (4, 4)),
    "conv circular": plane(conv(eq.GroupConv, 2, 3, padding="CIRCULAR"), (4, 4)),
    "conv dilated": plane(conv(eq.GroupConv, 2, 3, kernel_dilation=2), (5, 5)),
    "conv strided on odd": plane(
        conv(eq.GroupConv, 2, 3, strides=2, padding=((1, 1), (1, 1))), (5, 5)
    ),
    "conv 2x2 strided on even": plane(
        conv(eq.GroupConv, 2, 2, strides=2, padding="VALID"), (6, 6)
    ),
    "conv 4x4 strided on even": plane(
        conv(eq.GroupConv, 1, 4, strides=2, padding=[1, 1]), (6, 6)
    ),
    "conv depthwise": plane(conv(eq.GroupConv, 4, 3, feature_group_count=2), (4, 4)),
    "conv orthonormal": plane(
        conv(eq.GroupConv, 2, 3, parametrization="orthonormal"), (4, 4)
    ),
    "conv to quotient": plane(
        conv(eq.GroupConv, 2, 3, fiber_out=eq.quotient(MIRROR)),
        (4, 4),
        fiber_out=eq.quotient(MIRROR),
    ),
    "lift of harmonics": plane(
        conv(eq.LiftingConv, 2, 5, basis=HARMONICS), (5, 5), lifts=True
    ),
    "conv of harmonics": plane(conv(eq.GroupConv, 2, 3, basis=HARMONICS), (4, 4)),
    "conv of harmonics, orthonormal and depthwise": plane(
        conv(
            eq.GroupConv,
            2,
            3,
            basis=HARMONICS,
            parametrization="orthonormal",
            feature_group_count=2,
        ),
        (4, 4),
    ),
    "transposed 2x2": plane(
        conv(eq.GroupConvTranspose, 2, 2, strides=2, padding="VALID"), (3, 3)
    ),
    "transposed 4x4 SAME": plane(conv(eq.GroupConvTranspose, 2, 4, strides=2), (3, 3)),
    "transposed 3x3 cut": plane(
        conv(eq.GroupConvTranspose, 2, 3, strides=2, padding=1), (3, 3)
    ),
    "head": plane(conv(eq.InvariantHead, 3), (3, 3), fiber_out=None),
    "batch norm": plane(
        conv(eq.BatchNorm, use_running_average=True, scale_init=RANDOM), (3, 3)
    ),
    "batch norm in training": plane(
        conv(eq.BatchNorm, use_running_average=False, scale_init=RANDOM), (3, 3)
    ),
    "conv from quotient": dataclasses.replace(
        plane(conv(eq.GroupConv, 2, 3, fiber_in=eq.quotient(MIRROR)), (4, 4)),
        fiber_in=eq.quotient(MIRROR),
    ),
    "layer norm": plane(conv(eq.LayerNorm, scale_init=RANDOM), (3, 3)),
    "RMS norm": plane(conv(eq.RMSNorm, scale_init=RANDOM), (3, 3)),
    "group norm": plane(conv(eq.GroupNorm, num_groups=2, scale_init=RANDOM), (3, 3)),
    "norm orthonormal": plane(
        conv(
            eq.BatchNorm,
            use_running_average=True,
            scale_init=RANDOM,
            parametrization="orthonormal",
        ),
        (3, 3),
    ),
}

LINE = {
    "lift 3": line(conv(eq.LiftingConv, 2, 3), (5,), lifts=True),
    "conv 4 padded": line(conv(eq.GroupConv, 2, 4, strides=2, padding=1), (6,)),
    "conv dilated": line(conv(eq.GroupConv, 2, 3, kernel_dilation=2), (5,)),
    "transposed 3": line(
        conv(eq.GroupConvTranspose, 2, 3, strides=2, padding="VALID"), (3,)
    ),
    "batch norm": line(
        conv(eq.BatchNorm, use_running_average=True, scale_init=RANDOM), (3,)
    ),
    "head": line(conv(eq.InvariantHead, 2), (3,), fiber_out=None),
}


def volume(ambient):
    """Layers over a group of the cube."""
    regular = eq.regular(ambient)
    quotient = eq.quotient(ambient.subgroup("C4", 0))

    def case(make, space, **settings):
        settings.setdefault("fiber_out", regular)

        return Case(
            lambda H, **fields: make(group=H, **fields),
            ambient,
            space,
            channels=1,
            **settings,
        )

    return {
        "lift 3x3x3": case(conv(eq.LiftingConv, 1, 3), (3, 3, 3), lifts=True),
        "conv 2x2x2": case(conv(eq.GroupConv, 1, 2, padding="VALID"), (3, 3, 3)),
        "conv 3x3x3 strided": case(
            conv(eq.GroupConv, 1, 3, strides=2, padding=1), (3, 3, 3)
        ),
        "batch norm": case(
            conv(eq.BatchNorm, use_running_average=True, scale_init=RANDOM), (2, 2, 2)
        ),
        "head": case(conv(eq.InvariantHead, 2), (2, 2, 2), fiber_out=None),
        "lift to quotient": case(
            conv(eq.LiftingConv, 1, 3, fiber_out=quotient),
            (3, 3, 3),
            lifts=True,
            fiber_out=quotient,
        ),
        "conv between quotients": case(
            conv(eq.GroupConv, 2, 3, fiber_in=quotient, fiber_out=quotient),
            (3, 3, 3),
            fiber_in=quotient,
            fiber_out=quotient,
        ),
    }


# Layers that take a constraint, one of every kind, and the constraints that they take.
CONSTRAINED = {
    name: PLANE[name]
    for name in (
        "conv circular",
        "conv depthwise",
        "conv strided on odd",
        "conv of harmonics",
        "transposed 2x2",
        "lift 3x3",
        "head",
        "conv orthonormal",
    )
}
CANDIDATES = (D4, D4.subgroup("C4"), D4.subgroup("C1"))


def constraint_cases():
    """Every registered constraint as it is by default, and as comparisons have it."""
    found = {"mixed": eq.Mixture(CANDIDATES)}
    for word, kind in constraints.CONSTRAINTS.items():
        found[word] = kind()
        if kind.compared_with:
            found[f"{word} as compared"] = kind(**kind.compared_with)
    for matrix in ("doubly stochastic", "free"):
        found[f"sharing, {matrix}"] = eq.LearnedSharing(matrix=matrix)
    found["sharing, apart"] = eq.LearnedSharing(apart=True)
    return found


CONSTRAINT_CASES = constraint_cases()


OF_HARMONICS = ("mixed", "residual", "gamma", "relaxed")  # enough of what they share


def combinations(layers):
    """Every constraint with every layer that takes it, (constraint, layer)."""
    return [
        (word, layer)
        for layer in layers
        for word in CONSTRAINT_CASES
        if "harmonics" not in layer or word in OF_HARMONICS
    ]
