"""
Thresholds and p-values
=======================

Thresholds come from healthy scans that took no part in the training, at a false-positive rate that you choose, and can
be changed without a refit. :doc:`/thresholds` says why; here is how.
"""

# %%
# A fitted detector. Ten healthy subjects are few: four of them are held out for the thresholds. Six others are kept for
# later.

import tempfile

import matplotlib.pyplot as plt
import numpy as np

from skmimood import ScanDetector, make_mimood_pipeline
from skmimood.datasets import write_phantom_dataset
from skmimood.plotting import FalsePositiveRateDisplay

folder = tempfile.mkdtemp()
cohort = write_phantom_dataset(folder, n_healthy=16, n_lesions=3, size=32, n_slices=8, random_state=0)
learned, unseen = cohort.healthy[:10], cohort.healthy[10:]
pipe = make_mimood_pipeline("toy", random_state=0)
detector = ScanDetector(pipe, size=32, scan_fpr=0.2).fit(learned)

print(
    f"pixels above {detector.pixel_threshold_:.4f}, scans above {detector.scan_threshold_:.3g} are anomalous"
)
print(f"from {detector.reference_.n_pixels} pixels of {detector.reference_.n_scans} healthy scans")

# %%
# p-values contain every threshold
# --------------------------------
#
# The p-value of a pixel is the share of healthy pixels that score at least as high. So the masks of all rates lie
# in one image.

result = detector.detect_scan(cohort.scans[0])
pvalues = np.asarray(result.pvalues.dataobj)
lowest = pvalues[:, :, np.argmin(pvalues.min(axis=(0, 1)))].T  # the slice with the smallest one

_, axes = plt.subplots(1, 4, figsize=(11, 3), layout="constrained")
shown = axes[0].imshow(-np.log10(lowest), "inferno", origin="lower")
axes[0].set_title("p-values")
plt.colorbar(shown, ax=axes[0], shrink=0.8, label="-log10 p")
for ax, rate in zip(axes[1:], [0.05, 0.01, 0.001], strict=True):
    ax.imshow(lowest <= rate, "gray", origin="lower")
    ax.set_title(f"p <= {rate:g}")
for ax in axes:
    ax.set_axis_off()
plt.show()

# %%
# Another rate
# ------------
#
# No network is trained, and no scan read again.

for rate in (0.05, 0.01, 0.001):
    detector.set_rates(fpr=rate)
    mask = np.asarray(detector.detect_scan(cohort.scans[0]).mask.dataobj)
    print(f"fpr {rate:g}: threshold {detector.pixel_threshold_:.4f}, {mask.sum()} voxels marked")

# %%
# Does it hold?
# -------------
#
# Map healthy subjects that nobody has seen, and count. Of pixels there are many; their curve follows the diagonal
# as far as these subjects are like those held out. Of scans there are few: the band is where 95 % of such curves
# lie although nothing is wrong. It is wide, and that is what four held-out subjects are worth.

_, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
for ax, level in zip(axes, ["pixel", "scan"], strict=True):
    FalsePositiveRateDisplay.from_estimator(detector, unseen, level=level, ax=ax)
plt.show()

# %%
# Another site
# ------------
#
# ``detector.calibrate(healthy_scans)`` sets both thresholds on healthy scans of a new scanner, and leaves the
# networks as they are.
