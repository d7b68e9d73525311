"""Score a folder of scans with one and with more workers, and tell what a large cohort would take on more machines."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from benchmarks import records
from benchmarks.commands.options import add_common_arguments
from benchmarks.report.speed import scaling_table
from benchmarks.timing.networks import MASKED_SHARE, fit_briefly, phantoms, scan_detector, synthetic_head
from benchmarks.timing.stopwatch import program_seconds
from skmimood import make_mimood_pipeline
from skmimood.pipeline import PRESET_IMAGE_SIZE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_common_arguments(parser)
    add = parser.add_argument
    add("--workers", type=int, nargs="+", default=[1, 2], help="processes (default: 1 2)")
    add("--scans", type=int, default=4, help="for each worker (default: 4)")
    add("--shape", type=int, nargs=3, default=[120, 120, 90], help="voxels (default: 120 120 90)")


def run(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = save_model(arguments.preset, Path(folder) / "model")
        measured = [
            measure(partial(_seconds, model, n), n, arguments.scans, tuple(arguments.shape), Path(folder))
            for n in arguments.workers
        ]
    result = {"preset": arguments.preset, "shape": arguments.shape, "workers": measured}
    records.write_json(arguments.results / f"scaling_{arguments.preset}.json", result, "cpu")
    print(scaling_table(result))


def save_model(preset: str, path: Path) -> Path:
    """Save a detector with the preset's recipe, fitted briefly, that masks about 5 % of the tokens of a brain."""
    size = PRESET_IMAGE_SIZE[preset]
    pipeline = make_mimood_pipeline(preset, device="cpu", memory=None)
    pipeline.set_params(detector__corruption="random")  # painted copies cost time, and change nothing here
    scans = fit_briefly(pipeline, phantoms(4, size))[:-1].transform(phantoms(4, size))
    pipeline.set_params(detector__threshold=float(np.quantile(scans.anomaly, 1 - MASKED_SHARE)))
    scan_detector(pipeline, size).save(path)
    return path


def measure(
    score: Callable[[Path], float], n_workers: int, n_scans: int, shape: tuple[int, ...], folder: Path
) -> dict[str, Any]:
    """Time a folder of one scan a worker and one of ``n_scans``, which tells the start from the work."""
    head = nib.Nifti1Image(synthetic_head(shape), np.eye(4))
    seconds = {}
    for n in (1, n_scans):
        scans = folder / f"scans-{n_workers}-{n}"
        scans.mkdir()
        for index in range(n * n_workers):
            nib.save(head, scans / f"scan-{index:03d}.nii.gz")
        seconds[n] = score(scans)
    each = (seconds[n_scans] - seconds[1]) / (n_scans - 1) if n_scans > 1 else seconds[1]
    return {
        "workers": n_workers, "scans": n_scans * n_workers, "seconds": seconds[n_scans], "seconds_per_scan": each,
        "start_seconds": max(0.0, seconds[1] - each),
    }  # fmt: skip


def _seconds(model: Path, n_workers: int, scans: Path) -> float:
    return program_seconds(
        "score", str(scans), "-m", str(model), "-o", f"{scans}-out", "--jobs", str(n_workers)
    )
