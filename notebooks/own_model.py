# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Bring your own model
#
# Layers of eqjax stand among those of Flax in any model, in linen or in NNX. This
# notebook takes a model of each kind: checks it, trains it, relaxes a layer of it, and
# searches the groups of the first.

# %%
import flax.linen as nn
import jax
import numpy as np
import optax
from flax import nnx

import eqjax as eq
import eqjax.nnx as enx

# %% [markdown]
# ## Data
#
# The letters L and S in noise, turned by right angles at random and never mirrored: the
# symmetry is C4, not D4. Put your own images and labels here.


# %%
def letter(label, rng):
    image = rng.normal(size=(8, 8, 1)).astype(np.float32)
    if label:
        image[3, 3:6] += 3
        image[4, 1:4] += 3
    else:
        image[2:6, 3] += 3
        image[5, 4] += 3
    return np.rot90(image, rng.integers(4))


rng = np.random.default_rng(1)
labels = rng.integers(2, size=1024)
images = np.stack([letter(label, rng) for label in labels])
images.shape

# %% [markdown]
# ## In linen
#
# A model can be searched if it takes its groups from an architecture. Whatever stands
# between the layers has to keep the symmetry, too; `eq.symmetry` checks that, layer by
# layer, before anything is trained.

# %%
C4, D4 = eq.cyclic(4), eq.dihedral(4)


class Mine(nn.Module):
    architecture: eq.Architecture  # a group for every layer

    @nn.compact
    def __call__(self, x, train=False):
        first, second, last = self.architecture.groups
        x = nn.relu(eq.LiftingConv(4, 3, group=first)(x))
        x = nn.relu(eq.GroupConv(4, 3, group=second)(eq.avg_pool(x, 2, 2)))
        return eq.InvariantHead(2, group=last)(x)  # two classes


start = eq.Architecture.uniform(D4, 3)
checked = eq.symmetry(Mine(start), images[:4])
assert not checked.faults
checked

# %% [markdown]
# The search: networks that start with D4 everywhere, and children that are relaxed.

# %%
found = eq.evolve(
    Mine,
    start,
    train=(images[:768], labels[:768]),
    validation=(images[768:], labels[768:]),
    optimizer=optax.adam(0.01),
    search=eq.Evolution(population_size=3, children=3),
    generations=2,
    first_steps=50,  # 500 if not given
    steps=100,  # 125 if not given
    batch_size=32,
)
found

# %%
best = found.best
logits = best.model.apply(best.variables, images[:8])
assert logits.shape == (8, 2)
best

# %% [markdown]
# A model whose code fixes its groups is not searched, but its layers are relaxed one by
# one, by their paths. The function stays as it is.


# %%
class Fixed(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(eq.LiftingConv(4, 3, group=D4, name="stem")(x))
        return eq.InvariantHead(2, group=D4, name="head")(x)


fixed = Fixed()
variables = jax.jit(fixed.init)(jax.random.key(0), images[:4])
relaxed, relaxed_model, report = eq.relax(
    variables, model=fixed, groups={"head": D4.subgroup("C4")}, inputs=images[:4]
)
np.testing.assert_allclose(
    relaxed_model.apply(relaxed, images[:4]),
    fixed.apply(variables, images[:4]),
    atol=1e-5,
)
report

# %% [markdown]
# ## In NNX
#
# `eqjax.nnx` has the same layers as NNX modules. They take `in_features`,
# `out_features` and `rngs` as `nnx.Conv` does.


# %%
class Net(nnx.Module):
    def __init__(self, rngs):
        tie = {"group": D4, "rngs": rngs}
        self.stem = enx.LiftingConv(1, 4, 3, **tie)
        self.norm = enx.BatchNorm(4, **tie)
        self.conv = enx.GroupConv(4, 8, 3, **tie)
        self.norm2 = enx.BatchNorm(8, **tie)
        self.head = enx.InvariantHead(8, 2, **tie)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.stem(x)))
        return self.head(nnx.relu(self.norm2(self.conv(x))))


@nnx.jit
def step(model, optimizer, x, y):
    def loss(model):
        logits = model(x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    value, gradient = nnx.value_and_grad(loss)(model)
    optimizer.update(model, gradient)
    return value


def train(model, optimizer, steps):
    losses = []
    for n in range(steps):
        part = slice(32 * n % 1024, 32 * n % 1024 + 32)
        losses.append(float(step(model, optimizer, images[part], labels[part])))
    return np.mean(losses[-12:])


net = Net(nnx.Rngs(0))
optimizer = nnx.Optimizer(net, optax.adam(0.01), wrt=nnx.Param)
with_D4 = train(net, optimizer, 200)
with_D4

# %% [markdown]
# Which symmetry do the data have? The groups that contain reflections are rejected.

# %%
net.eval()
tested = enx.symmetry_test(net, x=images, y=labels, key=jax.random.key(1))
assert tested.network["D4"].rejected
assert not tested.network["C4"].rejected
tested

# %% [markdown]
# Relax the last two layers to C4, together with the moments of Adam, and train on.

# %%
smaller = {"conv": D4.subgroup("C4"), "head": D4.subgroup("C4")}
relaxed_net, report = enx.morph(net, groups=smaller)
carried = enx.morph_optimizer(optimizer, source=net, target=relaxed_net)
net.eval(), relaxed_net.eval()
np.testing.assert_allclose(relaxed_net(images[:8]), net(images[:8]), atol=1e-5)
report

# %%
relaxed_net.train()
with_C4 = train(relaxed_net, carried, 100)
assert with_C4 < with_D4
with_D4, with_C4
