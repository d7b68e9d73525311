"""``python -m benchmarks accuracy --folds N``: the protocol in every fold, and the figures over all patients."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from benchmarks import records
from benchmarks.commands.options import listed, say, slices_of_command
from benchmarks.data.folds import Folds
from benchmarks.data.slices import SliceSet
from benchmarks.protocol import ledger, pooling, stages, summary
from benchmarks.protocol.methods import METHODS, Settings
from benchmarks.protocol.pooling import Filter, FoldMaps
from skmimood.exceptions import InputError
from skmimood.maps.volumes import filter_across
from skmimood.scans.scan_detector import ScanDetector

_STACKS = ("lgg",)  # data sets whose slices to evaluate lie side by side


def _across(maps: np.ndarray, distance: float, present: np.ndarray) -> np.ndarray:
    """Average the maps of neighbouring slices as `ScanDetector` does by default."""
    return filter_across(maps, distance, ScanDetector.slice_smoothing, present)


# What is done to the maps of a scan before they are measured, of every method alike, and what it adds to table names.
FILTERS: Mapping[str, Filter | None] = {"": None, "-3d": _across}


def run(arguments: argparse.Namespace) -> None:
    """Run what is missing, fold by fold; write the tables of each method and seed that has all folds."""
    names, n_folds = listed(arguments.methods, METHODS, "method"), arguments.folds
    chosen = sorted({*(range(n_folds) if arguments.fold is None else arguments.fold)})
    if not {*chosen} <= {*range(n_folds)}:
        raise InputError(
            f"Of {n_folds} folds there is no {max(chosen, key=abs)}; they are 0 to {n_folds - 1}."
        )
    folds = Folds(slices_of_command(arguments), n_folds)
    pool = folds.pool
    say(
        f"{pool.dataset}: {len({*pool.patients})} patients, {(pool.splits == 'train').sum()} slices to learn from"
    )
    for seed in arguments.seeds:
        for name in names:
            for fold in chosen:
                _run_fold(name, seed, folds, fold, arguments)
            missing = [i for i in range(n_folds) if not _path(name, seed, folds, i, arguments).exists()]
            if missing:
                say(f"{name}, seed {seed}: nothing is written before fold(s) {', '.join(map(str, missing))}")
            else:
                _write(name, seed, folds, arguments)


def _told(name: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    device = records.environment(arguments.device)["device"]
    return {
        "dataset": f"{arguments.data}-cv",
        "method": name,
        "seed": seed,
        "preset": arguments.preset,
        "device": device,
    }


def _built(name: str, seed: int, arguments: argparse.Namespace) -> Any:
    return METHODS[name].build(Settings(arguments.preset, seed, arguments.device, arguments.cache))


def _path(name: str, seed: int, folds: Folds, fold: int, arguments: argparse.Namespace) -> Path:
    """Return where the maps of a fold are kept: the name changes with all that they depend on.

    Of the code that is the method's, and the choice on val; what figures are made of maps may change.
    """
    told = _told(name, seed, arguments)
    protocol = Path(stages.__file__).read_bytes()
    digest = ledger.digest(
        _built(name, seed, arguments),
        folds.fingerprint(fold),
        told,
        METHODS[name].grid,
        joblib.hash(protocol),
    )
    file = f"{arguments.data}-{arguments.preset}-{name}-{seed}-{fold}of{folds.n_folds}-{digest}.joblib"
    return arguments.cache / "folds" / file


def _run_fold(name: str, seed: int, folds: Folds, fold: int, arguments: argparse.Namespace) -> None:
    path = _path(name, seed, folds, fold, arguments)
    if path.exists() and not arguments.again:
        return
    estimator, kept = _built(name, seed, arguments), arguments.cache / ledger.NAME
    maps = pooling.run_fold(estimator, METHODS[name].grid, folds[fold], kept)
    machine = records.environment(arguments.device)
    maps.run.update(
        ledger.trained(kept, estimator), fold=fold, threads=machine["threads"], commit=machine["commit"]
    )
    with records.replacing(path) as file:
        joblib.dump(maps, file, compress=3)
    run = maps.run
    say(f"{name}, seed {seed}, fold {fold}: fitted in {run['fit_seconds']:.0f} s, chose {run['parameters']}")


def _write(name: str, seed: int, folds: Folds, arguments: argparse.Namespace) -> None:
    """Pool all folds of a method and put its figures, and the differences to all others, into the tables."""
    parts: list[tuple[SliceSet, FoldMaps]] = [
        (folds[i], joblib.load(_path(name, seed, folds, i, arguments))) for i in range(folds.n_folds)
    ]
    results = arguments.results
    for suffix, across in FILTERS.items():
        if across is not None and arguments.data not in _STACKS:
            continue
        pooled, told = pooling.pool(parts, across), _told(name, seed, arguments)
        told["dataset"] += suffix
        commits = " ".join(dict.fromkeys(run["commit"] for run in pooled.runs))
        rows = [told | row | {"commit": commits} for row in pooled.rows]
        records.replace_rows(results / f"{told['dataset']}.csv", rows)
        records.replace_rows(results / f"{told['dataset']}_runs.csv", [told | run for run in pooled.runs])
        summary.save_counts(results, told, pooled.counts)
        table = {key: told[key] for key in ("dataset", "preset", "device")}
        summary.write_summary(results, table, summary.load_counts(results, table, [*METHODS]))
        tumour = next(row for row in rows if row["level"] == "pixel")
        say(
            f"{name}, seed {seed}{suffix}: best Dice {tumour['best_dice']:.3f}, AP {tumour['ap']:.3f} on tumour slices"
        )
