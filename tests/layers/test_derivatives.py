"""First and second derivatives of every layer and constraint, in every direction.

Along a random direction through parameters and input, t -> <w, f(p + t v)> is a
function of a number, whose derivatives finite differences give. They must be those of
JAX: first ones forward and backward, second ones forward over backward.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.catalogue import CONSTRAINED, CONSTRAINT_CASES, LINE, PLANE

CASES = {f"plane, {name}": (case, {}) for name, case in PLANE.items()}
CASES |= {f"line, {name}": (case, {}) for name, case in LINE.items()}
CASES |= {
    f"{word}, {name}": (CONSTRAINED[name], {"constraint": constraint})
    for word, constraint in CONSTRAINT_CASES.items()
    for name in ("conv circular", "head")
}
STEP = 1e-3
TIMES = np.array([-STEP, 0.0, STEP])
# Central differences are wrong by the fourth derivative times STEP^2 / 12 = 1e-7; norms
# and softmax have fourth derivatives of up to a thousand times the second.
CLOSE = 1e-4


def random_like(tree, seed):
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    drawn = [
        jax.random.normal(k, leaf.shape, leaf.dtype)
        for k, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, drawn)


@pytest.mark.parametrize("name", CASES)
def test_derivatives_are_those_of_finite_differences(name):
    case, fields = CASES[name]
    group = case.ambient.covers[0]
    layer = case.make(case.ambient if fields else group, **fields)
    x = case.input()
    shapes = jax.eval_shape(layer.init, jax.random.key(0), x)

    def start(key):
        variables = jax.tree.map(lambda s: jnp.zeros(s.shape, jnp.float64), shapes)
        drawn = random_like(variables, 1)
        return jax.tree.map(lambda v: 1 + 0.3 * v, drawn), x

    def apply(point):
        variables, x = point
        y = layer.apply(variables, x, mutable=["batch_stats"])[0]
        return y.astype(jnp.float64)

    @jax.jit
    def everything():
        point = start(jax.random.key(0))
        direction = random_like(point, 2)
        along = lambda t: jax.tree.map(lambda p, v: p + t * v, point, direction)  # noqa: E731
        weight = random_like(apply(point), 3)
        value = lambda point: jnp.vdot(weight, apply(point))  # noqa: E731
        slope, curved = jax.jvp(jax.grad(value), (point,), (direction,))
        slopes = jax.tree.map(jnp.vdot, slope, direction)
        curvatures = jax.tree.map(jnp.vdot, curved, direction)
        return {
            "values": jax.vmap(lambda t: value(along(t)))(TIMES),
            "forward": jax.jvp(value, (point,), (direction,))[1],
            "backward": sum(jax.tree.leaves(slopes)),
            "second": sum(jax.tree.leaves(curvatures)),
        }

    found = everything()
    before, at, after = map(float, found["values"])
    first, second = (after - before) / (2 * STEP), (after - 2 * at + before) / STEP**2
    scale = max(1.0, abs(float(found["second"])), abs(at))
    np.testing.assert_allclose(found["forward"], found["backward"], rtol=1e-9)
    np.testing.assert_allclose(found["forward"], first, rtol=CLOSE, atol=CLOSE * scale)
    np.testing.assert_allclose(found["second"], second, rtol=CLOSE, atol=CLOSE * scale)
    if "norm" not in name:  # these have directions that they do not see
        assert abs(found["second"]) > 1e-3
