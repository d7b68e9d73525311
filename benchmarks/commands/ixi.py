"""The command line on real healthy scans: fit on the training subjects of ixi/, score a test subject."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time

from benchmarks import records
from benchmarks.commands.options import add_common_arguments
from benchmarks.data.sources import data_folder
from skmimood.datasets import read_splits


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_common_arguments(parser)
    parser.add_argument(
        "--root", help="folder that holds ixi/ (default: $SKMIMOOD_DATA, else ../shared/data)"
    )
    parser.add_argument("--model", help="keep the model in this folder (must not exist)")


def run(arguments: argparse.Namespace) -> None:
    folder = data_folder("ixi", arguments.root)
    scan = folder / f"{read_splits(folder / 'splits.csv')['test'][0]}_T1.nii.gz"
    with tempfile.TemporaryDirectory() as temporary:
        model = arguments.model or f"{temporary}/model"
        options = ["--split", "train", "--modality", "T1", "--mask-suffix", "brainmask"]
        fit = _skmimood("fit", str(folder), "-o", model, *options, "--preset", arguments.preset)
        score = _skmimood("score", str(scan), "-m", model, "-o", f"{temporary}/out")
    seconds = {"fit": round(fit, 1), "score_one_scan_with_report": round(score, 1)}
    told = {"data": "ixi (T1, 2 mm)", "preset": arguments.preset, "seconds": seconds}
    records.write_json(arguments.results / f"ixi_{arguments.preset}.json", told)


def _skmimood(*arguments: str) -> float:
    """Run the program and return its seconds, start included."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "skmimood", *arguments], check=True)
    return time.perf_counter() - start
