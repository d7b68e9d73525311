"""
Comparing methods
=================

All methods have one interface, so a comparison is a loop. Everything is equal but the method: the slices, their
intensities, and the pixels that are counted.
"""

# %%

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from skmimood import SliceStandardizer, make_mimood_pipeline
from skmimood.baselines import HealthyZScore, IntensityThreshold, TokenizerResidual
from skmimood.datasets import make_brain_phantom
from skmimood.metrics import auroc, average_precision, best_dice

healthy, _ = make_brain_phantom(100, size=32, random_state=0)
scans, lesions = make_brain_phantom(10, size=32, lesions=True, random_state=1)

# %%
# ``SliceStandardizer`` gives rivals the intensities that the preset uses. Two are parts of MIM-OOD itself: without the
# network that looks at the pixels, and the tokenizer alone. Their networks are those of the first, from its cache.
# :class:`~skmimood.baselines.DenoisingAutoencoder` and all other rivals take their place in the same way, and train for
# as long as MIM-OOD does.

mimood = make_mimood_pipeline("toy", random_state=0)
methods = {
    "MIM-OOD": mimood,
    "tokens alone": clone(mimood).set_params(inpainter__maps__fusion="none"),
    "tokenizer alone": make_pipeline(clone(mimood["tokenizer"]), TokenizerResidual()),
    "z-score": make_pipeline(SliceStandardizer(), HealthyZScore(n_templates=5, random_state=0)),
    "intensity": make_pipeline(SliceStandardizer(), IntensityThreshold(equalize="training")),
}

# %%
# Each is fitted on the healthy slices and maps the others.

maps = {name: method.fit(healthy).decision_function(scans) for name, method in methods.items()}
measures = {"AP": average_precision, "AUROC": auroc, "best Dice": best_dice}
pd.DataFrame(
    {
        title: {name: measure(lesions, found) for name, found in maps.items()}
        for title, measure in measures.items()
    }
).round(3)

# %%
# The z-score, which compares each pixel with healthy ones at its place, needs no training, and is as good as networks
# that had half a minute of it. ``benchmarks/README.md`` of the source has what longer trainings make of them on real
# brains.
#
# By kind of lesion
# -----------------
#
# A number over all lesions hides what a method is for. Bright lesions need no model of what is healthy, dark ones do;
# texture, small rings and masses are hard for all.

kinds = ["bright", "dark", "texture", "ring", "mass"]
pd.DataFrame(
    {
        kind: {name: average_precision(lesions[i::5], found[i::5]) for name, found in maps.items()}
        for i, kind in enumerate(kinds)
    }
).round(2)

# %%
# Two of the slices, with the lesions outlined, and their maps. Each method has a colour scale of its own, from 0 to
# what 0.5 % of its pixels exceed.

_, axes = plt.subplots(2, len(maps) + 1, figsize=(11, 4), layout="constrained")
for row, (scan, lesion) in enumerate(zip(scans[:2], lesions[:2], strict=True)):
    axes[row, 0].imshow(scan, "gray", vmin=0, vmax=1)
    axes[row, 0].contour(lesion, [0.5], colors="deepskyblue", linewidths=1)
    for column, (name, found) in enumerate(maps.items(), start=1):
        axes[row, column].imshow(found[row], "inferno", vmin=0, vmax=np.quantile(found, 0.995))
        axes[0, column].set_title(name, fontsize=9)
axes[0, 0].set_title("slice and lesion", fontsize=9)
for ax in axes.flat:
    ax.set_axis_off()
plt.show()

# %%
# On real scans, compare over patients, with intervals of the differences, and give every rival as many candidates to
# choose from as your own method. ``python -m benchmarks`` of the source does that.
