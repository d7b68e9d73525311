"""Limits: peak memory of scoring a 240x240x155 volume, and the time of `import skmimood`."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import numpy as np

from benchmarks import records
from benchmarks.timing.stopwatch import peak_resident


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="a model that `skmimood fit` has written")


def run(arguments: argparse.Namespace) -> None:
    import nibabel

    from skmimood import ScanDetector

    detector = ScanDetector.load(arguments.model)
    image = nibabel.Nifti1Image(synthetic_head((240, 240, 155)), np.eye(4))
    start = time.perf_counter()
    if detector.mask not in ("auto", "none"):
        detector.set_params(mask="auto")  # the volume has no brain mask beside it
    result = detector.detect_scan(image)
    records.write(
        "volume",
        {
            "shape": list(result.anomaly.shape),
            "seconds": {
                "score": round(time.perf_counter() - start, 1),
                "import": round(float(np.median([import_seconds() for _ in range(5)])), 3),
            },
            # The peak covers making the volume too.
            "peak_memory_gb": round(peak_resident() / 1e9, 2),
        },
    )


def synthetic_head(shape: tuple[int, int, int]) -> np.ndarray:
    """Return a striped ball in a volume of this shape, float32."""
    rows, columns, slices = np.mgrid[tuple(slice(-1, 1, n * 1j) for n in shape)]
    ball = rows**2 + columns**2 + slices**2 < 0.8
    return np.where(ball, 100 + 20 * np.sin(9 * rows), 0).astype(np.float32)


def import_seconds() -> float:
    """Time an import in a fresh interpreter, without the interpreter's own start."""
    code = "import time; start = time.perf_counter(); import skmimood; print(time.perf_counter() - start)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)
