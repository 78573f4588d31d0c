"""Autoequivariant search: which elements should generate the group of a network?

A state says of each of some generators whether it is in; together they generate a
subgroup. A step puts one in or takes one out, a network of that group is trained, and
what its accuracy gained is the reward. Deep Q-learning chooses the steps (Basu et al.
2021). Many states generate one and the same group, so that here a network is trained
once for each group; the control makes random steps with the same memory.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from eqjax.groups.checks import check_callable, check_number, check_whole
from eqjax.groups.group import Group
from eqjax.groups.text import Echoed, Rows
from eqjax.models.architecture import Architecture

Bits = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class GeneratorSpace:
    """Which groups the states of a search stand for.

    Attributes:
      ambient: the ambient group.
      layers: of the network.
      parts: into how many runs of layers it is split, each with generators of its own;
        1 for one group everywhere, as in the paper.
      generators: groups of one generator each; all such subgroups if None.

    >>> import eqjax as eq
    >>> space = GeneratorSpace(eq.dihedral(4), layers=4, parts=2)
    >>> [H.name for H in space.generators]
    ['C4', 'C2', 'D1:i', 'D1:i+j', 'D1:i-j', 'D1:j']
    >>> str(space.architecture((1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1)))
    'C4 C4 D2:i D2:i'
    """

    ambient: Group
    layers: int
    parts: int = 1
    generators: tuple[Group, ...] | None = None

    def __post_init__(self):
        """Find the generators, and reject a network that cannot be split."""
        if not 1 <= self.parts <= self.layers:
            raise ValueError(
                f"parts must be from 1 to the {self.layers} layers, got {self.parts}"
            )
        if self.generators is None:
            cyclic = {self.ambient.generated_by([u]) for u in self.ambient.elements}
            found = [H for H in self.ambient.subgroups if H in cyclic and H.order > 1]
            object.__setattr__(self, "generators", tuple(found))
        for group in self.generators or ():
            if not group <= self.ambient:
                raise ValueError(f"generator {group!r} is not in {self.ambient!r}")
        if not self.generators:
            raise ValueError(f"{self.ambient!r} has no generators to search over")

    @property
    def bits(self) -> int:
        """How many numbers a state has."""
        return self.parts * len(self.generators or ())

    def architecture(self, state: Sequence[int]) -> Architecture:
        """Return the groups that a state generates, one for each layer."""
        if len(state) != self.bits:
            raise ValueError(f"expected a state of {self.bits}, got {len(state)}")
        assert self.generators is not None
        own = np.asarray(state, bool).reshape(self.parts, -1)
        smallest = self.ambient.smallest
        groups = [
            smallest.join(
                *(H for H, used in zip(self.generators, row, strict=True) if used)
            )
            for row in own
        ]
        return Architecture(
            tuple(groups[i * self.parts // self.layers] for i in range(self.layers))
        )


class Transition(NamedTuple):
    """A step of a search: state, flipped bit, reward, next state."""

    state: Bits
    action: int
    reward: float
    after: Bits


class Agent(Protocol):
    """Chooses which bit to flip, and learns from what came of it."""

    def act(self, state: Bits) -> int:
        """Return the number of a bit."""
        ...

    def learn(self, step: Transition) -> None:
        """Take note of a step."""
        ...


class RandomSteps:
    """Flips any bit: the control of a search."""

    def __init__(self, bits: int, seed: int):
        """Start from a seed."""
        self.bits = bits
        self.rng = np.random.default_rng([seed, 0])

    def act(self, state: Bits) -> int:
        """Return the number of a bit."""
        del state
        return int(self.rng.integers(self.bits))

    def learn(self, step: Transition) -> None:
        """Learn nothing."""


class _Values(nn.Module):
    actions: int
    width: int
    depth: int

    @nn.compact
    def __call__(self, x):
        for _ in range(self.depth):
            x = nn.relu(nn.Dense(self.width)(x))
        return nn.Dense(self.actions)(x)


class DeepQ:
    """Deep Q-learning with a replay memory and a slow copy of the network.

    The numbers are those of Basu et al. (2021) but for the length of the exploration:
    three layers of 400, Adam at 0.001, discount 0.5, batches of 128 out of the last
    10,000 steps, the slow copy renewed every second step, random steps from all down to
    1 in 100.
    """

    def __init__(
        self,
        bits: int,
        seed: int,
        *,
        explore: int = 100,
        discount: float = 0.5,
        rate: float = 1e-3,
        batch: int = 128,
        memory: int = 10_000,
        width: int = 400,
        depth: int = 3,
        renew: int = 2,
    ):
        """Start untrained.

        Args:
          bits: of a state.
          seed: of weights, exploration and batches.
          explore: steps over which random ones become rare.
          discount: of the value of the next state.
          rate: of Adam.
          batch: steps to learn from at a time.
          memory: steps that are kept.
          width: of the network's layers.
          depth: how many there are.
          renew: steps between two copies of the network.
        """
        self.bits, self.explore, self.batch, self.renew = bits, explore, batch, renew
        self.memory: deque[Transition] = deque(maxlen=memory)
        self.rng = np.random.default_rng([seed, 1])
        self.count = 0
        network = _Values(bits, width, depth)
        optimizer = optax.adam(rate)
        self.params = network.init(jax.random.key(seed), jnp.zeros(bits))
        self.slow = self.params
        self.opt_state = optimizer.init(self.params)

        def values_of(params: Any, states: jax.Array) -> jax.Array:
            return jnp.asarray(network.apply(params, states))

        self.values = jax.jit(values_of)

        @jax.jit
        def update(params, slow, opt_state, state, action, reward, after):
            target = reward + discount * jnp.max(values_of(slow, after), -1)

            def loss(params):
                values = values_of(params, state)
                taken = jnp.take_along_axis(values, action[:, None], -1)[:, 0]
                return jnp.mean((taken - target) ** 2)

            updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state)
            return optax.apply_updates(params, updates), opt_state

        self.update = update

    def act(self, state: Bits) -> int:
        """Return the bit of the largest value, or, at first, any."""
        share = max(0.01, 1 - self.count / max(1, self.explore))
        self.count += 1
        if self.rng.random() < share:
            return int(self.rng.integers(self.bits))
        return int(jnp.argmax(self.values(self.params, jnp.asarray(state, float))))

    def learn(self, step: Transition) -> None:
        """Keep a step, and learn from some of those kept."""
        self.memory.append(step)
        drawn = self.rng.integers(len(self.memory), size=self.batch)
        chosen = [self.memory[i] for i in drawn]
        state, after = (
            jnp.asarray([getattr(t, name) for t in chosen], jnp.float32)
            for name in ("state", "after")
        )
        action = jnp.asarray([t.action for t in chosen])
        reward = jnp.asarray([t.reward for t in chosen], jnp.float32)
        self.params, self.opt_state = self.update(
            self.params, self.slow, self.opt_state, state, action, reward, after
        )
        if self.count % self.renew == 0:
            self.slow = self.params


AGENTS: dict[str, Callable[..., Agent]] = {"deep Q": DeepQ, "random": RandomSteps}


@dataclasses.dataclass(frozen=True, repr=False)
class GeneratorSearch(Echoed):
    """What a search over generators has found; prints as a table.

    Attributes:
      accuracies: of every network that was trained, in the order of their training.
      steps: of the walk, each with the accuracy it came to.
    """

    accuracies: dict[Architecture, float]
    steps: tuple[tuple[Architecture, float], ...]

    @property
    def best(self) -> Architecture:
        """The most accurate network; of equally accurate ones that of most symmetry."""

        def key(pair: tuple[Architecture, float]) -> tuple[float, float]:
            groups, accuracy = pair
            return accuracy, sum(math.log(H.order) for H in groups.groups)

        return max(self.accuracies.items(), key=key)[0]

    def parts(self) -> Sequence[str | Rows]:
        """Return a row per network, the most accurate one first."""
        rows: list[tuple[Any, ...]] = [("architecture", "accuracy")]
        ordered = sorted(self.accuracies.items(), key=lambda pair: -pair[1])
        rows += [(str(groups), f"{value:.4f}") for groups, value in ordered]
        return Rows(rows), f"{len(self.steps)} steps, {len(rows) - 1} trainings"


def search_generators(
    evaluate: Callable[[Architecture], float],
    space: GeneratorSpace,
    *,
    agent: str = "deep Q",
    trainings: int = 12,
    steps: int = 500,
    seed: int = 0,
) -> GeneratorSearch:
    """Search the generators of a network's groups.

    The walk starts without any. Its reward is (a - a0) exp|a - a0|, with a0 the
    accuracy of the network without symmetry, whose training is one of those counted.

    Args:
      evaluate: architecture -> accuracy in [0, 1] on validation samples; asked once for
        each.
      space: what states stand for.
      agent: "deep Q", or "random" for the control.
      trainings: ends the walk, when so many networks were asked for and another is due.
      steps: ends the walk.
      seed: of the agent.

    Returns:
      All accuracies, and the walk.

    Raises:
      ValueError: there is no such agent, no training, or no step.

    >>> import eqjax as eq
    >>> space = GeneratorSpace(eq.dihedral(4), layers=2)
    >>> found = search_generators(
    ...     lambda groups: groups.groups[0].order / 8, space, agent="random")
    >>> str(found.best), len(found.accuracies)
    ('D4 D4', 10)
    """
    check_callable("evaluate", evaluate, "lambda architecture: 0.9")
    if not isinstance(space, GeneratorSpace):
        raise TypeError(f"space must be a GeneratorSpace, got {space!r}")
    if agent not in AGENTS:
        known = ", ".join(map(repr, AGENTS))
        raise ValueError(f"agent must be one of {known}, got {agent!r}")
    check_whole("trainings", trainings, None)
    check_whole("steps", steps, None)
    if trainings < 1 or steps < 1:
        raise ValueError(
            f"trainings and steps must be at least 1, got {trainings} and {steps}"
        )
    check_whole("seed", seed, 0)
    chooser = AGENTS[agent](space.bits, seed)
    state: Bits = (0,) * space.bits
    start = space.architecture(state)

    def accuracy_of(groups: Architecture) -> float:
        found = evaluate(groups)
        check_number("what evaluate returns", found)
        return found

    known_accuracies = {start: accuracy_of(start)}
    walk: list[tuple[Architecture, float]] = []
    for _ in range(steps):
        action = chooser.act(state)
        after = tuple(b ^ (i == action) for i, b in enumerate(state))
        groups = space.architecture(after)
        if groups not in known_accuracies:
            if len(known_accuracies) == trainings:
                break
            known_accuracies[groups] = accuracy_of(groups)
        accuracy = known_accuracies[groups]
        gain = accuracy - known_accuracies[start]
        reward = gain * math.exp(abs(gain))
        chooser.learn(Transition(state, action, reward, after))
        walk.append((groups, accuracy))
        state = after
    return GeneratorSearch(known_accuracies, tuple(walk))
