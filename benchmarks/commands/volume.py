"""Limits: peak memory of scoring a 240x240x155 volume, and the time of `import skmimood`."""

from __future__ import annotations

import argparse
import time

import nibabel as nib
import numpy as np

from benchmarks import records
from benchmarks.timing.networks import synthetic_head
from benchmarks.timing.stopwatch import import_seconds, resident
from skmimood import ScanDetector


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="a model that `skmimood fit` has written")


def run(arguments: argparse.Namespace) -> None:
    detector = ScanDetector.load(arguments.model)
    image = nib.Nifti1Image(synthetic_head((240, 240, 155)), np.eye(4))
    start = time.perf_counter()
    if detector.mask not in ("auto", "none"):
        detector.set_params(mask="auto")  # the volume has no brain mask beside it
    result = detector.detect_scan(image)
    score = time.perf_counter() - start
    imported = float(np.median([import_seconds() for _ in range(5)]))
    told = {
        "shape": list(result.anomaly.shape),
        "seconds": {"score": round(score, 1), "import": round(imported, 3)},
        "peak_memory_gb": round((resident("VmHWM") or 0) / 1e9, 2),  # making the volume is in it too
    }
    records.write_json(records.RESULTS / "volume.json", told)
