"""Bad settings and inputs of layers, pools and constraints."""

import jax.numpy as jnp
import numpy as np
import pytest

import eqjax as eq
from tests.faults.refusing import C4, D4, FIELD, IMAGE, KEY, refused, run, table

CONVS = {
    "LiftingConv": (eq.LiftingConv, IMAGE),
    "GroupConv": (eq.GroupConv, FIELD),
    "GroupConvTranspose": (eq.GroupConvTranspose, FIELD),
    "InvariantHead": (eq.InvariantHead, FIELD),
}
NORMS = {
    "BatchNorm": lambda **s: eq.BatchNorm(use_running_average=False, **s),
    "ElementBatchNorm": lambda **s: eq.ElementBatchNorm(use_running_average=False, **s),
    "LayerNorm": lambda **s: eq.LayerNorm(**s),
    "RMSNorm": lambda **s: eq.RMSNorm(**s),
    "GroupNorm": lambda **s: eq.GroupNorm(num_groups=1, **s),
}


def conv_cases(make, x):
    """Of all convolutions."""

    def bad(match, x=x, features=2, **settings):
        kernel = {"kernel_size": settings.pop("kernel_size", 1)}
        settings = {"group": D4, **kernel, **settings}
        return lambda: run(make(features, **settings), x), match

    cases = [
        bad("needs a Group, such as .* got group='D4'", group="D4"),
        bad("features must be at least 1, got 0", features=0),
        bad("features must be a whole number, got '2'", features="2"),
        bad("features must be a whole number, got 2.5", features=2.5),
        bad("features must be a whole number, got None", features=None),
        bad("kernel_size must be a positive integer", kernel_size=0),
        bad("kernel_size must be a positive integer", kernel_size="3"),
        bad("kernel_size must be .* or 2 of them", kernel_size=(3, 3, 3)),
        bad("kernel_size must be a positive integer", kernel_size=np.nan),
        bad("strides must be a positive integer", strides=0),
        bad("strides must be a positive integer", strides=1.5),
        bad("kernel_dilation must be a positive integer", kernel_dilation=-1),
        bad("padding must be one of", padding=None),
        bad("padding must be one of .* nearest: 'SAME'", padding="sam"),
        bad("parametrization must be .* got", parametrization="free"),
        bad("needs a Constraint, such as eq.Tied", constraint="tied"),
        bad("basis should be None, 'pixels' or", basis="taps"),
        bad("must divide both|no feature groups", feature_group_count=0),
        bad("dtype must be floating or complex, got int32", dtype=jnp.int32),
        bad("dtype must be a dtype, .* got 'sing'", dtype="sing"),
        bad("param_dtype must be .*, got int8", param_dtype=jnp.int8),
        bad("takes .* got \\(2, 3\\)|shape \\(2, 3\\)", x=FIELD[0, 0, 0, :2]),
        bad("x must be an array, got a list", x=FIELD.tolist()),
        bad("x must be an array, got a NoneType", x=None),
        bad("fiber_in must be a Fiber|must be None", fiber_in="regular"),
        bad("fiber_out must be a Fiber|must be None", fiber_out=8),
    ]
    if make is not eq.LiftingConv:
        cases += [
            bad("takes a field of shape .* got", x=FIELD[..., :7, :]),
            bad("images go through LiftingConv", x=IMAGE),
            bad("does not fit|nothing to average", x=FIELD[:, :0], padding="VALID"),
        ]
    if make is eq.LiftingConv:
        cases += [
            bad("fields go through GroupConv", x=FIELD),
            bad("expected channels last", x=np.zeros((2, 3, 32, 32), np.float32)),
        ]
    return cases


def norm_cases(make):
    """Of all norms."""

    def bad(match, x=FIELD, **settings):
        return lambda: run(make(**{"group": D4, **settings}), x), match

    return [
        bad("needs a Group, such as .* got group=None", group=None),
        bad("epsilon must be a number, got 'a'", epsilon="a"),
        bad("epsilon must be at least 0, got -1.0", epsilon=-1.0),
        bad("epsilon must be at least 0, got nan", epsilon=np.nan),
        bad("parametrization must be .* got", parametrization=1),
        bad("always Tied, got constraint", constraint=eq.SoftProjection()),
        bad("fiber must be a Fiber, .* got 'regular'", fiber="regular"),
        bad("dtype must be a dtype, .* got 'sing'", dtype="sing"),
        bad("takes a field of shape .* got", x=FIELD[..., :7, :]),
        bad("takes a field of shape .* got", x=IMAGE),
        bad("x must be an array, got a list", x=FIELD.tolist()),
    ]


def pool_cases(pool):
    """Of both poolings over space."""

    def bad(match, *arguments, **settings):
        return lambda: pool(*arguments, **settings), match

    return [
        bad("x must be an array, got a list", FIELD.tolist(), 2),
        bad("x must be an array, got a NoneType", None, 2),
        bad("expected a field .* got \\(4, 4\\)", FIELD[0, :, :, 0, 0], 2),
        bad("window must be a positive integer", FIELD, 0),
        bad("window must be a positive integer", FIELD, "2"),
        bad("window must be a positive integer", FIELD, None),
        bad("expected a field|window must be", FIELD, (2, 2, 2, 2)),
        bad("strides must be a positive integer", FIELD, 2, 0),
        bad("padding must be one of", FIELD, 2, 2, None),
        bad("SAME, VALID or integers, got 'CIRCULAR'", FIELD, 2, 2, "CIRCULAR"),
        bad("a window of \\(5, 5\\) .* does not fit", FIELD, 5),
    ]


def mixed(make):
    """Of the shorthands for mixtures."""
    return [
        (lambda: make(2, 3, groups=()), "at least one candidate group, got none"),
        (lambda: make(2, 3, groups=("D4",)), "candidates must be Groups"),
        (lambda: make(2, 3, groups=D4), "groups must be several"),
        (lambda: make(2, 3, groups=(D4, eq.flip())), "need one ambient group"),
        (lambda: make(2, 3, groups=(D4, C4), temperature=0), "must be positive"),
        (lambda: make(2, 3, groups=(D4, C4), skip="no"), "skip must be None"),
    ]


CASES = {name: conv_cases(*case) for name, case in CONVS.items()}
CASES |= {name: norm_cases(make) for name, make in NORMS.items()}
CASES["BatchNorm"] += [
    (lambda: eq.BatchNorm(group=D4, momentum=2.0), r"momentum must be in \[0, 1\]"),
    (lambda: eq.BatchNorm(group=D4, momentum="a"), "momentum must be a number"),
]
CASES["GroupNorm"] += [
    (lambda: run(eq.GroupNorm(num_groups=2, group=D4), FIELD), "must divide the 3"),
    (lambda: run(eq.GroupNorm(num_groups=0, group=D4), FIELD), "must divide .* got 0"),
    (lambda: run(eq.GroupNorm(num_groups="1", group=D4), FIELD), "a whole number"),
]
CASES |= {
    "avg_pool": pool_cases(eq.avg_pool),
    "max_pool": [
        *pool_cases(eq.max_pool),
        (lambda: eq.max_pool(FIELD * 1j, 2), "complex numbers have no maximum"),
    ],
    "fiber_pool": [
        (lambda: eq.fiber_pool(FIELD, group="D4"), "group must be a Group"),
        (lambda: eq.fiber_pool(FIELD, group=D4, reduce="sum"), "reduce must be .* got"),
        (lambda: eq.fiber_pool(FIELD, group=D4, to=None), "to must be .* got"),
        (lambda: eq.fiber_pool(IMAGE, group=D4), "expected a field"),
        (lambda: eq.fiber_pool(FIELD.tolist(), group=D4), "x must be an array"),
        (lambda: eq.fiber_pool(FIELD * 1j, group=D4, reduce="max"), "no maximum"),
    ],
    "upsample": [
        (lambda: eq.upsample(FIELD, 0), "factor must be a positive integer, got 0"),
        (lambda: eq.upsample(FIELD, 1.5), "factor must be a positive integer"),
        (lambda: eq.upsample(FIELD, "2"), "factor must be a positive integer"),
        (lambda: eq.upsample(FIELD, 2, method="cubic"), "method must be .* got"),
        (lambda: eq.upsample(None, 2), "x must be an array, got a NoneType"),
        (lambda: eq.upsample(FIELD[0, 0, 0], 2), "expected a field"),
    ],
    "FieldDropout": [
        (lambda: eq.FieldDropout(1.5), r"rate must be in \[0, 1\], got 1.5"),
        (lambda: eq.FieldDropout(np.nan), r"rate must be in \[0, 1\], got nan"),
        (lambda: eq.FieldDropout("half"), "rate must be a number, got 'half'"),
        (
            lambda: run(eq.FieldDropout(0.5, deterministic=True), FIELD[0, 0, 0]),
            "expected a field",
        ),
        (
            lambda: run(eq.FieldDropout(0.5, deterministic=True), [1.0]),
            "x must be an array",
        ),
    ],
    "MixedGroupConv": mixed(eq.MixedGroupConv),
    "MixedLiftingConv": mixed(eq.MixedLiftingConv),
    "MixedInvariantHead": mixed(eq.MixedInvariantHead),
    "IrrepsConv": [
        (
            lambda: run(eq.IrrepsConv("1", 3, irreps_in="0e", group="D4"), IMAGE),
            "needs a Group",
        ),
        (
            lambda: run(eq.IrrepsConv("1z", 3, irreps_in="0e", group=D4), IMAGE),
            "expected irreps of",
        ),
        (
            lambda: run(eq.IrrepsConv("1", 3, irreps_in=None, group=D4), IMAGE),
            "expected irreps of",
        ),
        (
            lambda: run(eq.IrrepsConv("1", 3, irreps_in="2x0e", group=D4), IMAGE),
            "got|expected",
        ),
        (
            lambda: run(eq.IrrepsConv("1", 0, irreps_in="0e", group=D4), IMAGE),
            "kernel_size must be a positive",
        ),
        (
            lambda: run(eq.IrrepsConv("1", 3, irreps_in="0e", group=D4), [1.0]),
            "x must be an array",
        ),
    ],
    "IrrepsLinear": [
        (
            lambda: run(eq.IrrepsLinear("1o", irreps_in="1o", group="O3"), IMAGE),
            "needs a Group",
        ),
        (
            lambda: run(
                eq.IrrepsLinear("1o", irreps_in="1q", group=eq.orthogonal()), IMAGE
            ),
            "expected irreps",
        ),
        (
            lambda: run(
                eq.IrrepsLinear("1o", irreps_in="1o", group=eq.orthogonal()), IMAGE
            ),
            "got|expected",
        ),
        (
            lambda: run(
                eq.IrrepsLinear("1o", irreps_in="1o", group=eq.orthogonal()), None
            ),
            "x must be an array",
        ),
    ],
    "Constraint": [],
    "Tied": [],
    "PartialGroup": [],
    "Mixture": [
        (lambda: eq.Mixture(()), "at least one candidate group"),
        (lambda: eq.Mixture(("D4",)), "candidates must be Groups"),
        (lambda: eq.Mixture(D4), "groups must be several"),
        (lambda: eq.Mixture((D4, D4)), "named twice"),
        (lambda: eq.Mixture((D4,), temperature="1"), "temperature must be a number"),
        (lambda: eq.Mixture((D4,), temperature=np.nan), "temperature must be positive"),
        (lambda: eq.Mixture((D4,), prior=-1.0), r"prior must be in \[0, 10\]"),
        (lambda: eq.Mixture((D4,), prior=None), "prior must be a number, got None"),
        (lambda: eq.Mixture((D4,), skip="both"), "skip must be None"),
    ],
    "SoftProjection": [
        (lambda: eq.SoftProjection("soft"), "softness must be a number, got 'soft'"),
        (lambda: eq.SoftProjection(2.0), r"softness must be in \[0, 1\], got 2.0"),
        (lambda: eq.SoftProjection(np.nan), r"softness must be in \[0, 1\]"),
        (lambda: eq.SoftProjection(1.0, learned=True), "between 0 and 1, got 1.0"),
    ],
    "ResidualPathway": [
        (lambda: eq.ResidualPathway(tied_precision=0.0), "must be positive, got 0.0"),
        (lambda: eq.ResidualPathway(residual_precision="a"), "must be a number"),
    ],
    "RelaxedWeights": [
        (lambda: eq.RelaxedWeights(banks=0), "banks must be at least 1, got 0"),
        (lambda: eq.RelaxedWeights(banks=1.5), "banks must be a whole number"),
    ],
    "RelaxedOutputs": [
        (lambda: eq.RelaxedOutputs(banks="2"), "banks must be a whole number"),
        (lambda: eq.RelaxedOutputs(banks=-1), "banks must be at least 1"),
    ],
    "LearnedSharing": [
        (lambda: eq.LearnedSharing(matrix="rows"), "matrix must be one of"),
        (lambda: eq.LearnedSharing(spread=0.0), r"spread must be in \(0, 1\]"),
        (lambda: eq.LearnedSharing(own="a"), "own must be a number, got 'a'"),
        (lambda: eq.LearnedSharing(trace=np.nan), "trace must be at least 0, got nan"),
    ],
    "GammaProjection": [
        (lambda: eq.GammaProjection(start=-1.0), "start must be at least 0"),
        (lambda: eq.GammaProjection(precision=None), "precision must be a number"),
        (
            lambda: eq.GroupConv(
                2, 3, group=D4, constraint=eq.GammaProjection(("C4", "X"))
            ),
            "has no subgroup 'X'",
        ),
    ],
    "NonStationary": [
        (lambda: eq.NonStationary(width=0.0), "width must be positive, got 0.0"),
        (lambda: eq.NonStationary(width="w"), "width must be a number, got 'w'"),
        (lambda: eq.NonStationary(precision=np.nan), "precision must be at least 0"),
    ],
}


@table(CASES)
def test_bad_calls_are_refused(call, match):
    refused(call, match)


@pytest.mark.parametrize("name", [*CONVS, *NORMS])
def test_a_batch_of_none_and_not_a_number_are_taken(name):
    """What is not a number stays so: it is neither hidden nor refused."""
    if name in CONVS:
        make, x = CONVS[name]
        layer = make(2, kernel_size=1, group=D4)
    else:
        layer, x = NORMS[name](group=D4), FIELD
    variables = layer.init(KEY, x)
    settings = {"mutable": ["batch_stats"]}
    assert layer.apply(variables, x[:0], **settings)[0].shape[0] == 0
    y = layer.apply(variables, np.full_like(x, np.nan), **settings)[0]
    assert np.isnan(np.asarray(y)).all()
