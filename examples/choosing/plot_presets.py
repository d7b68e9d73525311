"""
Choosing a preset
=================

A preset is a set of values for parameters. :doc:`/presets` says which one is for what; here is how to see whether a
training was long enough.
"""

# %%
# What differs
# ------------

import matplotlib.pyplot as plt
import pandas as pd

from skmimood import make_mimood_pipeline
from skmimood.datasets import make_brain_phantom
from skmimood.plotting import CodebookDisplay, LossCurveDisplay

presets = {name: make_mimood_pipeline(name).get_params() for name in ("toy", "tiny", "small", "paper")}
names = [
    "tokenizer__channels",
    "tokenizer__channel_multipliers",
    "tokenizer__training__max_iter",
    "detector__network",
    "detector__corruption",
    "detector__threshold",
    "inpainter__network",
    "inpainter__depth",
    "inpainter__width",
    "inpainter__n_steps",
    "inpainter__n_restorations",
    "inpainter__maps__fusion",
]
pd.DataFrame(
    {preset: [str(parameters[name]) for name in names] for preset, parameters in presets.items()}, index=names
)

# %%
# Was the training long enough?
# -----------------------------
#
# The rate of learning falls to zero, so every curve is flat at its end. Train for twice the steps: if the loss on the
# slices that validate ends lower, they were worth it, as they are here for preset ``"toy"``. Where it rises again, the
# network has begun to learn its slices by heart; the weights of the minimum are kept.

healthy, _ = make_brain_phantom(100, size=32, random_state=0)
pipe = make_mimood_pipeline("toy", random_state=0)
pipe.fit(healthy)

_, ax = plt.subplots(figsize=(12, 3), layout="constrained")
LossCurveDisplay.from_estimator(pipe, ax=ax)
plt.show()

# %%
# Is the codebook used?
# ---------------------
#
# The perplexity is the number of codes that are used as if equally often. A few dozen of 256 are a codebook that has
# begun to collapse, or a training that was too short; more than a hundred is usual for real brains.

CodebookDisplay.from_estimator(pipe, healthy, ax=plt.subplots(figsize=(5, 3), layout="constrained")[1])
plt.show()

# %%
# Does the decoder keep the anatomy?
# ----------------------------------
#
# What is lost here is lost for everything that follows. With ``"toy"`` that is nearly all but the outline, the
# midline and large folds: a tokenizer for real work shows each fold of the cortex that its grid can hold.

tokenizer = pipe["tokenizer"]
decoded = tokenizer.inverse_transform(tokenizer.transform(healthy[-4:]))
_, axes = plt.subplots(2, 4, figsize=(8, 4), layout="constrained")
for ax, picture in zip(axes.flat, [*healthy[-4:], *decoded], strict=True):
    ax.imshow(picture, "gray", vmin=0, vmax=1)
    ax.set(xticks=[], yticks=[])
axes[0, 0].set_ylabel("slice")
axes[1, 0].set_ylabel("decoded")
plt.show()
