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
# # Search on your own images
#
# A folder with a subfolder of images per class is all that a search needs. Here such a
# folder is made first, of handwritten digits, so that this notebook runs as it is.
#
# **Your own folder:** put its path in the line `folder = ...` below, leave out the cell
# that writes the images, and take the settings as they are by default (`lengths = small
# = []`): these here are for a minute, and too short for anything but a look.

# %%
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import eqjax as eq
from eqjax_experiments.data import digits
from eqjax_experiments.predict import predict

work = Path(tempfile.mkdtemp())
os.chdir(work)  # runs/ and data/ of the commands come to lie here
folder = work / "pictures"  # or the path of yours

# %% [markdown]
# ## A folder of images
#
# 400 sixes and 400 nines. A rotation by 180 degrees turns one class into the other, so
# that the data do not have the symmetry of the square, D4, that the search starts with.

# %%
data = digits.load("upright")
for label, name in ((6, "six"), (9, "nine")):
    (folder / name).mkdir(parents=True)
    of_class = np.flatnonzero(data.train.labels == label)[:400]
    for number in of_class:
        unit = data.train.images[number, ..., 0] * data.deviation[0] + data.mean[0]
        pixels = np.round(255 * np.clip(unit, 0, 1)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / name / f"{number}.png")
{each.name: len(list(each.iterdir())) for each in sorted(folder.iterdir())}

# %% [markdown]
# ## The search
#
# The command as in a shell, `python -m eqjax_experiments.evolve --data pictures ...`.
# It trains a network with D4 in all layers, and then children with smaller groups in
# some of them; what survives is on the front of error against parameters.

# %%
lengths = "--generations 2 --population-size 2 --first-epochs 4 --epochs 4".split()
small = "--image-size 14 --features 2 4 --pool-after 1 2 --kernel-size 3".split()
command = [sys.executable, "-m", "eqjax_experiments.evolve", "--data", str(folder)]
command += ["--name", "first", *lengths, *small]
os.environ.pop("FORCE_COLOR", None)  # of the kernel: what is printed here is plain
done = subprocess.run(command, capture_output=True, text=True, check=True)
print(done.stdout)

# %% [markdown]
# The last line but one is the verdict: the largest group that the networks can do with,
# or that the search cannot tell, why, and what to do. The picture has all children that
# were trained and the groups of every layer.

# %%
Image.open("runs/first/search.png")

# %% [markdown]
# ## Predicting
#
# Files, folders or arrays; the network is the one of least validation error.

# %%
files = sorted((folder / "six").iterdir())[:3] + sorted((folder / "nine").iterdir())[:3]
found = predict("runs/first", *files)
assert found.class_names == ("nine", "six")
assert np.all(found.probabilities.sum(-1).round(6) == 1)
found

# %% [markdown]
# The network itself, a Flax model with its variables, to be trained on, relaxed or
# exported:

# %%
net = eq.load("runs/first/networks/member-1")
net

# %%
net.model

# %% [markdown]
# ## The same in Python
#
# `eq.evolve` does the search for any model and any arrays, and returns what it has
# found: networks, and the verdict.

# %%
import optax

chosen = np.isin(data.train.labels, (6, 9))
x = data.train.images[chosen].reshape(-1, 14, 2, 14, 2, 1).mean((2, 4))
y = (data.train.labels[chosen] == 6).astype(int)
start = eq.Architecture.uniform(eq.dihedral(4), 3)
searched = eq.evolve(
    lambda groups: eq.exact(
        groups, features=(2, 4), kernel_size=3, pool_after=(1, 2), classes=2
    ),
    start,
    train=(x[:1000], y[:1000]),
    validation=(x[1000:], y[1000:]),
    optimizer=optax.adam(0.005),
    search=eq.Evolution(population_size=2, children=3),
    generations=2,
    first_steps=100,
    steps=60,
)
searched

# %%
assert len(searched.networks) == len(searched.state.architectures)
assert searched.best.error < 0.5
