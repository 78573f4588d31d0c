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
# # The idea
#
# A layer commutes with a group exactly when its kernel is constant on the orbits of the
# group. So a smaller group needs no other layer, only more parameters, and a network
# can be relaxed to it without changing what it computes.

# %%
import jax
import numpy as np

import eqjax as eq
from eqjax.fields import trivial
from eqjax.kernels import kernel_table

# %% [markdown]
# ## Groups
#
# The rotations by right angles and the reflections of the plane are D4, of order 8. In
# a notebook a group is shown as the lattice of its subgroups: each is connected to its
# maximal subgroups, and the number on the left is the order of those in a row. Names
# with a colon tell subgroups of one type apart: `D1:i` flips the array axis i.

# %%
D4 = eq.dihedral(4)
D4

# %%
print(D4.lattice())  # the same as text
D4.element_names

# %% [markdown]
# The 48 symmetries of the cube have 98 subgroups. Of so many, one of each conjugacy
# class is drawn, with the number of subgroups in it.

# %%
eq.full_octahedral()

# %% [markdown]
# ## Orbits
#
# The entries of a 3 x 3 kernel that reads and writes plain images, by the number of
# their orbit. Under D4 there are three orbits: corners, edges and the centre.
# Reflections along one axis leave six, and the trivial group ties nothing.

# %%
plain = trivial(D4)
for name in ("D4", "D1:i", "C1"):
    table = kernel_table(D4.subgroup(name), (3, 3), plain, plain)
    print(f"{name}: {table.num_orbits} parameters")
    print(table.index[:, :, 0, 0])

assert [
    kernel_table(D4.subgroup(name), (3, 3), plain, plain).num_orbits
    for name in ("D4", "D1:i", "C1")
] == [3, 6, 9]

# %% [markdown]
# ## A network
#
# Three convolutions and an invariant head, all with the full symmetry: rotated images
# get the same outputs.

# %%
model = eq.exact(eq.Architecture.uniform(D4, 4), features=(4, 8, 8), pool_after=(1, 2))
model

# %%
images = jax.random.normal(jax.random.key(0), (2, 28, 28, 1))
variables = jax.jit(model.init)(jax.random.key(1), images)
predict = jax.jit(model.apply)
logits = predict(variables, images)
for u in D4.elements:
    moved = predict(variables, eq.transform(images, u, group=D4))
    np.testing.assert_allclose(moved, logits, atol=1e-4)

# %% [markdown]
# ## Relaxing
#
# The later layers get smaller groups: more parameters, the same function. Each layer
# reads the same kernel at more places.

# %%
groups = eq.Architecture.parse(D4, "D4 D4 C4 C1")
groups

# %%
relaxed_model = model.clone(architecture=groups)
relaxed, report = eq.morph(variables, source=model, target=relaxed_model, inputs=images)
np.testing.assert_allclose(
    jax.jit(relaxed_model.apply)(relaxed, images), logits, atol=1e-5
)
report

# %% [markdown]
# The kernels of the relaxed layers still commute with D4. Training moves them away from
# it where the data ask for that; how far, is measured by the distance of every kernel
# to those that commute with a group. Here noise takes the place of a training.

# %%
keys = iter(jax.random.split(jax.random.key(2), 100))
moved = dict(relaxed)
moved["params"] = jax.tree.map(
    lambda value: value + 0.05 * jax.random.normal(next(keys), value.shape),
    relaxed["params"],
)
found = eq.distances(
    moved,
    model=relaxed_model,
    inputs=images,
    groups=[D4, D4.subgroup("C4"), D4.subgroup("C2"), D4.smallest],
)
assert float(found["conv1",]["D4"]) < 1e-6 < float(found["conv3",]["D4"])
assert float(found["conv3",]["C4"]) < 1e-6 < float(found["head",]["C4"])
found

# %% [markdown]
# ## What keeps the symmetry
#
# `eq.symmetry` measures every layer: of what it promises, what does it keep? A strided
# window that does not fit the size of its input is a usual way to lose a symmetry, and
# the report says what to put in its place.

# %%
stem = eq.LiftingConv(4, 3, strides=2, padding=1, group=D4)
stem

# %%
report = eq.symmetry(stem, images)
assert report.faults
report
