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
# # Volumes
#
# What the plane has, volumes have: layers, relaxation, searches, the symmetry test. The
# ambient group is O, the 24 rotations of the cube, or Oh, its 48 symmetries.

# %%
import jax
import numpy as np
import optax

import eqjax as eq
from eqjax_experiments.data import synthetic

# %% [markdown]
# ## Subgroups of the cube
#
# Schoenflies symbols, with an axis where several subgroups share one. One of each
# conjugacy class is drawn.

# %%
Oh = eq.full_octahedral()
assert len(Oh.subgroups) == 98
assert Oh.subgroup("4/mmm:k") == Oh.subgroup("D4h:k")  # Hermann-Mauguin symbols
Oh

# %%
Oh.subgroup("C4v", axis="k")

# %% [markdown]
# ## Data
#
# Volumes of 8 x 8 x 8 voxels: rods along the first axis against rods across it, in
# noise. They look alike under all symmetries of the cube that keep this axis, D4h:i.
# Your own volumes are an array (n, depth, height, width, channels).

# %%
data = synthetic.load("axis")
data.train

# %% [markdown]
# ## A network
#
# With a stabilizer K, hidden fields have a value per coset of K: 12 per voxel and
# channel and not 48.

# %%
groups = eq.Architecture.uniform(Oh, 3)
model = eq.exact(
    groups,
    features=(1, 1),
    kernel_size=3,
    pool_after=(1,),
    head_features=16,
    classes=2,
    stabilizer=Oh.subgroup("C4", axis="k"),
)
model

# %%
optimizer = optax.adam(0.01)
state = eq.training.init_state(
    jax.random.key(0), model, optimizer, data.train.images[:32]
)
batches = eq.training.batches(data.train, 32, 150, np.random.default_rng(0))
state, metrics = eq.training.train(state, batches, model=model, optimizer=optimizer)
metrics

# %% [markdown]
# A network over Oh gives rods along all three axes the same output, so that it can only
# guess. Which symmetry do the data have? The test knows all 98 subgroups; here are
# those that are worth a look.

# %%
names = ("Oh", "O", "Th", "Td", "D4h:i", "D4h:j", "D4h:k", "C4v:i", "C1")
report = eq.symmetry_test(
    state.variables,
    model=model,
    x=data.train.images[:1000],
    y=data.train.labels[:1000],
    key=jax.random.key(1),
    groups=[Oh.subgroup(name) for name in names],
)
report

# %%
assert report.network["Oh"].rejected
assert not report.network["D4h:i"].rejected
[H.name for H in report.maximal]

# %% [markdown]
# ## Relaxed to it
#
# The head is relaxed to D4h:i and training goes on: the rods are told apart.

# %%
D4h = Oh.subgroup("D4h:i")
smaller = model.clone(architecture=eq.Architecture((Oh, D4h, D4h)))
variables, report = eq.morph(
    state.variables, source=model, target=smaller, inputs=data.train.images[:2]
)
report

# %%
relaxed = eq.training.pack_state(variables, optimizer.init(variables["params"]))
batches = eq.training.batches(data.train, 32, 150, np.random.default_rng(1))
relaxed, _ = eq.training.train(relaxed, batches, model=smaller, optimizer=optimizer)
before = eq.training.evaluate(state.variables, *data.test, model=model)
after = eq.training.evaluate(relaxed.variables, *data.test, model=smaller)
assert float(after.error) < float(before.error)
before, after

# %% [markdown]
# ## Closed groups
#
# Layers of irreps are tied to closed subgroups of O(3), which may be infinite.

# %%
eq.orthogonal().subgroup("C∞v")

# %%
eq.IrrepsConv("8x0e + 4x1o", 3, group=eq.orthogonal(), irreps_in="1o")
