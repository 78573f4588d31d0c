"""Every optimizer of optax moves as a child would have got there, or is refused."""

import functools
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import eqjax as eq
from eqjax import training
from eqjax.morphism.carrying import carry, value_weight
from eqjax.morphism.matching import match
from eqjax.morphism.moments import moment_weight
from eqjax.population import encoding
from eqjax.training.loop import updates_of
from tests.catalogue import D4

X = jax.ShapeDtypeStruct((1, 3, 3, 8, 1), jnp.float64)
REFUSED = "start a new optimizer"


NOT_MADE_OF_A_NUMBER = """
scale_by_muon scale_by_schedule stateless stateless_with_tree_map
""".split()


def found_optimizers():
    """All of optax that can be made without arguments or with one number."""
    found = {}
    for module in (optax, optax.contrib):
        for name in dir(module):
            make = getattr(module, name)
            if name[0] == "_" or name in NOT_MADE_OF_A_NUMBER or not callable(make):
                continue
            for arguments in ((), (0.1,)):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    try:
                        made = make(*arguments)
                        made.init({"a": jnp.ones((2, 2))})
                    except Exception:  # it takes something else
                        continue
                if isinstance(made, optax.GradientTransformation):
                    found[name] = made
                    break
    return found


OPTIMIZERS = {
    **found_optimizers(),
    "schedule_free": optax.contrib.schedule_free(optax.sgd(0.1), 0.1),
    "mechanize": optax.contrib.mechanize(optax.sgd(0.1)),
    "sam": optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.01)),
    "flatten": optax.flatten(optax.adam(0.1)),
    "skip": optax.apply_if_finite(optax.adam(0.1), 3),
    "accumulate": optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation(),
    # What they start with is no power of a gradient.
    "adagrad": optax.adagrad(0.1, initial_accumulator_value=0.0),
    "scale_by_rss": optax.scale_by_rss(initial_accumulator_value=0.0),
    "yogi": optax.chain(
        optax.scale_by_yogi(initial_accumulator_value=0.0), optax.scale(-0.1)
    ),
    "scale_by_yogi": optax.scale_by_yogi(initial_accumulator_value=0.0),
}
# These are carried; all others, those of later versions too, must be refused.
CARRIED = """
" accumulate acprop adabelief adagrad adam adamw adan adaptive_grad_clip
add_decayed_weights ademamix amsgrad apply_every centralize clip clip_by_block_rms
clip_by_global_norm ema freeze fromage hutchinson_estimator_diag_hessian identity
keep_params_nonnegative lamb lars lion nadam nadamw named_chain noisy_sgd normalize
normalize_by_update_norm optimistic_adam optimistic_adam_v2
optimistic_gradient_descent polyak_sgd radam reduce_on_plateau rmsprop scale
scale_by_acprop scale_by_adam scale_by_adan scale_by_ademamix scale_by_amsgrad
scale_by_backtracking_linesearch scale_by_belief scale_by_learning_rate scale_by_lion
scale_by_optimistic_gradient scale_by_param_block_norm scale_by_param_block_rms
scale_by_polyak scale_by_radam scale_by_rms scale_by_rss scale_by_sign
scale_by_simplified_ademamix scale_by_stddev scale_by_trust_ratio scale_by_yogi
set_to_zero sgd sign_sgd signum simplified_ademamix skip trace yogi zero_nans
""".split()


@functools.cache
def plan(parametrization="tied"):
    source = eq.GroupConv(1, 1, group=D4, parametrization=parametrization)
    return match(source, source.clone(group=D4.subgroup("C2")), X)


def layers():
    source = eq.GroupConv(1, 1, group=D4, param_dtype=jnp.float64)
    return source, source.clone(group=D4.subgroup("C2"))


def moved(flat, weight):
    moves = plan().moves
    return {n: carry(v, moves["params", n], weight) for n, v in flat.items()}


def drawn(count):
    rng = np.random.default_rng(0)
    shapes = {p[-1]: s.shape for p, s in plan().source.shapes.items()}
    return [
        {name: jnp.asarray(rng.normal(size=shape)) for name, shape in shapes.items()}
        for _ in range(count)
    ]


def states_after(optimizer, params, gradients):
    """The state after some steps that move nothing."""

    @jax.jit
    def run(params, gradients):
        state = optimizer.init(params)
        for g in gradients:

            def loss(params, g=g):
                return optax.tree.vdot(g, params), None

            _, state, _ = updates_of(loss, params, state, optimizer)
        return state

    return run(params, gradients)


# Whose moments or steps depend on a norm of tied arrays: carried, with a warning.
BY_NORMS = {"lars", "scale_by_backtracking_linesearch"}


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
@pytest.mark.filterwarnings("ignore:a link without state")
def test_a_carried_state_is_the_childs_own(name):
    optimizer = OPTIMIZERS[name]
    params, *gradients = drawn(4)
    state = states_after(optimizer, params, gradients)
    source, target = layers()
    kind = {"source": source, "target": target, "inputs": X}
    if name not in CARRIED:
        with pytest.raises(ValueError, match=rf"cannot carry .*State.*{REFUSED}"):
            eq.morph_optimizer(state, **kind, optimizer=optimizer)
        return
    carried = eq.morph_optimizer(state, **kind)
    child = [moved(g, functools.partial(moment_weight, power=1)) for g in gradients]
    own = states_after(optimizer, moved(params, value_weight), child)
    assert jax.tree.structure(own) == jax.tree.structure(carried)
    for a, b in zip(jax.tree.leaves(carried), jax.tree.leaves(own), strict=True):
        assert np.shape(a) == np.shape(b)
        if jnp.issubdtype(a.dtype, jnp.floating) and name not in BY_NORMS:
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_an_encoded_state_is_the_compact_one_or_is_refused(name):
    params, gradient = drawn(2)
    source, _ = layers()
    opt_state = states_after(OPTIMIZERS[name], params, [gradient])
    state = training.pack_state({"params": params}, opt_state)
    try:
        encoded = encoding.encode(state, model=source, inputs=X)
    except ValueError as error:
        assert "has no encoding" in str(error)  # noqa: PT017
        assert name not in CARRIED or name == "noisy_sgd"
        return
    decoded = encoding.decode(encoded, model=source, inputs=X)
    jax.tree.map(np.testing.assert_array_equal, decoded, state)


LINKS = {
    "global norm": optax.clip_by_global_norm(1.0),
    "entries": optax.clip(0.5),
    "block": optax.clip_by_block_rms(0.1),
    "units": optax.adaptive_grad_clip(0.01),
    "decay": optax.add_decayed_weights(0.1),
}


def measured(chain, parametrization="tied"):
    source = eq.GroupConv(2, 3, group=D4, parametrization=parametrization)
    target = source.clone(group=D4.smallest)
    x = jnp.ones((1, 3, 3, 8, 1))
    variables = jax.jit(source.init)(jax.random.key(0), x)
    kind = {"source": source, "target": target, "inputs": x}
    _, report = eq.morph(variables, **kind, optimizer=chain)
    state = chain.init(variables["params"])
    return report, functools.partial(eq.morph_optimizer, state, **kind)


@pytest.mark.parametrize("name", LINKS)
def test_the_report_tells_of_links_that_see_the_size_of_gradients(name):
    chain = optax.chain(LINKS[name], optax.adam(0.1))
    report, move = measured(chain)
    low, high = report.layers[0].measured_step
    assert report.layers[0].normalized_step == 1
    assert not (low > 0.99 and high < 1.01)
    assert f"x {low:.4g}" in str(report)
    with pytest.warns(UserWarning, match="a link without state stands before"):
        move()
    with pytest.warns(UserWarning, match=r"the next step of params/kernel is .* times"):
        move(optimizer=chain)


def test_a_global_norm_of_orthonormal_entries_is_that_of_the_full_arrays():
    clipped = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(0.1), eq.compensated_steps()
    )
    report, move = measured(clipped, "orthonormal")
    np.testing.assert_allclose(report.layers[0].measured_step, 1, rtol=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        move(optimizer=clipped)


@pytest.mark.parametrize("parametrization", ["tied", "orthonormal"])
def test_plain_chains_are_measured_as_reported(parametrization):
    for chain, field in (
        (optax.sgd(0.1, momentum=0.9), "gradient_step"),
        (optax.adamw(0.1), "normalized_step"),
        (optax.sign_sgd(0.1), "normalized_step"),
    ):
        change = measured(chain, parametrization)[0].layers[0]
        expected = getattr(change, field)
        np.testing.assert_allclose(change.measured_step, expected, rtol=1e-3)


class OwnState(NamedTuple):
    mu: Any


def test_a_name_is_no_meaning():
    """A state of one's own with the field of Adam's is not taken for it."""
    own = optax.GradientTransformation(
        lambda params: OwnState(params), lambda u, state, params=None: (u, state)
    )
    source, target = layers()
    state = own.init(drawn(1)[0])
    with pytest.raises(ValueError, match=r"test_optimizers\.OwnState .*unknown"):
        eq.morph_optimizer(state, source=source, target=target, inputs=X)


def test_moments_of_normalized_gradients_are_no_gradients():
    chain = optax.chain(optax.normalize_by_update_norm(), optax.adam(0.1))
    report, move = measured(chain)
    assert abs(report.layers[0].measured_step[0] - 1) > 0.01
    with pytest.raises(ValueError, match=r"mu of .* to the power .* and not 1"):
        move(optimizer=chain)
