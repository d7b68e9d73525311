"""The one protocol of all methods: fit on healthy slices, choose on val, test once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.model_selection import ParameterGrid
from sklearn.utils.validation import has_fit_parameter

from benchmarks.data.slices import SliceSet
from benchmarks.protocol import scores
from benchmarks.protocol.bootstrap import PatientCounts
from benchmarks.protocol.ledger import note, steps_of
from benchmarks.protocol.scores import Row
from skmimood import metrics
from skmimood.model_selection import score_path, varies_restorations_alone

MAX_SELECTION_SLICES = 33
_TIMED_SLICES, _WARM_UP_SLICES, _UNCACHED_SLICES = 32, 4, 1


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one method, trained with one seed, reached."""

    rows: list[Row]  # lines of the result table, without the columns that name the run
    counts: dict[tuple[str, str], PatientCounts]  # scores of the test set, by slices and region
    run: dict[str, Any] = field(default_factory=dict)  # seconds of fit, parameters chosen


def fit(
    estimator: BaseEstimator,
    images: np.ndarray,
    ledger: Path | None = None,
    patients: np.ndarray | None = None,
) -> float:
    """Fit on healthy slices of patients (n,); return the seconds, of cached networks those in the ``ledger``."""
    steps = steps_of(estimator)
    total, inputs = 0.0, images
    for i, step in enumerate(steps):
        apart = {"groups": patients} if has_fit_parameter(step, "groups") else {}
        start = time.perf_counter()
        step.fit(inputs, **apart)
        elapsed = time.perf_counter() - start
        total += note(ledger, step, elapsed) if hasattr(step, "state_") else elapsed
        if i < len(steps) - 1:
            inputs = step.transform(inputs)
    return total


def learn(
    estimator: BaseEstimator, grid: Any, slices: SliceSet, ledger: Path | None
) -> tuple[float, dict[str, Any]]:
    """Fit on the slices to learn from and choose on val; return seconds of fit and what was chosen."""
    training = slices.training()
    seconds = fit(estimator, training.images, ledger, training.patients)
    return seconds, select(estimator, grid, slices.tumour("val"))[0]


def pixel_ap(maps: np.ndarray, slices: SliceSet) -> float:
    """Return the average precision of maps (n, H, W) over all pixels."""
    return metrics.average_precision(slices.lesions, maps)


def select(
    estimator: BaseEstimator,
    grid: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Sequence[Any]]],
    val: SliceSet,
    *,
    max_slices: int = MAX_SELECTION_SLICES,
    ap: Callable[[np.ndarray, SliceSet], float] = pixel_ap,
) -> tuple[dict[str, Any], list[Row]]:
    """Choose by the AP of maps on val, grid after grid, and set it; return it, and the AP of all candidates."""
    sample = val[np.linspace(0, len(val) - 1, min(len(val), max_slices)).astype(int)]
    chosen: dict[str, Any] = {}
    trials: list[Row] = []
    for stage in [grid] if isinstance(grid, Mapping) else grid:
        candidates = [chosen | parameters for parameters in ParameterGrid(stage)]
        aps = _score_candidates(estimator, stage, sample, ap) if len(candidates) > 1 else [None]
        tried = [{"parameters": one, "ap": ap} for one, ap in zip(candidates, aps, strict=True)]
        chosen = max(tried, key=lambda trial: trial["ap"] or 0.0)["parameters"]
        estimator.set_params(**chosen)
        trials += tried
    return chosen, trials


def _score_candidates(
    estimator: BaseEstimator,
    stage: Mapping[str, Sequence[Any]],
    sample: SliceSet,
    ap: Callable[[np.ndarray, SliceSet], float],
) -> Sequence[float | None]:
    """Return the AP of every candidate of a grid; of lambda, T and R from one path, the same at less cost."""
    if varies_restorations_alone(estimator, stage):
        return score_path(estimator, sample.images, stage, lambda maps: ap(maps, sample))
    return [
        ap(estimator.set_params(**parameters).decision_function(sample.images), sample)
        for parameters in ParameterGrid(stage)
    ]


def evaluate(estimator: BaseEstimator, slices: SliceSet) -> Outcome:
    """Fix the thresholds of a fitted estimator on val, then test it once."""
    val, test = slices.tumour("val"), slices.evaluated("test")
    val_maps, maps = (np.asarray(estimator.decision_function(part.images)) for part in (val, test))
    thresholds = scores.fix_thresholds(val_maps, val)
    timed = {"seconds_per_32": seconds_per_32(estimator, test.images)}
    rows = [{"split": "val", **row} for row in scores.pixel_rows(val_maps, val, thresholds)]
    rows += [{"split": "val", **row} for row in scores.token_rows(estimator, val)]
    rows += [{"split": "test", **row, **timed} for row in scores.pixel_rows(maps, test, thresholds)]
    others = [
        *scores.token_rows(estimator, test),
        *scores.image_rows(maps, test),
        *scores.classifier_rows(estimator, test),
    ]
    rows += [{"split": "test", **row} for row in others]
    return Outcome(rows, scores.patient_counts(maps, test, thresholds))


def seconds_per_32(estimator: BaseEstimator, images: np.ndarray) -> float:
    """Time the maps of 32 slices, after a warm-up; fewer are timed where there are fewer."""
    estimator.decision_function(images[:_WARM_UP_SLICES])
    return _time(estimator, images[:_TIMED_SLICES])


def seconds_per_32_uncached(estimator: BaseEstimator, images: np.ndarray) -> float | None:
    """Time one slice without the key-value cache, the paper's way, times 32; None for methods without one."""
    names = [name for name in estimator.get_params() if name.endswith("key_value_cache")]
    if not names:
        return None
    estimator.set_params(**dict.fromkeys(names, False))
    seconds = _time(estimator, images[:_UNCACHED_SLICES])
    estimator.set_params(**dict.fromkeys(names, True))
    return seconds


def _time(estimator: BaseEstimator, images: np.ndarray) -> float:
    start = time.perf_counter()
    estimator.decision_function(images)
    return (time.perf_counter() - start) * _TIMED_SLICES / len(images)
