"""
The method in pictures
======================

MIM-OOD turns a slice into discrete tokens, asks one network which of them do not belong, and another what should stand
there instead. How far that is from the slice is the anomaly map. Each step is shown here on artificial brains; the
sections named are those of the paper (Naval Marimont, Siomos and Tarroni, DGM4MICCAI 2023).

.. seealso:: :doc:`/glossary` for the words, :doc:`/architecture` for the files.
"""

# %%
# A model to look into, small, and trained for half a minute only:

import matplotlib.pyplot as plt
import numpy as np

from skmimood import make_mimood_pipeline
from skmimood.datasets import make_brain_phantom
from skmimood.plotting import CodebookDisplay, RestorationDisplay

healthy, _ = make_brain_phantom(100, size=32, random_state=0)
scans, lesions = make_brain_phantom(10, size=32, lesions=True, random_state=1)
pipe = make_mimood_pipeline("toy", random_state=0)
pipe.fit(healthy)
scan, lesion = scans[:1], lesions[:1]

# %%
# 1. From pixels to tokens
# ------------------------
#
# A VQ-VAE (section 3.1) describes each square of 4 x 4 pixels by one of 256 codes. A token is the number of a code.
# What the codes can say is what healthy slices are made of; decoded, the tokens give the slice back without its
# noise and its finest details. After so short a training little more than the outline, the midline and large folds is
# left.

tokenizer = pipe["tokenizer"]
tokenized = tokenizer.transform(scan)

_, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
axes[0].imshow(scan[0], "gray", vmin=0, vmax=1)
axes[0].set_title("slice, 32 x 32 pixels")
axes[1].imshow(tokenized.tokens[0], "twilight")
axes[1].set_title("tokens, 8 x 8")
axes[2].imshow(tokenizer.inverse_transform(tokenized)[0], "gray", vmin=0, vmax=1)
axes[2].set_title("decoded")
for ax in axes:
    ax.set_axis_off()
plt.show()

# %%
# A good tokenizer uses many of its codes. The curve of one that has collapsed falls at once.

CodebookDisplay.from_estimator(pipe, healthy, ax=plt.subplots(figsize=(5, 3), layout="constrained")[1])
plt.show()

# %%
# 2. Which tokens do not belong?
# ------------------------------
#
# The anomalous token detector (section 3.3) learns from healthy slices alone: some of their tokens are exchanged,
# and it learns to tell which. In the paper the wrong tokens are drawn at random; all presets but ``"paper"``
# paint anomalies into the pixels, and take the tokens that these become. In a new slice, tokens whose
# score exceeds *lambda* are called anomalous.
#
# 3. What should stand there instead?
# -----------------------------------
#
# The in-painter (section 3.2) learns by masked image modelling: to predict hidden tokens of healthy slices from
# those around them. The anomalous tokens are hidden, and others drawn in their place; this is repeated *T* times,
# and all of it done *R* times (section 3.4). Decoded, these are the restorations. In the paper both
# networks are transformers, T is 8 and R 4. Presets ``"toy"`` and ``"tiny"`` take U-Nets over the codes, which learn
# more in a short training (``"small"`` for the detector alone), T = 1 and R = 8.
#
# 4. The map
# ----------
#
# The residual between slice and restorations, averaged over the restorations and weighted by the detector's score,
# is the anomaly map. All presets but ``"paper"`` take the geometric mean of that and of the residual of a
# denoising network, which looks at the pixels (:class:`~skmimood.PixelEvidence`): what both find is nearly always a
# lesion.

_, ax = plt.subplots(figsize=(12, 5.2), layout="constrained")
RestorationDisplay.from_estimator(
    pipe, scans[:4], lesions[:4], row_labels=["bright", "dark", "texture", "ring"], ax=ax
)
plt.show()

# %%
# This is figure 5 of the paper. From left to right: the slice, the lesion that was planted, the score of each
# token (the brightest is the highest of these slices), two of the restorations, the healed slice and the map.
# The restorations are blurs after so short a training, so that most of what tells lesions here comes from the network
# that looks at the pixels. Longer trainings give tokens and restorations the anatomy of the slice itself. This is what
# ``skmimood demo`` draws after some minutes, on brains of 64 x 64 pixels:
#
# .. image:: /demo.png
#    :alt: A phantom slice of each lesion kind: scan, known lesion, healed scan, anomaly map and mask
#
# 5. The healed slice
# -------------------
#
# It is the slice itself where the map is below the threshold, and the mean of restorations and denoised slice where
# the map is above twice the threshold; between, it is a mixture. So nothing changes where nothing was found.

healed = pipe.transform(scan)
changed = np.abs(healed - scan) > 1e-6
print(
    f"changed are {changed.mean():.1%} of the pixels, and {changed[lesion].mean():.0%} of those in the lesion"
)

# %%
# lambda, T and R
# ---------------
#
# None of them needs a refit. A smaller lambda resamples more tokens, here those in white: more is found, and more
# healthy tissue is redrawn. More steps make a restoration more consistent, more restorations make the map less noisy.
# See :doc:`/auto_examples/choosing/plot_grid_search` for how to choose them.

anomaly = pipe[:-1].transform(scan).anomaly[0]
_, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
for ax, threshold in zip(axes, [0.08, 0.05, 0.02], strict=True):
    ax.imshow(anomaly > threshold, "gray", vmin=0, vmax=1)
    ax.set(
        xticks=[], yticks=[], title=f"lambda = {threshold}: {(anomaly > threshold).mean():.0%} of the tokens"
    )
plt.show()
