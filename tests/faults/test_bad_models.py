"""Bad calls of models, and of what carries, saves, measures and searches them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import eqjax as eq
from eqjax.search import GeneratorSpace
from tests.faults import test_bad_groups, test_bad_layers
from tests.faults.refusing import (
    ADAM,
    C4,
    D4,
    FIELD,
    GROUPS,
    IMAGE,
    KEY,
    LABELS,
    MADE,
    MODEL,
    RELAXED,
    SMALL,
    refused,
    run,
    table,
)
from tests.test_layout import PUBLIC

NOTHING = {"flip", "octahedral", "full_octahedral", "count_compilations"}
NOTHING |= {"compensated_steps", "Constraint", "Tied", "PartialGroup"}
DATA = (IMAGE, LABELS)
OTHER = eq.exact(GROUPS, **{**SMALL, "features": (3,)})
FLIPS = eq.exact(eq.Architecture.uniform(eq.flip(), 2), **SMALL)
WHOLE = jnp.zeros((2, 6, 6, 1), jnp.int32)


def network_cases(make):
    """Of all that builds the backbone."""

    def bad(match, groups=GROUPS, **settings):
        settings = {**SMALL, "head": "invariant", **settings}
        return lambda: make(groups, **settings), match

    def called(match, x):
        return lambda: run(make(GROUPS, **SMALL, head="invariant"), x), match

    return [
        bad("architecture must be an Architecture, .* got 'D4 D4'", groups="D4 D4"),
        bad("architecture must be an Architecture, .* got Group", groups=D4),
        bad("need 3 groups, got 2", features=(2, 2)),
        bad("features must be a sequence of whole numbers, got 8", features=8),
        bad("features must be at least 1, got 0", features=(0,)),
        bad("features must be a whole number, got 'a'", features=("a",)),
        bad("kernel_size must be .* got 0", kernel_size=0),
        bad("kernel_size must be .* got '5'", kernel_size="5"),
        bad("one for each of the 1 convolutions", kernel_size=(3, 3)),
        bad("pool_after must name convolutions 1 to 1", pool_after=(2,)),
        bad("pool_after must be a sequence of whole", pool_after=1),
        bad("head_features must be at least 1, got 0", head_features=0),
        bad("classes must be a whole number, got None", classes=None),
        bad("norm must be .* got", norm="batch"),
        bad("pooling must be one of", pooling="max"),
        bad("head must be .* got", head=None),
        bad("parametrization must be .* got", parametrization="free"),
        bad("constraint must be one, or one for each of the 2", constraint=()),
        bad("constraint must be several Constraints, or one", constraint="tied"),
        bad("constraint must hold Constraints", constraint=(D4, D4)),
        bad("stabilizer must be a Group", stabilizer="C4"),
        bad("dtype must be a dtype", dtype="sing"),
        called("takes an image of shape", FIELD),
        called("x must be an array, got a list", IMAGE.tolist()),
        called("expected channels last", np.zeros((2, 3, 32, 32), np.float32)),
    ]


def morphism_cases(move, others=()):
    """Of all that carries something from a source to a target."""

    def bad(match, **settings):
        pair = {"source": MODEL, "target": RELAXED, "inputs": IMAGE}
        return lambda: move(**{**pair, **settings}), match

    return [
        bad("source must be a linen module, .* got 'exact'", source="exact"),
        bad("source must be a linen module, .*call it first", source=eq.exact),
        bad("target must be a linen module, .* got None", target=None),
        bad("has widths|has shape|larger|smaller|lack", target=OTHER),
        bad("acts on|takes an image|lives over", target=FLIPS),
        bad("inputs must be an array|x must be an array", inputs=None),
        bad("takes an image of shape", inputs=FIELD),
        *[bad(match, **settings) for match, settings in others],
    ]


def variables_cases(read, others=()):
    """Of all that takes variables, a model and inputs."""

    def bad(match, variables=None, **settings):
        own = MADE.variables if variables is None else variables
        given = {"model": MODEL, "inputs": IMAGE, **settings}
        return lambda: read(own, **given), match

    def late(match, variables):
        return lambda: read(variables, model=MODEL, inputs=IMAGE), match

    return [
        late("variables must be a dict of collections", None),
        late("variables must be a dict of collections", [1.0]),
        late("lack|no logits", {}),
        (
            lambda: read(MADE.variables, model="exact", inputs=IMAGE),
            "model must be a linen module",
        ),
        (
            lambda: read(MADE.variables, model=MODEL, inputs=None),
            "must be an array, got a NoneType",
        ),
        (
            lambda: read(MADE.variables, model=MODEL, inputs=FIELD),
            "takes an image of shape",
        ),
        *others,
    ]


def evolve(*arguments, **settings):
    """Search the small model, whatever is wrong with it."""
    given = [lambda groups: eq.exact(groups, **SMALL), GROUPS, DATA, DATA]
    given[: len(arguments)] = arguments
    lengths = {"generations": 0, "first_steps": 1, "steps": 1, "optimizer": ADAM}
    return eq.evolve(*given, **{**lengths, **settings})


def climb(model=MODEL, train=DATA, validation=DATA, **settings):
    """Climb from the small model, whatever is wrong with it."""
    lengths = {"climbs": 0, "first_steps": 1, "optimizer": lambda steps: ADAM}
    return eq.hill_climb(model, train, validation, **{**lengths, **settings})


def export(**settings):
    """Export the small model."""
    given = {"variables": MADE.variables, "format": "linen", "inputs": IMAGE}
    given |= {"model": MODEL, **settings}
    return eq.export(given.pop("model"), given.pop("variables"), **given)


def held_out(**changes):
    call = {"model": MODEL, "x": IMAGE, "y": LABELS, "group": D4, "key": KEY, **changes}
    return eq.held_out_test(call.pop("variables", MADE.variables), **call)


def laplace(**settings):
    """Ask for the evidence of the small model."""
    given = {"model": MODEL, "x": IMAGE, "y": LABELS, "key": KEY, "block_size": 1}
    given |= settings
    return eq.laplace_evidence(given.pop("variables", MADE.variables), **given)


def population(model=MODEL, optimizer=ADAM, inputs=IMAGE, **settings):
    """Make a population."""
    return eq.Population(model, optimizer, inputs, **settings)


def norm_of_escnn(**settings):
    """Take over a norm."""
    ones = dict.fromkeys(("mean", "var", "scale", "bias"), np.ones(16, np.float32))
    return eq.from_escnn_norm(**{**ones, "group": D4, **settings})


KERNEL = np.zeros((3, 3, 8, 16), np.float32)
CASES = {
    "exact": network_cases(eq.exact),
    "paper": network_cases(eq.paper),
    "EquivariantCNN": network_cases(eq.EquivariantCNN),
    "morph": [
        *morphism_cases(lambda **s: eq.morph(MADE.variables, **s)),
        (
            lambda: eq.morph(None, source=MODEL, target=RELAXED, inputs=IMAGE),
            "variables must be a dict of collections",
        ),
        (
            lambda: eq.morph({}, source=MODEL, target=RELAXED, inputs=IMAGE),
            "variables of the source model lack",
        ),
        (
            lambda: eq.morph(
                MADE.variables,
                source=MODEL,
                target=RELAXED,
                inputs=IMAGE,
                optimizer="adam",
            ),
            "optimizer must be a transformation of optax",
        ),
    ],
    "morph_optimizer": morphism_cases(
        lambda **s: eq.morph_optimizer(ADAM.init(MADE.variables["params"]), **s),
        [("optimizer must be a transformation", {"optimizer": optax.adam})],
    ),
    "grow": [
        *morphism_cases(
            lambda **s: eq.grow(MADE.variables, **{"key": KEY, **s}),
            [("key must be a key, such as jax.random.key", {"key": 0})],
        )[:3],
        (
            lambda: eq.grow(
                MADE.variables, source=OTHER, target=MODEL, inputs=IMAGE, key=KEY
            ),
            "has shape",
        ),
        (
            lambda: eq.grow(
                MADE.variables, source=MODEL, target=MODEL, inputs=IMAGE, key="k"
            ),
            "key must be a key",
        ),
    ],
    "relax": [
        *variables_cases(lambda v, **s: eq.relax(v, groups={"conv1": C4}, **s)),
        (
            lambda: eq.relax(
                MADE.variables, model=MODEL, groups={"convX": C4}, inputs=IMAGE
            ),
            "no layer with a group at 'convX'; nearest: conv1",
        ),
        (
            lambda: eq.relax(
                MADE.variables, model=MODEL, groups={"conv1": "C4"}, inputs=IMAGE
            ),
            "needs a Group, .* group='C4'",
        ),
        (
            lambda: eq.relax(MADE.variables, model=MODEL, groups=C4, inputs=IMAGE),
            "groups must be a dict of a Group for each path",
        ),
    ],
    "collapse": variables_cases(eq.collapse),
    "discretize": variables_cases(eq.discretize),
    "mixtures": [*variables_cases(eq.mixtures)[:2], *variables_cases(eq.mixtures)[3:]],
    "sharing_distances": variables_cases(eq.sharing_distances)[:2],
    "distances": variables_cases(
        eq.distances,
        [
            (
                lambda: eq.distances(
                    MADE.variables, model=MODEL, inputs=IMAGE, groups=("D4",)
                ),
                "groups must be a Group",
            )
        ],
    ),
    "symmetry": [
        (lambda: eq.symmetry("exact", IMAGE), "model must be a linen module"),
        (lambda: eq.symmetry(MODEL, None), "inputs|x must be an array"),
        (lambda: eq.symmetry(MODEL, FIELD), "takes an image of shape"),
        (lambda: eq.symmetry(MODEL, IMAGE, group="D4"), "group must be a Group"),
    ],
    "equivariance_error": [
        (lambda: eq.equivariance_error(None, IMAGE, group=D4), "fn must be a function"),
        (
            lambda: eq.equivariance_error(jnp.sin, IMAGE, group="D4"),
            "group must be a Group",
        ),
        (
            lambda: eq.equivariance_error(jnp.sin, [1.0], group=D4),
            "x must be an array",
        ),
        (
            lambda: eq.equivariance_error(jnp.sin, IMAGE[0, 0], group=D4),
            "expected a field",
        ),
        (
            lambda: eq.equivariance_error(lambda x: None, IMAGE, group=D4),
            r"fn\(x\) must be an array, got a NoneType",
        ),
    ],
    "assert_equivariant": [
        (lambda: eq.assert_equivariant("f", IMAGE, group=D4), "fn must be a function"),
        (
            lambda: eq.assert_equivariant(jnp.zeros_like, IMAGE, group=D4),
            "zero everywhere",
        ),
        (
            lambda: eq.assert_equivariant(jnp.sin, IMAGE, group=None),
            "group must be a Group",
        ),
    ],
    "held_out_test": [
        (lambda: held_out(variables=None), "variables must be a dict"),
        (lambda: held_out(model=None), "model must be a linen module"),
        (lambda: held_out(key=0), "key must be a key"),
        (lambda: held_out(group="D4"), "group must be a Group"),
        (lambda: held_out(group=eq.dihedral(8)), "does not map the pixels"),
        (lambda: held_out(x=IMAGE[:, :, :4]), "does not map the pixels"),
        (lambda: held_out(x=IMAGE.tolist()), "x must be an array"),
        (lambda: held_out(y=LABELS[:3]), "as many x as y"),
        (lambda: held_out(y=LABELS + 5), "label 5 of sample 0 is outside 0..1"),
        (lambda: held_out(x=IMAGE.astype(int)), "images must be floating"),
        (lambda: held_out(x=IMAGE[:0], y=LABELS[:0]), "at least one sample"),
        (lambda: held_out(x=IMAGE * np.nan), "not finite"),
        (lambda: held_out(groups=("C4",)), "groups must be subgroups of"),
        (lambda: held_out(groups=C4), "groups must be several Groups"),
        (lambda: held_out(level=0.0), "level must be between 0 and 1"),
        (lambda: held_out(level="a"), "level must be a number"),
        (lambda: held_out(draws=0.5), "draws must be a whole number"),
        (lambda: held_out(draws=3), "draws must be at least 19"),
        (lambda: held_out(loss_fn="nll"), "loss_fn must be a function"),
    ],
    "laplace_evidence": [
        (lambda: laplace(variables=None), "variables must be a dict"),
        (lambda: laplace(model=None), "model must be a linen module"),
        (lambda: laplace(key=0), "key must be a key"),
        (lambda: laplace(y=LABELS[:3]), "as many x as y"),
        (lambda: laplace(y=LABELS + 5), "label 5 of sample 0 is outside 0..1"),
        (lambda: laplace(y=LABELS.astype(float)), "of an integer dtype"),
        (lambda: laplace(x=IMAGE.astype(int)), "images must be floating"),
        (lambda: laplace(x=IMAGE[:0], y=LABELS[:0]), "at least one sample"),
        (lambda: laplace(x=IMAGE * np.nan), "not finite"),
        (lambda: laplace(groups=("C4",)), "groups must be subgroups of"),
        (lambda: laplace(precision=0.0), "precision must be positive, got 0.0"),
        (lambda: laplace(precision="a"), "precision must be a number"),
        (lambda: laplace(block_size=9), "need 36 samples"),
        (lambda: laplace(block_size=0.5), "block_size must be a whole number"),
    ],
    "export": [
        (lambda: export(format="keras"), "format must be one of"),
        (lambda: export(format="safetensors"), "needs a path"),
        (lambda: export(path="x"), "is not written; leave out the path"),
        (lambda: export(model=None), "model must be a linen module"),
        (lambda: export(variables=None), "variables must be a dict"),
        (lambda: export(variables={}), "lack"),
        (lambda: export(inputs=None), "must be an array, got a NoneType"),
        (lambda: export(inputs=FIELD), "takes an image of shape"),
    ],
    "read_plain": [
        (lambda: eq.read_plain(None), "path must be a path, got None"),
        (
            lambda: eq.read_plain(__file__),
            "test_bad_models.py holds no plain network: ",
        ),
    ],
    "to_conv": [
        (lambda: eq.to_conv(MODEL, {}), "takes a convolution of eqjax"),
        (lambda: eq.to_conv(MADE.conv, None), "variables must be a dict"),
        (
            lambda: eq.to_conv(MADE.conv, {}),
            "variables of GroupConv lack params/kernel",
        ),
    ],
    "from_conv": [
        (lambda: eq.from_conv(KERNEL, group="D4"), "group must be a Group"),
        (lambda: eq.from_conv(None, group=D4), "expected the kernel of a convolution"),
        (lambda: eq.from_conv(KERNEL[0, 0], group=D4), "expected the kernel|has 2"),
        (lambda: eq.from_conv(KERNEL[..., :9], group=D4), "9 real .* nearest .* is 8"),
        (lambda: eq.from_conv(KERNEL, group=D4, layout="NCHW"), "layout must be one"),
        (lambda: eq.from_conv(KERNEL, group=D4, order="any"), "order must be"),
        (
            lambda: eq.from_conv(KERNEL, group=D4, bias=np.zeros(3)),
            r"bias must have shape \(16,\), got \(3,\)",
        ),
        (lambda: eq.from_conv("conv", group=D4), "expected the kernel of a conv"),
        (
            lambda: eq.from_conv(KERNEL * np.nan, group=D4),
            "kernel must be finite",
        ),
    ],
    "from_escnn": [
        (lambda: eq.from_escnn(KERNEL, group="D4"), "group must be a Group"),
        (lambda: eq.from_escnn(None, group=D4), "expected the kernel"),
        (
            lambda: eq.from_escnn(
                np.random.default_rng(0).normal(size=(16, 8, 3, 3)), group=D4
            ),
            "do not commute with",
        ),
    ],
    "from_escnn_norm": [
        (lambda: norm_of_escnn(group="D4"), "group must be a Group"),
        (lambda: norm_of_escnn(mean=np.arange(16.0)), "mean has different numbers"),
        (lambda: norm_of_escnn(mean=None), "mean must be numbers"),
        (lambda: norm_of_escnn(epsilon="a"), "epsilon must be a number"),
        (lambda: norm_of_escnn(var=np.zeros(0)), "var must be numbers"),
        (lambda: norm_of_escnn(scale=np.full(16, np.nan)), "scale must be finite"),
    ],
    "from_plain": [
        (
            lambda: eq.from_plain(None, model=MODEL, inputs=IMAGE),
            "plain must be a dict of collections",
        ),
        (lambda: eq.from_plain({}, model=MODEL, inputs=IMAGE), "it is empty"),
        (
            lambda: eq.from_plain({}, model="exact", inputs=IMAGE),
            "model must be a linen module",
        ),
        (
            lambda: eq.from_plain({}, model=MODEL, inputs=IMAGE, layout="NCHW"),
            "layout must be .* got",
        ),
    ],
    "save": [
        (lambda: eq.save("net", "model", {}), "model must be a linen module"),
        (lambda: eq.save("net", MODEL, None), "variables must be a dict"),
        (lambda: eq.save(None, MODEL, {}), "folder must be a path, got None"),
        (
            lambda: eq.save("net", MODEL, {}, class_names="cat"),
            "class_names must be several strings",
        ),
        (lambda: eq.save("net", MODEL, {}, inputs=3), "inputs must be an array"),
        (
            lambda: eq.save("net", MODEL, {}, preprocessing={"means": 0}),
            "preprocessing has .* got means",
        ),
        (
            lambda: eq.save("net", MODEL, {}, preprocessing={"deviation": [0.0]}),
            "deviations must be positive",
        ),
        (
            lambda: eq.save("net", MODEL, {}, preprocessing={"mean": ["a"]}),
            "mean must be numbers",
        ),
    ],
    "load": [(lambda: eq.load(None), "folder must be a path, got None")],
    "Strategy": [
        (lambda: eq.Strategy(width=0), "width must be at least 1, got 0"),
        (lambda: eq.Strategy(width="2"), "width must be a whole number"),
        (lambda: eq.Strategy(steps_per_call=1.5), "steps_per_call must be a whole"),
        (lambda: eq.Strategy(mesh="cpu"), "mesh must be a Mesh, .* got 'cpu'"),
    ],
    "device_mesh": [
        (lambda: eq.device_mesh([]), "at least one device, got none"),
        (lambda: eq.device_mesh(2), "devices must be several devices, .* got 2"),
        (lambda: eq.device_mesh(data=0), "data must be at least 1, got 0"),
        (lambda: eq.device_mesh(data=3), "cannot be split by 3"),
        (
            lambda: eq.device_mesh(["cpu"]),
            "devices must be some of jax.devices.*, got 'cpu'",
        ),
    ],
    "choose_strategy": [
        (
            lambda: eq.choose_strategy(MODEL, ADAM, IMAGE, 0),
            "members must be at least 1, got 0",
        ),
        (
            lambda: eq.choose_strategy(MODEL, ADAM, IMAGE, "4"),
            "members must be a whole number",
        ),
        (
            lambda: eq.choose_strategy(None, ADAM, IMAGE, 1),
            "model must be a linen module",
        ),
        (
            lambda: eq.choose_strategy(MODEL, "adam", IMAGE, 1),
            "optimizer must be a transformation",
        ),
        (
            lambda: eq.choose_strategy(MODEL, ADAM, None, 1),
            "inputs must be an array",
        ),
    ],
    "Population": [
        (lambda: population(model="exact"), "model must be a linen module"),
        (lambda: population(optimizer=optax.adam), "optimizer .*; call it first"),
        (lambda: population(inputs=None), "inputs must be an array"),
        (lambda: population(inputs=WHOLE), "images must be floating, got int32"),
        (lambda: population(inputs=IMAGE[:0]), "at least one sample"),
        (lambda: population(inputs=FIELD), "takes an image of shape"),
        (lambda: population(strategy=4), "strategy must be a Strategy"),
        (lambda: population(loss_fn="mse"), "loss_fn must be a function"),
    ],
    "Evolution": [
        (lambda: eq.Evolution(population_size=0), "population_size must be at least 1"),
        (lambda: eq.Evolution(population_size="4"), "must be a whole number, got '4'"),
        (lambda: eq.Evolution(children=1.5), "children must be a whole number"),
        (lambda: eq.Evolution(candidates=()), "candidates are empty"),
        (lambda: eq.Evolution(candidates=("D4",)), "candidates must be Groups"),
        (lambda: eq.Evolution(candidates=D4), "candidates must be several Groups"),
        (lambda: eq.Evolution(select="pareto"), "select must be a function"),
        (lambda: eq.Evolution(propose=None), "propose must be a function"),
        (lambda: eq.Evolution().init("D4"), "architecture must be an Architecture"),
    ],
    "evolve": [
        (lambda: evolve(MODEL), "make_model must be a function, .* got a module"),
        (lambda: evolve(lambda g: g), r"make_model\(start\) must be a linen module"),
        (lambda: evolve(eq.exact, "D4 D4"), "start must be an Architecture"),
        (lambda: evolve(eq.exact, GROUPS, IMAGE), r"train must be a pair \(samples"),
        (lambda: evolve(eq.exact, GROUPS, DATA, None), "validation must be a pair"),
        (lambda: evolve(optimizer=optax.adam), "optimizer .*; call it first"),
        (lambda: evolve(generations=-1), "generations must be at least 0, got -1"),
        (lambda: evolve(steps=0), "steps must be at least 1, got 0"),
        (lambda: evolve(first_steps=2.5), "first_steps must be a whole number"),
        (lambda: evolve(batch_size=0), "batch_size must be at least 1, got 0"),
        (lambda: evolve(seed="a"), "seed must be a whole number, got 'a'"),
        (lambda: evolve(search="EquiNAS_E"), "search must be an Evolution"),
        (lambda: evolve(loss_fn=None), "loss_fn must be a function"),
    ],
    "hill_climb": [
        (lambda: climb(model=None), "model must be a linen module"),
        (lambda: climb(train=IMAGE), r"train must be a pair \(samples"),
        (lambda: climb(climbs=-1), "climbs must be at least 0, got -1"),
        (lambda: climb(steps="5"), "steps must be a whole number, got '5'"),
        (lambda: climb(batch_size=0), "batch_size must be at least 1"),
        (lambda: climb(optimizer=ADAM), "optimizer must be a function, such as"),
        (lambda: climb(moves="widen"), "moves must be several functions, .*'widen'"),
        (lambda: climb(moves=("widen",)), "moves must be a function, .*'widen'"),
    ],
    "search_generators": [
        (
            lambda: eq.search_generators(None, GeneratorSpace(D4, 2)),
            "evaluate must be a function",
        ),
        (
            lambda: eq.search_generators(lambda a: 0.5, D4),
            "space must be a GeneratorSpace",
        ),
        (
            lambda: eq.search_generators(
                lambda a: 0.5, GeneratorSpace(D4, 2), agent="Q"
            ),
            "agent must be one of",
        ),
        (
            lambda: eq.search_generators(
                lambda a: 0.5, GeneratorSpace(D4, 2), trainings=0
            ),
            "trainings and steps must be at least 1, got 0 and 500",
        ),
        (
            lambda: eq.search_generators(lambda a: None, GeneratorSpace(D4, 2)),
            "what evaluate returns must be a number, got None",
        ),
    ],
    "DifferentiableSearch": [
        (
            lambda: eq.DifferentiableSearch("exact", ADAM, ADAM),
            "model must be a linen module",
        ),
        (
            lambda: eq.DifferentiableSearch(MODEL, None, ADAM),
            "optimizer must be a transformation",
        ),
        (
            lambda: eq.DifferentiableSearch(MODEL, ADAM, optax.sgd),
            "mixture_optimizer .*; call it first",
        ),
        (
            lambda: eq.DifferentiableSearch(MODEL, ADAM, ADAM, unrolled_step=-1.0),
            "unrolled_step must be at least 0, got -1.0",
        ),
        (
            lambda: eq.DifferentiableSearch(MODEL, ADAM, ADAM, damping="a"),
            "damping must be a number, got 'a'",
        ),
        (
            lambda: eq.DifferentiableSearch(MODEL, ADAM, ADAM).init(KEY, IMAGE),
            "has no mixed layer to search",
        ),
    ],
    "MetaLearning": [
        (lambda: eq.MetaLearning("exact", ADAM), "model must be a linen module"),
        (lambda: eq.MetaLearning(MODEL, "adam"), "optimizer must be a transf"),
        (lambda: eq.MetaLearning(MODEL, ADAM, rate=0.0), "rate must be positive"),
        (lambda: eq.MetaLearning(MODEL, ADAM, rate="a"), "rate must be a number"),
        (lambda: eq.MetaLearning(MODEL, ADAM, own_steps=0), "own_steps at least 1"),
        (lambda: eq.MetaLearning(MODEL, ADAM).init(KEY, IMAGE), "nothing that tasks"),
    ],
    "random_gradients": [
        (lambda: eq.random_gradients("a"), "seed must be a whole number, got 'a'"),
        (lambda: eq.random_gradients(-1), "seed must be at least 0, got -1"),
    ],
    "scheduled_gammas": [
        (lambda: eq.scheduled_gammas(optax.adam, abs), "optimizer .*; call it first"),
        (
            lambda: eq.scheduled_gammas(ADAM, 0.5),
            "schedule must be a function, .* got 0.5",
        ),
        (
            lambda: eq.scheduled_gammas(ADAM, lambda t: 0.0).update(
                {}, eq.scheduled_gammas(ADAM, lambda t: 0.0).init({}), None
            ),
            "need params=",
        ),
    ],
    "dual_gammas": [
        (lambda: eq.dual_gammas("adam"), "optimizer must be a transformation"),
        (lambda: eq.dual_gammas(ADAM, rate=0.0), "rates must be positive"),
        (lambda: eq.dual_gammas(ADAM, dual_rate="a"), "dual_rate must be a number"),
        (lambda: eq.dual_gammas(ADAM, rate=np.nan), "rates must be positive"),
    ],
}


@table(CASES)
def test_bad_calls_are_refused(call, match, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(call, match)
    assert not list(tmp_path.iterdir())  # and nothing is left behind


def test_every_public_name_has_bad_calls():
    cases = test_bad_groups.CASES | test_bad_layers.CASES | CASES
    called = {name for name, calls in cases.items() if calls}
    assert called | NOTHING == set(PUBLIC)
    assert not called & NOTHING
    for name in NOTHING - {"Constraint", "Tied", "PartialGroup"}:
        assert getattr(eq, name)() is not None


def test_jit_and_abstract_values_are_taken_where_values_are_not_needed():
    abstract = jax.ShapeDtypeStruct(IMAGE.shape, IMAGE.dtype)
    eq.morph(MADE.variables, source=MODEL, target=RELAXED, inputs=abstract)
    turned = jax.jit(jax.vmap(lambda u: eq.transform(IMAGE, u, group=D4)))(
        jnp.arange(8)
    )
    np.testing.assert_array_equal(turned[0], IMAGE)
