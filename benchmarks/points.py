"""Does the test name the symmetry of particles in a field, and does it help to know?

    python -m benchmarks.points [--quick] [--json FILE] [--seeds 3]

Ten particles in a ball; to be predicted is their energy: pairs repel each other, the
same from all sides, and each has an energy in a field. Without a field the symmetry is
O(3), in a uniform one along k it is C∞v, in a trap along k D∞h. A network of e3nn-jax
with the linear maps of eqjax is trained in O(3); `eq.symmetry_test` names a closed
subgroup from its gradients; networks of O(3), the named group and C1 are trained for as
many steps. Errors are mean squares of test samples over the variance.
"""

from __future__ import annotations

import statistics
from typing import Any

import e3nn_jax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import eqjax as eq
from benchmarks.report import arguments, finish

PARTICLES, TRAIN, TEST = 10, 2_000, 1_000
BATCH, STEPS = 50, 1_500
LEVEL, DRAWS = 0.01, 199
O3 = eq.orthogonal()
FIELDS = {"none": "O(3)", "uniform": "C∞v", "trap": "D∞h"}


class Particles(nn.Module):
    """A sum over particles and one over pairs, of maps that are tied to a group.

    Attributes:
      group: that the energy is invariant under.
    """

    group: eq.ClosedGroup

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return energies (samples,) for positions (samples, particles, 3)."""
        apart = x[:, :, None] - x[:, None]
        each = self.features(x, "each").array.sum(1)
        pairs = self.features(apart, "pairs").array.mean((1, 2))
        found = self.linear("0e", "8x0e + 4x1o + 4x2e", "of_each")(each)
        return (found + self.linear("0e", "8x0e + 4x1o + 4x2e", "of_pairs")(pairs))[
            :, 0
        ]

    def features(self, x: jax.Array, name: str) -> e3nn_jax.IrrepsArray:
        """Return scalars, vectors and tensors at every point."""
        square = jnp.sum(x**2, -1, keepdims=True)
        near = e3nn_jax.IrrepsArray(
            "2x0e", jnp.concatenate([square, 1 / (0.5 + square)], -1)
        )
        polynomials = e3nn_jax.spherical_harmonics(
            "0e + 1o + 2e", e3nn_jax.IrrepsArray("1o", x), normalize=False
        )
        found = e3nn_jax.concatenate([near, polynomials])
        for layer in (1, 2):
            found = found.regroup()
            map_ = self.linear(
                "16x0e + 4x1o + 4x2e", str(found.irreps), f"{name}{layer}"
            )
            found = e3nn_jax.gate(map_(found))
        return found

    def linear(self, irreps_out: str, irreps_in: str, name: str) -> eq.IrrepsLinear:
        """Return a map in the network's group."""
        return eq.IrrepsLinear(
            irreps_out, irreps_in=irreps_in, group=self.group, name=name
        )


def samples(field: str, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return positions (count, particles, 3) and energies (count,)."""
    rng = np.random.default_rng([seed, count])
    x = rng.normal(size=(count, PARTICLES, 3))
    x *= rng.random((count, PARTICLES, 1)) ** (1 / 3) / np.linalg.norm(
        x, axis=-1, keepdims=True
    )
    squares = ((x[:, :, None] - x[:, None]) ** 2).sum(-1)
    energy = (1 / (0.5 + squares)).mean((1, 2))
    height = x[..., 2]
    if field == "uniform":
        energy = energy + 0.05 * height.sum(1)
    if field == "trap":
        energy = energy + 0.1 * (height**2).sum(1)
    return x.astype(np.float32), energy.astype(np.float32)


def squared_error(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """Return the loss of every sample."""
    return (outputs - y) ** 2


def trained(
    group: eq.ClosedGroup, x: np.ndarray, y: np.ndarray, seed: int, steps: int
) -> tuple[Particles, Any]:
    """Return a network of a group, and its variables after so many steps."""
    model = Particles(group)
    variables = jax.jit(model.init)(jax.random.key(seed), x[:1])
    optimizer = optax.adam(optax.cosine_decay_schedule(0.01, steps))

    @jax.jit
    def step(params, state, x, y):
        def loss(params):
            outputs: Any = model.apply({"params": params}, x)
            return jnp.mean(squared_error(outputs, y))

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    params, state = variables["params"], optimizer.init(variables["params"])
    rng = np.random.default_rng([seed, 1])
    for _ in range(steps):
        chosen = rng.integers(len(x), size=BATCH)
        params, state = step(params, state, x[chosen], y[chosen])
    return model, {"params": params}


def main() -> None:
    """Train, test, train again, and print."""
    options = arguments(__doc__, seeds=3)
    seeds = range(1 if options.quick else options.seeds)
    steps = 200 if options.quick else STEPS
    rows: dict[str, float] = {}
    right: dict[str, float] = {}
    errors: dict[str, dict[str, float]] = {}
    for field, truth in FIELDS.items():
        named: list[bool] = []
        own: dict[str, list[float]] = {"O(3)": [], "named": [], "C1": []}
        for seed in seeds:
            x, y = samples(field, TRAIN, seed)
            center, scale = y.mean(), y.std()
            y = (y - center) / scale
            probe, variables = trained(O3, x, y, seed, steps)
            report = eq.symmetry_test(
                variables,
                model=probe,
                x=x,
                y=y,
                key=jax.random.key(seed),
                loss_fn=squared_error,
                irreps_in="1o",
                level=LEVEL,
                draws=DRAWS,
            )
            print(f"{field}, seed {seed}\n{report}")
            name = " or ".join(H.name for H in report.maximal)
            named.append(name == truth)
            test_x, test_y = samples(field, TEST, seed + 1_000)
            for kind, group in (
                ("O(3)", O3),
                ("named", report.maximal[0]),
                ("C1", O3.smallest),
            ):
                model, variables = trained(group, x, y, seed, steps)
                found = np.asarray(model.apply(variables, test_x))
                error = np.mean((found - (test_y - center) / scale) ** 2)
                own[kind].append(float(error))
                rows[f"{field}, seed {seed}: {kind}, error"] = float(error)
        right[field] = statistics.mean(named)
        errors[field] = {kind: statistics.median(e) for kind, e in own.items()}
    finish(options, rows, {"named_right": right, "median_error": errors})


if __name__ == "__main__":
    main()
