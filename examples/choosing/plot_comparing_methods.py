"""
Comparing methods
=================

All methods have one interface, so a comparison is a loop. Everything is equal but the method: the slices, their
intensities, and the pixels that are counted.
"""

# %%

import tempfile

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.pipeline import make_pipeline

from skmimood import SliceStandardizer, make_mimood_pipeline
from skmimood.baselines import DenoisingAutoencoder, HealthyZScore, IntensityThreshold, TokenizerResidual
from skmimood.datasets import make_brain_phantom
from skmimood.metrics import auroc, average_precision, best_dice

healthy, _ = make_brain_phantom(100, size=32, random_state=0)
scans, lesions = make_brain_phantom(10, size=32, lesions=True, random_state=1)

# %%
# ``SliceStandardizer`` gives rivals the intensities that the preset uses. The tokenizer alone is the pipeline with
# another last step, whose networks come from the cache.

memory = f"{tempfile.gettempdir()}/skmimood-examples"
mimood = make_mimood_pipeline(preset="tiny", random_state=0, memory=memory)
mimood.set_params(
    tokenizer__channels=16,
    evidence__channels=8,
    detector__width=32,
    detector__n_painted=4,
    inpainter__depth=2,
)
denoiser = DenoisingAutoencoder(channels=8, random_state=0, memory=memory)
for step in (*mimood, denoiser):
    step.set_params(training__max_iter=100)
methods = {
    "MIM-OOD": mimood,
    "tokenizer alone": make_pipeline(mimood["tokenizer"], TokenizerResidual()),
    "denoising autoencoder": make_pipeline(SliceStandardizer(), denoiser),
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
# By kind of lesion
# -----------------
#
# A number over all lesions hides what a method is for. Bright lesions need no network; a change of texture is hard
# for all.

kinds = ["bright", "dark", "texture", "ring", "mass"]
pd.DataFrame(
    {
        kind: {name: average_precision(lesions[i::5], found[i::5]) for name, found in maps.items()}
        for i, kind in enumerate(kinds)
    }
).round(2)

# %%

_, axes = plt.subplots(2, len(maps) + 1, figsize=(11, 4), layout="constrained")
for row, (scan, lesion) in enumerate(zip(scans[:2], lesions[:2], strict=True)):
    axes[row, 0].imshow(scan, "gray")
    axes[row, 0].contour(lesion, [0.5], colors="deepskyblue", linewidths=1)
    for ax, (name, found) in zip(axes[row, 1:], maps.items(), strict=True):
        ax.imshow(found[row], "inferno", vmax=np.quantile(found, 0.99))
        ax.set_title(name, fontsize=9)
for ax in axes.flat:
    ax.set_axis_off()
plt.show()

# %%
# On real scans, compare over patients, with intervals of the differences, and give every rival as many candidates to
# choose from as your own method. ``python -m benchmarks`` of the source does that.
