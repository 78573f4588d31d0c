"""Is learned sharing what it should be, where the truth is known?

    python -m benchmarks.sharing [--quick] [--json FILE] [--seeds 5]

By partition distance: how many entries must change their cluster to give the true ones.

orbits     a free 3x3 filter bank over D4 (72 entries) learns from noisy outputs of one
           that is tied to C4 or D1:i: 40 images for the filters, 40 for the sharing
           (`eq.LearnedSharing`, hypergradients by conjugate gradients; Yeh et al. 2022)
meta       the same entries, from many small tasks, each with a filter of its own
           (`eq.MetaLearning`; Zhou et al. 2021): 1 image to learn from, 19 to judge by
gaussians  20 Gaussians with 2 to 6 different means, 30 draws and 70 (Yeh et al.)
sum        weights of a sum of 10 numbers, all of them equal, 30 samples and 70
line       a dense map of 12 numbers to 10 whose rows hold one filter (rank 1), or
           combine 2 or 5 with weights of their own; the meta-learned matrix beside one
           held at the identity. Loss on the queries over the variance of the targets.
"""

from __future__ import annotations

import statistics
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import eqjax as eq
from benchmarks.report import arguments, finish
from eqjax.kernels import kernel_table
from eqjax.search import MetaState, Tasks
from eqjax.training import hypergradient, mean_squared_error
from eqjax.training.evaluation import mean_and_error

D4 = eq.dihedral(4)
FREE = D4.smallest
TRUTHS = ("C4", "D1:i")
KIND = eq.LearnedSharing(spread=1.0, own=0.0, trace=0.01, apart=True)
META = eq.LearnedSharing("free", own=0.0, apart=True)
MEANS = (2, 3, 4, 5, 6)
RANKS = (1, 2, 5)
DECAY = 0.1  # of the weights, for a training with one solution
PENALTIES = ((0.3, 0.15), (0.05, 0.025), (0.05, 0.005), (1.0, 0.1))  # trace, entropy


def bank(group: eq.Group, channels: int, constraint: eq.Constraint) -> eq.LiftingConv:
    """Return a bank of 3x3 filters."""
    return eq.LiftingConv(
        channels, 3, group=group, use_bias=False, constraint=constraint
    )


class Bank(nn.Module):
    """A bank of free filters with learned sharing."""

    channels: int
    constraint: eq.LearnedSharing

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Return (batch, height, width, 8, channels)."""
        del train
        return bank(FREE, self.channels, self.constraint)(x)


class SharedDense(nn.Module):
    """A dense map whose weights are a shared matrix times a filter."""

    outputs: int

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Return (batch, outputs)."""
        del train
        entries = self.outputs * x.shape[-1]
        own = self.param("filter", nn.initializers.normal(0.3), (entries,))
        shared = self.variable("mixture", "matrix", lambda: jnp.eye(entries)).value
        return x @ (shared @ own).reshape(x.shape[-1], self.outputs)


FIELDS = (3, 3), eq.trivial(D4), eq.regular(D4)


def clusters(kind: eq.LearnedSharing, added: jax.Array) -> np.ndarray:
    """Return the cluster of every entry that a learned sharing has."""
    return kind.assignment(added, kernel_table(FREE, *FIELDS))


def distance(labels: np.ndarray, truth: eq.Group) -> int:
    """Return how far clusters are from the orbits of a group."""
    return eq.partition_distance(labels, kernel_table(truth, *FIELDS).index)


def merged(labels: np.ndarray, kernel: np.ndarray, losses_of) -> np.ndarray:
    """Return the fewest clusters that the validation samples allow.

    Clusters of the nearest means are merged one after another (Ward), the kernel is
    averaged over them, and the fewest within a standard error of the least loss stay.

    Args:
      labels: (entries,) clusters to begin with.
      kernel: (entries, channels).
      losses_of: kernel -> a loss per sample.
    """
    levels = []
    labels = np.unique(labels, return_inverse=True)[1]
    while True:
        count = np.bincount(labels)
        means = np.zeros((len(count), kernel.shape[-1]), kernel.dtype)
        np.add.at(means, labels, kernel)
        means /= count[:, None]
        levels.append((labels, np.asarray(losses_of(means[labels]))))
        if len(count) == 1:
            break
        weight = 1 / (1 / count[:, None] + 1 / count)
        gap = weight * ((means[:, None] - means) ** 2).sum(-1)
        np.fill_diagonal(gap, np.inf)
        first, second = np.unravel_index(gap.argmin(), gap.shape)
        joined = np.where(labels == second, first, labels)
        labels = np.unique(joined, return_inverse=True)[1]
    best = min((losses for _, losses in levels), key=np.mean)
    for labels, losses in reversed(levels):
        mean, error = mean_and_error(losses - best)
        if mean <= error:
            return labels
    raise AssertionError("the best level is within its own error")


def orbits(
    truth: eq.Group, seed: int, steps: int, channels: int = 8
) -> tuple[int, int]:
    """Return how far from the orbits of a group are clusters learned from outputs.

    As they are learned, and merged as far as the validation samples allow.
    """
    keys = jax.random.split(jax.random.key(seed), 4)
    x = jax.random.normal(keys[0], (2, 40, 5, 5, 2))
    teacher = bank(truth, channels, eq.Tied())
    weights = teacher.init(keys[1], x[0])
    y = jax.vmap(jax.jit(partial(teacher.apply, weights)))(x)
    y = y + 0.1 * jax.random.normal(keys[2], y.shape)
    search = eq.DifferentiableSearch(
        Bank(channels, KIND),
        optax.adam(0.02),
        optax.adam(0.2, eps=1e-12),  # gradients of choices that are made are tiny
        loss_fn=mean_squared_error,
        implicit_steps=20,
        damping=1e-3,
    )
    state, step = search.init(keys[3], x[0]), jax.jit(search.step)
    for _ in range(steps):
        state, _ = step(state, (x[0], y[0]), (x[1], y[1]))
    (added,) = jax.tree.leaves(state.mixture)
    labels = clusters(KIND, added)
    layer = bank(FREE, channels, eq.Tied())
    (name,) = state.weights.params
    own = {"kernel": state.weights.params[name]["kernel"]}
    shared = KIND.sharing(added, kernel_table(FREE, *FIELDS))
    kernel = shared @ own["kernel"].reshape(len(shared), -1)
    shape = own["kernel"].shape

    @jax.jit
    def losses_of(kernel):
        found = layer.apply({"params": {"kernel": kernel.reshape(shape)}}, x[1])
        return jnp.mean((found - y[1]) ** 2, (1, 2, 3, 4))

    fewer = merged(labels, np.asarray(kernel), losses_of)
    return distance(labels, truth), distance(fewer, truth)


def meta_learned(search: eq.MetaLearning, draw, x, seed: int, steps: int, rows: int):
    """Return the state after so many steps, and the mean loss of the last ones."""
    key = jax.random.key(seed)
    state = search.init(jax.random.fold_in(key, rows), x)

    @jax.jit
    def step(state: MetaState, key: jax.Array):
        x, y = draw(key)
        return search.step(state, Tasks((x[:, :1], y[:, :1]), (x[:, 1:], y[:, 1:])))

    losses = []
    for number in range(steps):
        state, metrics = step(state, jax.random.fold_in(key, number))
        losses.append(metrics.loss)
    return state, float(np.mean(losses[-20:]))


def meta(truth: eq.Group, seed: int, steps: int) -> int:
    """Learn the orbits of a group from tasks with a filter each."""
    teacher = bank(truth, 1, eq.Tied())

    def draw(key: jax.Array):
        first, second = jax.random.split(key)
        x = jax.random.normal(first, (32, 20, 6, 6, 1))
        keys = jax.random.split(second, len(x))
        return x, jax.vmap(lambda k, x: teacher.init_with_output(k, x)[0])(keys, x)

    search = eq.MetaLearning(
        Bank(1, META), optax.adam(3e-3), rate=0.7, loss_fn=mean_squared_error
    )
    state, _ = meta_learned(search, draw, jnp.ones((1, 6, 6, 1)), seed, steps, steps)
    (added,) = jax.tree.leaves(state.shared["mixture"])
    return distance(clusters(META, added), truth)


def line(rank: int, seed: int, steps: int, *, learned: bool) -> float:
    """Return the loss on queries of tasks of low rank, over the variance."""
    inputs, outputs = 12, 10
    place = jax.random.normal(jax.random.key(100 + seed), (rank, outputs))
    if rank == 1:
        place = jnp.ones_like(place)
    rows = jnp.arange(outputs)
    taps = rows[:, None] + jnp.arange(inputs - outputs + 1)

    def draw(key: jax.Array):
        first, second = jax.random.split(key)
        x = jax.random.normal(first, (32, 20, inputs))
        filters = jax.random.normal(second, (32, rank, inputs - outputs + 1))
        local = jnp.einsum("ro,trk->tok", place, filters) / rank**0.5
        return x, jnp.einsum("tsok,tok->tso", x[:, :, taps], local)

    shared = optax.masked(
        optax.set_to_zero(), {"mixture": not learned, "params": False, "rates": False}
    )
    search = eq.MetaLearning(
        SharedDense(outputs),
        optax.chain(optax.adam(3e-3), shared),
        rate=0.1,
        loss_fn=mean_squared_error,
    )
    _, loss = meta_learned(search, draw, jnp.ones((1, inputs)), seed, steps, 0)
    variance = float(draw(jax.random.key(7))[1].var())
    return loss / variance


def shared_by(solve, train_loss, validation_loss, entries: int, seed: int, steps: int):
    """Return the clusters that a problem with solved weights finds.

    Of three starts for each of `PENALTIES`, with the weights of the hard choice solved
    anew: the fewest clusters within a standard error of the smallest validation loss.

    Args:
      solve: matrix -> the weights with the smallest training loss.
      train_loss: full array -> losses of the samples.
      validation_loss: the same of other samples.
      entries: of the full array.
      seed: of the starts.
      steps: of the sharing.
    """
    optimizer = optax.adam(0.1)

    def step(carry, _, *, trace, entropy):
        logits, state = carry

        def training(w, z):
            fitted = train_loss(jax.nn.softmax(z) @ w).mean()
            return fitted + DECAY / 2 * jnp.sum(w**2)

        def validation(w, z):
            a = jax.nn.softmax(z)
            used = jnp.sqrt(jnp.sum(a**2, 0)).sum() / len(a)
            rows = jax.scipy.special.entr(a).sum(-1).mean()
            return validation_loss(a @ w).mean() + trace * used + entropy * rows

        weights = solve(jax.nn.softmax(logits))
        slope = hypergradient(training, validation, weights, logits)
        updates, state = optimizer.update(slope, state)
        return (optax.apply_updates(logits, updates), state), None

    @jax.jit
    def run(key, trace, entropy):
        logits = 0.01 * jax.random.normal(key, (entries, entries))
        one = partial(step, trace=trace, entropy=entropy)
        start = (logits, optimizer.init(logits))
        (logits, _), _ = jax.lax.scan(one, start, length=steps)
        chosen = logits.argmax(-1)
        hard = jax.nn.one_hot(chosen, entries)
        return chosen, validation_loss(hard @ solve(hard))

    keys = jax.random.split(jax.random.key(seed), 3)
    found = [run(key, *weights) for weights in PENALTIES for key in keys]
    best = min((losses for _, losses in found), key=jnp.mean)

    def tenable(losses):
        mean, error = mean_and_error(np.asarray(losses - best))
        return mean <= error

    chosen = [labels for labels, losses in found if tenable(losses)]
    return min(chosen, key=lambda labels: len(np.unique(labels)))


def gaussians(means: int, seed: int, steps: int, entries: int = 20) -> int:
    """Find which Gaussians share their mean."""
    rng = np.random.default_rng([seed, means])
    labels = np.sort(np.arange(entries) % means)
    x = (2.0 * labels + rng.normal(size=(100, entries))).astype(np.float32)
    x -= x.mean()

    def solve(a):
        return jnp.linalg.solve(
            a.T @ a + DECAY * jnp.eye(entries), a.T @ x[:30].mean(0)
        )

    def loss(draws, mean):
        return jnp.sum((draws - mean) ** 2, -1) / 2

    found = shared_by(
        solve, partial(loss, x[:30]), partial(loss, x[30:]), entries, seed, steps
    )
    return eq.partition_distance(found, labels)


def sum_of_numbers(seed: int, steps: int, entries: int = 10) -> int:
    """Find that all weights of a sum are the same."""
    rng = np.random.default_rng([seed, 0])
    x = rng.normal(size=(100, entries)).astype(np.float32)
    y = x.sum(-1) + rng.normal(size=100).astype(np.float32)

    def solve(a):
        moved = x[:30] @ a
        return jnp.linalg.solve(
            moved.T @ moved / 30 + DECAY * jnp.eye(entries), moved.T @ y[:30] / 30
        )

    def loss(x, y, w):
        return (x @ w - y) ** 2 / 2

    train, validation = partial(loss, x[:30], y[:30]), partial(loss, x[30:], y[30:])
    found = shared_by(solve, train, validation, entries, seed, steps)
    return eq.partition_distance(found, np.zeros(entries))


def main() -> None:
    """Learn, compare with the truth, and write."""
    options = arguments(__doc__, seeds=5)
    seeds = range(1 if options.quick else options.seeds)
    few = 20 if options.quick else None
    rows: dict[str, float] = {}
    distances: dict[str, list[int]] = {}

    def add(name: str, seed: int, found: int) -> None:
        rows[f"{name}, seed {seed}: partition distance"] = found
        distances.setdefault(name, []).append(found)
        print(name, seed, found, flush=True)

    for seed in seeds:
        for means in MEANS:
            add(f"gaussians, {means} means", seed, gaussians(means, seed, few or 500))
        add("sum of numbers", seed, sum_of_numbers(seed, few or 500))
        for name in TRUTHS:
            truth = D4.subgroup(name)
            learned, fewer = orbits(truth, seed, few or 2000)
            add(f"orbits of {name}", seed, learned)
            add(f"orbits of {name}, merged", seed, fewer)
            add(f"meta-learned {name}", seed, meta(truth, seed, few or 1000))
    losses = {}
    for rank in RANKS:
        for learned in (True, False):
            each = [line(rank, s, few or 1000, learned=learned) for s in seeds[:3]]
            name = f"rank {rank}, matrix {'learned' if learned else 'held'}"
            losses[name] = rows[f"{name}: loss"] = round(statistics.mean(each), 4)
    summary: dict[str, Any] = {
        "distance": distances,
        "exact_share": {
            name: statistics.mean(d == 0 for d in each)
            for name, each in distances.items()
        },
        "query_loss": losses,
    }
    finish(options, rows, summary)


if __name__ == "__main__":
    main()
