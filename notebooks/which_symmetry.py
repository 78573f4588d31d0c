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
# # Which symmetry do my data have?
#
# One network, trained for a few hundred steps with the largest group in all layers, is
# often enough to tell. `eq.symmetry_test` looks at its gradients: if the data are
# invariant under a group, so is the mean gradient of every layer.

# %%
# %matplotlib inline
import jax
import numpy as np
import optax

import eqjax as eq
from eqjax_experiments.data import digits

# %% [markdown]
# ## The data
#
# 8,000 handwritten digits, reduced to 14 x 14 pixels, each rotated by a random right
# angle. So the distribution has the symmetry C4; a reflected 2 or 5 is seldom seen, so
# that it does not have D4. In your own case that is what you want to know: put your
# images (n, height, width, channels) and labels (n,) here.

# %%
data = digits.load("quarter", size=14)
images, labels = data.train
images.shape, labels[:10]

# %% [markdown]
# ## The probe
#
# A small network with D4 in all layers, trained for 400 steps.

# %%
D4 = eq.dihedral(4)
groups = eq.Architecture.uniform(D4, 4)
model = eq.exact(groups, features=(2, 4, 8), pool_after=(1, 2), head_features=32)
optimizer = optax.adam(optax.cosine_decay_schedule(0.01, 400))
state = eq.training.init_state(jax.random.key(0), model, optimizer, images[:64])
batches = eq.training.batches(data.train, 64, 400, np.random.default_rng(0))
state, _ = eq.training.train(state, batches, model=model, optimizer=optimizer)
validation = eq.training.evaluate(state.variables, *data.validation, model=model)
assert float(validation.error) < 0.4
validation

# %% [markdown]
# ## The test
#
# One backward pass over 4,000 samples. For every subgroup of D4 the table has the
# evidence against it: about 1 if the data have the symmetry, and the more the warmer
# the color. The last columns are the same for every layer alone. A group that is
# rejected has an x; the largest ones that are not are blue.

# %%
report = eq.symmetry_test(
    state.variables,
    model=model,
    x=images[:4000],
    y=labels[:4000],
    key=jax.random.key(1),
)
report

# %%
assert [H.name for H in report.maximal] == ["C4"]
assert report.network["D4"].rejected
assert not report.network["C4"].rejected

# %% [markdown]
# As a picture: the lattice of groups, colored by p, and the evidence of every layer.

# %%
report.draw()

# %% [markdown]
# ## What to do with it
#
# Give the group to the late layers of the network to train next; early ones, which see
# strokes and edges, keep the largest. `eq.guide` does all of this in one call.

# %%
group, decided = eq.search.named_group(report)
assert decided
eq.search.guided_schedule(groups, group)

# %% [markdown]
# Does a single layer need less symmetry than it has? Laplace's evidence for relaxing
# it, in nats, from the same network: above zero (warm) where the data are likelier
# under the smaller group.

# %%
eq.laplace_evidence(
    state.variables,
    model=model,
    x=images[:4000],
    y=labels[:4000],
    key=jax.random.key(2),
)
