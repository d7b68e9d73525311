"""Whether thresholds hold what they promise: rates of false positives on healthy subjects that nobody has seen."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import joblib

from benchmarks import records
from benchmarks.commands.options import add_slices_arguments, say, slices_of_command
from benchmarks.data.folds import Folds
from benchmarks.data.slices import SliceSet
from benchmarks.data.sources import all_scans_of
from benchmarks.protocol import calibration, ledger, stages
from benchmarks.protocol.methods import METHODS, Settings
from benchmarks.report import calibration as report
from skmimood.nifti import DEFAULT_MAX_BYTES
from skmimood.runtime.code_digest import code_digest
from skmimood.scans.cohort import ScanReader
from skmimood.scans.mapping import Frame
from skmimood.scans.reference import HealthyScan
from skmimood.scans.scan_detector import ScanDetector
from skmimood.scans.sources import ListedScan

_DATA, _METHOD = "ixi-synthetic", "mimood-default"  # the folds and the networks of `accuracy --folds`
_N_CALIBRATION = (9, 39)  # the fewest for a rate of .1, which ScanDetector holds out by itself, and of .025
_KEY = ("cohort", "method", "seed", "preset", "level", "n_calibration", "asked")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_slices_arguments(parser)
    parser.set_defaults(data=_DATA, healthy=None, modality=None)
    parser.add_argument(
        "--folds", type=int, default=3, metavar="N", help="as in accuracy; networks are shared"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draws", type=int, default=50, help="of the subjects that thresholds are set on")


def run(arguments: argparse.Namespace) -> None:
    folds = Folds(slices_of_command(arguments), arguments.folds)
    scans = [_unseen(folds[fold], fold, arguments) for fold in range(folds.n_folds)]
    told = {"cohort": "IXI T1, brains", "method": _METHOD, "seed": arguments.seed, "preset": arguments.preset}
    told["commit"] = records.environment(arguments.device)["commit"]
    for n_calibration in _N_CALIBRATION:
        rows = [told | row for row in calibration.measure(scans, n_calibration, arguments.draws)]
        records.replace_rows(arguments.results / "calibration.csv", rows, _KEY)
    print(report.render(arguments.results))


def _unseen(slices: SliceSet, fold: int, arguments: argparse.Namespace) -> Mapping[str, HealthyScan]:
    """Return the mapped scans of all subjects that the networks of a fold did not learn from, by name."""
    settings = Settings(arguments.preset, arguments.seed, arguments.device, arguments.cache)
    pipeline: Any = METHODS[_METHOD].build(settings)
    code = code_digest("skmimood.scans.mapping"), code_digest("skmimood.scans.reference")
    key = ledger.digest(pipeline, slices.fingerprint(), arguments.seed, *code)
    kept: Path = arguments.cache / "folds" / f"calibration-{fold}-{key}.joblib"
    if kept.exists():
        return joblib.load(kept)
    training = slices.training()
    stages.fit(pipeline, training.images, arguments.cache / ledger.NAME, training.patients)
    cohort = all_scans_of(slices.dataset, arguments.root)
    names = {*slices.patients[slices.splits != "train"]}
    reader = ScanReader("auto", DEFAULT_MAX_BYTES, volume=None, max_invalid=0.01, plane="axial")
    frame = Frame("axial", slices.spacing, slices.images.shape[1:])
    mapped = {}
    for name, path, brain in zip(cohort.subjects, cohort.scans, cohort.brain_masks, strict=True):
        if name in names:
            prepared = reader.read(ListedScan(name, path, brain_mask=brain))
            mapped[name] = HealthyScan.of(frame.map(prepared, pipeline, ScanDetector.slice_smoothing), name)
    say(f"fold {fold}: {len(mapped)} subjects mapped")
    with records.replacing(kept) as file:
        joblib.dump(mapped, file, compress=3)
    return mapped
