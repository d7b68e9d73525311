"""The command line on real healthy scans: fit on the training subjects of ixi/, score a test subject."""

from __future__ import annotations

import argparse
import tempfile

from benchmarks import records
from benchmarks.commands.options import add_common_arguments
from benchmarks.data.sources import data_folder
from benchmarks.timing.stopwatch import program_seconds
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
        fit = program_seconds("fit", str(folder), "-o", model, *options, "--preset", arguments.preset)
        score = program_seconds("score", str(scan), "-m", model, "-o", f"{temporary}/out")
    seconds = {"fit": round(fit, 1), "score_one_scan_with_report": round(score, 1)}
    told = {"data": "ixi (T1, 2 mm)", "preset": arguments.preset, "seconds": seconds}
    records.write_json(arguments.results / f"ixi_{arguments.preset}.json", told)
