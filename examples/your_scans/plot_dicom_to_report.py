"""
From DICOM to report, step by step
==================================

For those who have scans from a scanner's archive and have never used a command line for them. You need a folder of
healthy scans, one folder of DICOM files each, and such a folder for each scan that is to be looked at. Nothing is sent
anywhere.
"""

# %%
# 1. Install
# ----------
#
# Once, in a terminal, from the folder of the source::
#
#     pip install '.[report,dicom]'
#
# 2. Sort the scans
# -----------------
#
# ::
#
#     healthy/anna/IM0001.dcm ...        one folder a scan, whatever the files are called
#     healthy/bert/IM0001.dcm ...
#     patients/carl/IM0001.dcm ...
#
# All of one sequence (all T2, say), since a model learns what *these* look like. The more healthy ones the better;
# below some dozens expect little. This function makes such folders of artificial heads, to have something to show; you
# have yours.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from skmimood import ScanDetector, make_mimood_pipeline
from skmimood.datasets import make_brain_phantom
from skmimood.jobs.scoring import ScoreJob, score_scans
from skmimood.plotting import ColourScale, SliceDisplay


def write_series(folder, volume):
    """Write slices (D, H, W) in [0, 1], from below upwards, front of the head above and its left side on the left."""
    folder.mkdir(parents=True)
    series = generate_uid()
    for level, pixels in enumerate(volume):
        file = Dataset()
        file.file_meta = FileMetaDataset()
        file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file.SOPClassUID = file.file_meta.MediaStorageSOPClassUID = MRImageStorage
        file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        file.SeriesInstanceUID, file.InstanceNumber, file.Modality = series, level, "MR"
        file.ImageOrientationPatient = [-1, 0, 0, 0, 1, 0]  # columns run to the right, rows to the back
        file.ImagePositionPatient = [104, -104, 15 * level - 50]  # mm
        file.PixelSpacing, file.SliceThickness = [6.5, 6.5], 15
        file.Rows, file.Columns = pixels.shape
        file.SamplesPerPixel, file.PhotometricInterpretation, file.PixelRepresentation = 1, "MONOCHROME2", 0
        file.BitsAllocated, file.BitsStored, file.HighBit = 16, 16, 15
        file.PixelData = np.rint(1000 * pixels).astype(np.uint16).tobytes()
        file.save_as(folder / f"IM{level:04d}.dcm", enforce_file_format=True)


archive = Path(tempfile.mkdtemp())
heads, _ = make_brain_phantom(10, size=32, n_slices=8, random_state=0)
ill, _ = make_brain_phantom(2, size=32, n_slices=8, lesions="bright", random_state=1)
for number, head in enumerate(heads):
    write_series(archive / "healthy" / f"head-{number}", head)
for name, head in zip(["carl", "dora"], ill, strict=True):
    write_series(archive / "patients" / name, head)
print(*sorted(path.relative_to(archive).as_posix() for path in archive.glob("patients/*/*"))[:4], sep="\n")

# %%
# 3. Learn from the healthy ones
# ------------------------------
#
# In the terminal::
#
#     skmimood fit healthy/ -o model/
#
# It says how long it will take, which scans it could not use, and why. The same from Python, with a preset
# for heads as small as these:

pipe = make_mimood_pipeline("toy", random_state=0)
detector = ScanDetector(pipe, size=32, scan_fpr=0.2).fit(archive / "healthy")
detector.save(archive / "model")

# %%
# 4. Look at the others
# ---------------------
#
# ::
#
#     skmimood score patients/ -m model/ -o out/

patients = [archive / "patients" / name for name in ("carl", "dora")]
score_scans(patients, archive / "model", archive / "out", ScoreJob(), print)
pd.read_csv(archive / "out" / "scores.csv")

# %%
# Both have a bright lesion. One is called anomalous: its score is above those of all four healthy scans that were held
# out. The other is not, as a model of half a minute finds little; yours will have trained for longer.
#
# 5. Open the report
# ------------------
#
# ``out/report.html``, in any browser. :doc:`/auto_examples/first_steps/plot_report` says how to read it. For each scan
# it has pictures like these:

_, ax = plt.subplots(figsize=(9, 6), layout="constrained")
SliceDisplay.from_result(detector.detect_scan(patients[1]), ColourScale.of(detector), ax=ax)
plt.show()

# %%
# 6. In your viewer
# -----------------
#
# ``out/`` has for each scan a NIfTI file of the map, of the mask and of the p-values, in the patient's own coordinates.
# ITK-SNAP, 3D Slicer and FSLeyes open them over the DICOM series, or over that series as NIfTI.
#
# If something is refused
# -----------------------
#
# Each folder must hold one series, with all its slices. A localizer, a missing slice or two series in one folder are
# refused with a sentence that says so; the other scans are scored all the same. See :doc:`/inputs`.
