"""A mixed layer is the weighted sum of its candidates' layers."""

import functools

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqjax as eq
from eqjax import kernels
from eqjax.constraints.base import Tied
from tests.catalogue import CONSTRAINED, D4, FLIP
from tests.tolerances import BROKEN, DOUBLE

NAMES = ("D4", "C4", "D2", "C2", "D1", "C1")
SIX = tuple(D4.subgroup(name) for name in NAMES)
FOUR = tuple(D4.subgroup(name) for name in ("C4", "D1:i", "D1:i+j", "D1:j"))


def make(name, groups=SIX, **mixture):
    """Return layer, variables with random logits, and input."""
    case = CONSTRAINED[name]
    mixed = case.make(D4, constraint=eq.Mixture(groups, **mixture))
    x = case.input()
    variables = jax.jit(mixed.init)(jax.random.key(1), x)
    logits = jax.random.normal(jax.random.key(2), (len(mixed.constraint.names),))
    return mixed, {**variables, "mixture": {"logits": logits}}, x


def separate(mixed, variables, group):
    """Return the candidate's own layer and its variables."""
    plain = mixed.clone(group=group, constraint=Tied())
    own = {name: variables["params"][f"{name}_{group.name}"] for name in plain.ties}
    return plain, {"params": own}


@pytest.mark.parametrize(
    ("groups", "hold_norm"), [(SIX, True), (FOUR, False)], ids=["six held", "four free"]
)
@pytest.mark.parametrize("case", CONSTRAINED)
def test_equals_the_sum_of_separate_layers(case, groups, hold_norm):
    mixed, variables, x = make(case, groups, hold_norm=hold_norm, temperature=0.7)

    @jax.jit
    def both(variables):
        z = jax.nn.softmax(variables["mixture"]["logits"] / 0.7)
        total = 0
        for weight, group in zip(z, groups, strict=True):
            plain, own = separate(mixed, variables, group)
            total += weight * plain.apply(own, x)
        return mixed.apply(variables, x), total

    found, expected = both(variables)
    np.testing.assert_allclose(found, expected, rtol=DOUBLE, atol=DOUBLE)


@pytest.mark.parametrize("case", ["conv circular", "lift 3x3", "head"])
def test_at_one_hot_weights_it_is_that_layer(case):
    mixed, variables, x = make(case)
    apply = jax.jit(mixed.apply)
    measure = jax.jit(lambda v: eq.distances(v, model=mixed, inputs=x))
    for i, group in enumerate(SIX):
        logits = jnp.full(6, -jnp.inf).at[i].set(0.3)
        variables = {**variables, "mixture": {"logits": logits}}
        plain, own = separate(mixed, variables, group)
        found = apply(variables, x)
        np.testing.assert_allclose(found, plain.apply(own, x), rtol=1e-13, atol=1e-13)
        ledger = measure(variables)[()]
        for other in D4.subgroups:
            if other <= group:
                assert ledger[other.name] < 1e-15
            elif case != "head":  # whose kernel is invariant to more than it is told
                assert ledger[other.name] > BROKEN
    collapsed, layer, report = eq.collapse(variables, model=mixed, inputs=x)
    assert layer.group == SIX[-1]
    assert layer.constraint == Tied()
    np.testing.assert_allclose(layer.apply(collapsed, x), found, rtol=DOUBLE)
    assert report.layers[0].relative_change < DOUBLE


@pytest.mark.parametrize("groups", [SIX[1:], FOUR[:2], FOUR], ids=len)
def test_commutes_with_exactly_what_the_candidates_share(groups):
    mixed, variables, x = make("conv circular", groups)
    shared = mixed.constraint.symmetry(mixed.group)
    fn = jax.jit(functools.partial(mixed.apply, variables))
    assert eq.equivariance_error(fn, x, group=shared) < DOUBLE
    for u in set(D4.elements) - set(shared.elements):
        group = D4.generated_by([u])
        assert eq.equivariance_error(fn, x, group=group) > BROKEN


def test_equal_logits_mean_equal_output_variance():
    rows = []
    for group in SIX:
        layer = eq.GroupConv(32, 3, group=group, use_bias=False)
        x = jax.random.normal(jax.random.key(0), (4, 4, 4, 8, 16))
        y, _ = jax.jit(layer.init_with_output)(jax.random.key(1), x)
        rows.append(float(jnp.var(y)))
    np.testing.assert_allclose(rows, np.mean(rows), rtol=0.1)
    mixed = eq.MixedGroupConv(32, 3, groups=SIX)
    logits = jax.jit(mixed.init)(jax.random.key(0), x)["mixture"]["logits"]
    np.testing.assert_allclose(mixed.constraint.weights(logits), 1 / 6, rtol=1e-6)


def test_a_prior_starts_below_the_largest_group():
    mixture = eq.Mixture(SIX, prior=2.0)
    np.testing.assert_array_equal(mixture.initial_logits, [0] + [-2] * 5)
    np.testing.assert_array_equal(eq.Mixture(SIX[:2]).initial_logits, [0, 0])
    skipping = eq.Mixture(SIX[:2], prior=1.0, skip="inside")
    np.testing.assert_array_equal(skipping.initial_logits, [0, -1, -1])
    skipping = eq.Mixture(SIX[:2], prior=1.0, skip="outside")
    np.testing.assert_array_equal(skipping.initial_logits, [0, -1, 0])


def test_a_logit_belongs_to_its_group_however_candidates_are_listed():
    one, two = eq.Mixture(SIX), eq.Mixture(SIX[::-1])
    assert one == two
    assert hash(one) == hash(two)
    assert two.names == ("D4", "C4", "D2:i", "C2", "D1:i", "C1")


def test_held_kernels_keep_their_norm_and_free_ones_do_not():
    for hold_norm in (True, False):
        mixed, variables, x = make("conv circular", hold_norm=hold_norm)
        kernels_only = {n: v for n, v in variables["params"].items() if "bias" not in n}
        larger = {**variables["params"], **jax.tree.map(lambda v: 3 * v, kernels_only)}
        before = mixed.apply(variables, x)
        after = mixed.apply({**variables, "params": larger}, x)
        assert np.allclose(before, after) == hold_norm


def test_a_kernel_of_zeros_has_a_finite_gradient():
    layer = eq.MixedGroupConv(2, 3, groups=SIX, kernel_init=nn.initializers.zeros)
    x = jnp.ones((1, 3, 3, 8, 2))
    variables = jax.jit(layer.init)(jax.random.key(0), x)
    gradient = jax.jit(jax.grad(lambda v: layer.apply(v, x).sum()))(variables)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("hold_norm", [True, False])
@pytest.mark.parametrize("skip", ["inside", "outside"])
def test_skip_adds_the_identity(skip, hold_norm):
    mixed, variables, x = make("conv circular", skip=skip, hold_norm=hold_norm)
    logits = variables["mixture"]["logits"]
    z = mixed.constraint.weights(logits)
    if skip == "inside":
        np.testing.assert_allclose(z, jax.nn.softmax(logits))
    else:
        np.testing.assert_allclose(z[:6], jax.nn.softmax(logits[:6]))
        np.testing.assert_allclose(z[6], jax.nn.sigmoid(logits[6]))
    expected = z[6] * x
    for weight, group in zip(z[:6], SIX, strict=True):
        plain, own = separate(mixed, variables, group)
        expected += weight * plain.apply(own, x)
    np.testing.assert_allclose(mixed.apply(variables, x), expected, atol=DOUBLE)
    found = eq.mixtures(variables, model=mixed, inputs=x)[()]
    assert list(found)[-1] == "skip"
    plain, layer, _ = eq.collapse(variables, model=mixed, inputs=x)
    np.testing.assert_allclose(layer.apply(plain, x), expected, atol=DOUBLE)


@pytest.mark.parametrize(
    "settings",
    [{"strides": 2}, {"padding": "VALID"}, {"feature_group_count": 2}],
    ids=lambda settings: next(iter(settings)),
)
def test_a_skip_of_a_layer_that_moves_or_splits(settings):
    with pytest.raises(
        ValueError,
        match="a skip adds the identity: the identity needs strides of 1, padding",
    ):
        eq.MixedGroupConv(2, 3, groups=SIX, skip="inside", **settings)


@pytest.mark.parametrize(
    "layer",
    [
        eq.MixedGroupConv(3, 3, groups=SIX, skip="inside"),
        eq.MixedGroupConv(2, 2, groups=SIX, skip="outside"),
    ],
)
def test_a_skip_that_cannot_be(layer):
    with pytest.raises(ValueError, match="identity needs as many channels .* odd taps"):
        layer.init(jax.random.key(0), jnp.ones((1, 3, 3, 8, 2)))


def test_the_named_layers():
    assert eq.MixedGroupConv(2, 3, groups=SIX).group == D4
    assert eq.MixedGroupConv(2, 3, groups=FOUR[1::2]).group.name == "D2:i"
    assert isinstance(eq.MixedLiftingConv(2, 3, groups=SIX), eq.LiftingConv)
    head = eq.MixedInvariantHead(2, groups=SIX, temperature=2.0, use_bias=False)
    assert isinstance(head, eq.InvariantHead)
    assert head.constraint.temperature == 2
    assert not head.use_bias


@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        ((), ValueError, "at least one candidate"),
        (("C4",), TypeError, "must be Groups.*'C4'"),
        ((D4, D4), ValueError, "D4 is named twice"),
        ((D4, FLIP), ValueError, "one ambient group"),
    ],
)
def test_bad_candidates(groups, error, message):
    with pytest.raises(error, match=message):
        eq.MixedGroupConv(2, 3, groups=groups)


def test_a_candidate_that_is_no_subgroup_of_the_layers_group():
    with pytest.raises(ValueError, match=r"\(D4\) is not a subgroup.*C4, C2, C1"):
        eq.GroupConv(2, 3, group=D4.subgroup("C4"), constraint=eq.Mixture(SIX[:2]))
    with pytest.raises(ValueError, match="is not a subgroup of the layer's group"):
        eq.GroupConv(2, 3, group=D4, constraint=eq.Mixture((eq.cyclic(4),)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature must be positive, got 0"),
        (
            {"prior": 11.0},
            r"prior must be in \[0, 10\], ten times the temperature, got",
        ),
        ({"prior": -1.0}, "prior must be in"),
        ({"skip": "beside"}, "skip must be None, 'inside' or 'outside', got 'beside'"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        eq.Mixture(SIX, **settings)
    with pytest.raises(TypeError, match="needs a Constraint"):
        eq.GroupConv(2, 3, group=D4, constraint="mixed")
    with pytest.raises(ValueError, match="of LayerNorm are always Tied"):
        eq.LayerNorm(group=D4, constraint=eq.Mixture(SIX))


def test_logits_of_the_wrong_length():
    mixed, variables, x = make("conv circular")
    wrong = {**variables, "mixture": {"logits": jnp.zeros(5)}}
    with pytest.raises(ValueError, match=r"logits has shape \(5,\), expected \(6,\)"):
        mixed.apply(wrong, x)
    with pytest.raises(
        ValueError, match=r"shape \(5,\), expected \(6,\).*D4, C4, D2:i"
    ):
        eq.mixtures(wrong, model=mixed, inputs=x)
    with pytest.raises(ValueError, match="no logits of layer the model itself"):
        eq.mixtures({}, model=mixed, inputs=x)
    elsewhere = {"mixture": {**wrong["mixture"], "conv": {"logits": jnp.zeros(6)}}}
    elsewhere["mixture"]["logits"] = jnp.zeros(6)
    with pytest.raises(ValueError, match="has no mixed layer conv"):
        eq.mixtures(elsewhere, model=mixed, inputs=x)


def test_a_checkpoint_with_other_candidates():
    mixed, variables, x = make("conv circular", SIX)
    _, others, _ = make("conv circular", FOUR)
    target = mixed.clone(constraint=Tied())
    with pytest.raises(ValueError, match="source model has no variable params/"):
        eq.morph(others, source=mixed, target=target, inputs=x)
    with pytest.raises(flax.errors.ScopeParamNotFoundError, match="kernel_D4"):
        mixed.apply(others, x)
    del variables["mixture"]
    with pytest.raises(ValueError, match="lack mixture/logits"):
        eq.morph(variables, source=mixed, target=target, inputs=x)


def test_a_mixed_layer_over_the_cube_and_under_vmap():
    OH = eq.full_octahedral()
    groups = (OH, OH.subgroup("T"))
    layer = eq.MixedLiftingConv(1, 2, groups=groups, padding="VALID")
    x = jax.random.normal(jax.random.key(0), (1, 3, 3, 3, 1))
    many = jax.vmap(lambda key: layer.init(key, x))(jax.random.split(jax.random.key(0)))
    stacked = jax.jit(jax.vmap(lambda v: layer.apply(v, x)))(many)
    for i in range(2):
        one = layer.apply(jax.tree.map(lambda v, i=i: v[i], many), x)
        np.testing.assert_allclose(stacked[i], one, rtol=1e-5, atol=1e-6)


def test_the_gradient_of_a_logit_is_that_of_its_candidate():
    mixed, variables, x = make("conv circular")

    @jax.jit
    def loss(logits):
        return jnp.sum(
            mixed.apply({**variables, "mixture": {"logits": logits}}, x) ** 2
        )

    logits = variables["mixture"]["logits"]
    gradient, step = jax.grad(loss)(logits), 1e-5
    for i in range(6):
        shift = jnp.zeros(6).at[i].set(step)
        slope = (loss(logits + shift) - loss(logits - shift)) / (2 * step)
        np.testing.assert_allclose(gradient[i], slope, rtol=1e-6, atol=1e-5)


def test_distance_is_that_of_the_kernel_that_is_used():
    mixed, variables, x = make("conv circular")
    full = mixed.read(
        {(kind, n): v for kind, tree in variables.items() for n, v in tree.items()}
    )["kernel"]
    ledger = eq.distances(variables, model=mixed, inputs=x, groups=SIX)[()]
    assert list(ledger) == [H.name for H in SIX]
    for H in SIX:
        projected = kernels.reynolds(full, mixed.ties_of(H)["kernel"].table)
        expected = np.linalg.norm(full - projected) / np.linalg.norm(full)
        np.testing.assert_allclose(ledger[H.name], expected, rtol=DOUBLE, atol=DOUBLE)
