"""
Reading a report
================

``skmimood score`` writes maps, a table and a report of all scans of a folder. Here is what each part says, and what it
does not say.
"""

# %%
# Score a folder
# --------------
#
# Some artificial subjects are written as NIfTI files; with your own, this section is two lines of a shell:
# ``skmimood fit healthy/ -o model/`` and ``skmimood score patients/ -m model/ -o out/``.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from skmimood import ScanDetector, make_mimood_pipeline
from skmimood.datasets import write_phantom_dataset
from skmimood.jobs.scoring import ScoreJob, score_scans
from skmimood.plotting import ColourScale, SliceDisplay

folder = Path(tempfile.mkdtemp())
cohort = write_phantom_dataset(folder, n_healthy=10, n_lesions=3, size=32, n_slices=8, random_state=0)
pipe = make_mimood_pipeline("toy", random_state=0)
detector = ScanDetector(pipe, size=32, scan_fpr=0.2).fit(cohort.healthy)
detector.save(folder / "model")

table = score_scans(cohort.scans, folder / "model", folder / "out", ScoreJob(), print)

# %%
# What was written
# ----------------
#
# ``report.html`` is one file without scripts, to be opened in any browser and sent as it is. Beside it stand
# ``scores.csv`` for a spreadsheet or a program, ``status.json`` with what became of each scan, and the maps, each
# on its scan's own grid.

print(*sorted(path.name for path in (folder / "out").glob("[!.]*")), sep="\n")

# %%
# The table
# ---------
#
# One row a scan, the highest score first. ``score`` is how far and how high the map exceeds what healthy pixels do;
# ``pvalue`` is the share of held-out healthy scans that score as high; ``is_anomalous`` compares the score with the
# threshold. With few healthy scans held out, p-values are coarse: of 4, the smallest is 1/5.
# None of these scans is anomalous: half a minute of training is too short for lesions of a few voxels.

pd.read_csv(folder / "out" / "scores.csv")

# %%
# A card
# ------
#
# Each scan has its most anomalous slices as pictures, in a row each: the scan, the healed scan, the map and the
# mask. The report draws what this display draws.

result = detector.detect_scan(cohort.scans[0])
_, ax = plt.subplots(figsize=(9, 6), layout="constrained")
SliceDisplay.from_result(result, ColourScale.of(detector), ax=ax)
plt.show()

# %%
# How to read a row:
#
# - **Map.** One colour scale for all scans of a model, with the threshold in its middle. So a healthy scan looks dark,
#   and a report full of dark maps is good news, not a broken model.
# - **Mask.** Single pixels and rims are what 1 % of healthy pixels look like. A compact region in several neighbouring
#   slices is something to look at.
# - **Healed.** Compare it with the scan where the mask is. If it shows what you would expect of healthy tissue, the map
#   is to be believed; if it is a blur or shows another anatomy, the model knew too little there.
#
# Flags
# -----
#
# say that something about the scan is unusual: its intensities or its shape differ from those of the training, its
# mask has holes, slices were too dim. The map is computed all the same; read it with more doubt.

print(result.flags)

# %%
# What a report does not say
# --------------------------
#
# - That a scan without a mark is healthy. See :doc:`/failure_modes` for what is missed.
# - That a marked scan is ill. One in five of the *healthy* scans is to be marked here, since that is what
#   ``scan_fpr=0.2`` asks for.
# - What the finding is. There is no diagnosis in a residual.
