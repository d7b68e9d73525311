"""Cross-validation: what a method makes of one fold, and the figures over the test patients of all folds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from benchmarks.data.slices import SliceSet, join
from benchmarks.protocol import scores, stages
from benchmarks.protocol.bootstrap import PatientCounts
from benchmarks.protocol.scores import Row

N_BINS = 512  # of the counts that are kept with the results
_SCALE = 0.99  # quantile of healthy pixels that is 1 in the maps of every fold
_FIGURES = ("best_dice", "ap", "auroc")

# Turns the maps (n, H, W) of a stack, the mm from slice to slice and which slices there are, (n,) bool, into maps.
Filter = Callable[[np.ndarray, float, np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class FoldMaps:
    """What a method, fitted and chosen in one fold, makes of its slices: all that figures are computed from later."""

    val: np.ndarray  # maps (n, H, W) of the slices to evaluate of split val
    test: np.ndarray  # ... of split test
    rows: list[Row]  # figures over tokens and of the method's own score of a slice, on test
    run: dict[str, Any]  # seconds, parameters chosen


@dataclass(frozen=True, eq=False)
class Pooled:
    """What one method, trained with one seed, reached over all folds."""

    rows: list[Row]  # lines of the result table, without the columns that name the run
    counts: dict[tuple[str, str], PatientCounts]  # scores of all test slices, by slices and region
    runs: list[dict[str, Any]]  # of each fold: seconds, parameters chosen, figures of its test patients alone


def run_fold(estimator: BaseEstimator, grid: Any, slices: SliceSet, ledger: Path | None) -> FoldMaps:
    """Fit on the slices to learn from, choose on val, and compute the maps of val and test."""
    seconds, chosen = stages.learn(estimator, grid, slices, ledger)
    val, test = slices.evaluated("val"), slices.evaluated("test")
    run = {
        "fit_seconds": seconds, "parameters": json.dumps(chosen), "n_training_slices": len(slices.training()),
        "seconds_per_32": stages.seconds_per_32(estimator, test.images),
    }  # fmt: skip
    rows = [*scores.token_rows(estimator, test), *scores.classifier_rows(estimator, test)]
    val_maps, maps = (
        np.asarray(estimator.decision_function(part.images), np.float32) for part in (val, test)
    )
    return FoldMaps(val_maps, maps, rows, run)


def pool(folds: Sequence[tuple[SliceSet, FoldMaps]], across: Filter | None = None) -> Pooled:
    """Compute the figures over the test patients of all folds; ``across`` filters the maps of every scan first.

    Maps of different trainings have no common scale: those of each fold are divided by the 99th percentile of what it
    makes of healthy pixels, those in the heads of the tumour-free slices of its val patients. Thresholds are fixed in
    each fold on its own val. Tokens and scores of a method's own are not pooled: their figures are means over folds.
    """
    tests, maps, runs = [], [], []
    thresholds: dict[str, list[np.ndarray]] = {}
    for slices, of_fold in folds:
        val, test = slices.evaluated("val"), slices.evaluated("test")
        val_maps, test_maps = (
            part if across is None else filtered(part, of, across)
            for part, of in ((of_fold.val, val), (of_fold.test, test))
        )
        scale, tumour = healthy_scale(val_maps, val), val.has_lesion
        fixed = scores.fix_thresholds(val_maps[tumour] / scale, val[tumour])
        for region, threshold in fixed.items():
            thresholds.setdefault(region, []).append(np.full(len(test), threshold))
        tests.append(test)
        maps.append(test_maps / scale)
        alone = scores.pixel_rows(maps[-1][test.has_lesion], test[test.has_lesion])[0]
        runs.append({**of_fold.run, "scale": float(scale), **{name: alone[name] for name in _FIGURES}})
    test, together = join(tests), np.concatenate(maps)
    of_slices = {region: np.concatenate(parts) for region, parts in thresholds.items()}
    timed = {"seconds_per_32": float(np.mean([run["seconds_per_32"] for run in runs]))}
    rows = [row | timed for row in scores.pixel_rows(together, test, of_slices)]
    rows += scores.image_rows(together, test)
    rows += _averaged([row for _, of_fold in folds for row in of_fold.rows])
    counts = scores.patient_counts(together, test, of_slices, n_bins=N_BINS)
    return Pooled([{"split": "test", **row} for row in rows], counts, runs)


def healthy_scale(maps: np.ndarray, slices: SliceSet) -> np.float32:
    """Return what is 1 in the maps (n, H, W) of a fold: a high quantile of healthy pixels.

    Where a map is 0 in nearly all of these, it is the mean of the others, and 1 if there are none.
    """
    free = slices.is_healthy
    healthy = maps[free][slices.head[free]]
    scale = np.quantile(healthy, _SCALE) if healthy.size else 0.0
    if scale <= 0:
        above = healthy[healthy > 0]
        scale = above.mean() if above.size else 1.0
    return np.float32(scale)


def filtered(maps: np.ndarray, slices: SliceSet, across: Filter) -> np.ndarray:
    """Filter the maps (n, H, W) of slices scan by scan; slices of a scan that are not in the set are told as absent."""
    result = np.empty_like(maps)
    for patient in np.unique(slices.patients):
        chosen = np.flatnonzero(slices.patients == patient)
        places = slices.index[chosen] - slices.index[chosen].min()
        present = np.zeros(places.max() + 1, bool)
        present[places] = True
        stack = np.zeros((len(present), *maps.shape[1:]), maps.dtype)
        stack[places] = maps[chosen]
        result[chosen] = across(stack, float(slices.distance[chosen[0]]), present)[places]
    return result


def _averaged(rows: Sequence[Row]) -> Iterator[Row]:
    """Yield the mean of the figures of all rows of the same place."""
    place_of = itemgetter("slices", "level", "region")
    for place, group in groupby(sorted(rows, key=place_of), place_of):
        same = [*group]
        means = {name: float(np.mean([row[name] for row in same])) for name in _FIGURES}
        yield dict(zip(("slices", "level", "region"), place, strict=True)) | means
