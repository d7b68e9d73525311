"""The command line on real healthy scans: fit on the training subjects of ixi/, score a test subject."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from benchmarks import records
from benchmarks.commands.options import PRESETS
from benchmarks.data.sources import data_root
from skmimood.datasets import read_splits


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--root", help="folder that holds ixi/ (default: $SKMIMOOD_DATA, else ../shared/data)")
    add("--preset", default="tiny", choices=PRESETS)
    add("--model", help="keep the model in this folder (must not exist)")


def run(arguments: argparse.Namespace) -> None:
    load: Any = nib.load
    folder = data_root(arguments.root) / "ixi"
    subject = read_splits(folder / "splits.csv")["test"][0]
    scan = folder / f"{subject}_T1.nii.gz"
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(arguments.model or f"{temporary}/model")
        output = Path(temporary) / "out"
        options = ["--split", "train", "--modality", "T1", "--mask-suffix", "brainmask"]
        fit = _skmimood("fit", str(folder), "-o", str(model), *options, "--preset", arguments.preset)
        score = _skmimood("score", str(scan), "-m", str(model), "-o", str(output))
        reference, brain = load(scan), np.asarray(load(folder / f"{subject}_brainmask.nii.gz").dataobj) > 0
        maps = {kind: load(output / f"{subject}_T1_{kind}.nii.gz") for kind in ("anomaly", "pvalue", "mask")}
        same = {
            kind: image.shape == reference.shape and np.array_equal(image.affine, reference.affine)
            for kind, image in maps.items()
        }
        anomaly, mask = (np.asarray(maps[kind].dataobj) for kind in ("anomaly", "mask"))
    told = {
        "data": "ixi (T1, 2 mm)",
        "preset": arguments.preset,
        "seconds": {"fit": round(fit, 1), "score_one_scan_with_report": round(score, 1)},
        "shape_and_affine_equal_input": same,
        "map_is_finite": bool(np.isfinite(anomaly).all()),
        "false_positive_rate_in_brain_of_one_healthy_test_scan": round(float((mask[brain] > 0).mean()), 4),
    }
    records.write_json(records.RESULTS / f"ixi_{arguments.preset}.json", told)


def _skmimood(*arguments: str) -> float:
    """Run the program and return its seconds, start included."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "skmimood", *arguments], check=True)
    return time.perf_counter() - start
