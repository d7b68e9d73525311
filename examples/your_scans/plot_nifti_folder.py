"""
Your own folder of NIfTI scans
==============================

Fit on a folder of healthy scans, and write maps of others on their own grids. Scans may have any orientation, spacing
and size; :doc:`/inputs` says what happens to them.
"""

# %%
# Put your folders here. Artificial subjects stand in for them:

import tempfile
from pathlib import Path

import nibabel as nib

from skmimood import ScanDetector, make_mimood_pipeline
from skmimood.datasets import write_phantom_dataset

folder = Path(tempfile.mkdtemp())
write_phantom_dataset(folder, n_healthy=10, n_lesions=3, size=32, n_slices=8, random_state=0)
healthy, patients, output = folder / "healthy", folder / "patients", folder / "out"
print(*sorted(path.name for path in patients.iterdir()))

# %%
# Fit
# ---
#
# Two parameters tell what is what in a folder. ``modality="T2"`` takes only files that end in ``_T2``: without it,
# all but label images such as ``_seg`` are taken. ``mask="_brainmask"`` would take a brain mask beside each scan;
# by default head or brain are found from the intensities. Preset ``"toy"`` and ``size=32`` are for
# scans as small as these; leave both out for real work.

pipe = make_mimood_pipeline("toy", random_state=0)
detector = ScanDetector(pipe, modality="T2", size=32, scan_fpr=0.2).fit(healthy)

for status in detector.fit_status_[:3]:
    print(status.id, status.status, status.n_slices, "slices")

# %%
# Nothing raises for one bad file: it is warned about, listed in ``fit_status_``, and the others are used.
#
# Map
# ---
#
# One scan at a time, in bounded memory.

for result in detector.detect(patients):
    print(f"{result.id}: score {result.score:.3g}, p = {result.pvalue:.2g}", *result.flags)
    result.save(output)

# %%
# Maps have the shape and affine of their scan, so any viewer overlays them.

scan, anomaly = (
    nib.load(path) for path in (patients / "sub-101_T2.nii.gz", output / "sub-101_T2_anomaly.nii.gz")
)
print(scan.shape == anomaly.shape, (scan.affine == anomaly.affine).all())
print(*sorted(path.name for path in output.iterdir()), sep="\n")

# %%
# Lesions that are known
# ----------------------
#
# If some scans have lesion masks, ``score`` is the average precision over all their voxels, which
# is low here: lesions of a few voxels need more pixels, and a longer training than half a minute. And scans of patients
# can be learned from too: ``fit(scans, y="_seg")`` drops every slice that holds a lesion.

print(f"AP {detector.score(patients, '_seg'):.3f}")

# %%
# The same from a shell::
#
#     skmimood fit healthy/ -o model/ --modality T2
#     skmimood score patients/ -m model/ -o out/ --healed
