"""Intervals over patients: the scores of each are counted in bins once, and a resample of patients is a sum of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_BINS = 4096
_CHUNK = 100  # resamples at a time: bounds memory
_SEED = 0
_TAILS = (2.5, 97.5)  # per cent
_CURVE_POINTS = 100


@dataclass(frozen=True, eq=False)
class PatientCounts:
    """Scores of pixels counted in bins, patient by patient; the bin of the highest scores first."""

    positives: np.ndarray  # (n_patients, n_bins), int64: lesion pixels
    negatives: np.ndarray  # (n_patients, n_bins), int64: other pixels
    hits: np.ndarray  # (n_patients,): lesion pixels above the threshold fixed on val
    called: np.ndarray  # (n_patients,): all pixels above it
    alarms: np.ndarray  # (n_patients,): tumour-free slices with a false alarm
    tumour_free: np.ndarray  # (n_patients,): all tumour-free slices
    patients: np.ndarray  # (n_patients,): their names, sorted

    def is_of_the_same_slices(self, other: PatientCounts) -> bool:
        """Tell whether another method was scored on the same patients and, as far as counts tell, the same slices."""
        return all(
            np.array_equal(of(self), of(other))
            for of in (
                lambda one: one.patients, lambda one: one.tumour_free, lambda one: one.positives.sum(1),
                lambda one: one.negatives.sum(1),
            )
        )  # fmt: skip


def count(
    labels: np.ndarray,
    scores: np.ndarray,
    patients: np.ndarray,
    threshold: Any,
    *,
    where: np.ndarray | None = None,
    alarms: np.ndarray | None = None,
    n_bins: int = _BINS,
) -> PatientCounts:
    """Count the scores of maps (n, H, W), where they count, patient by patient; ``alarms`` (n,) are false alarms.

    The threshold is one for all maps, or one for each, (n,).
    """
    thresholds = np.broadcast_to(threshold, len(scores))
    where = np.ones(labels.shape, bool) if where is None else where
    edges = _edges(scores[where & labels], scores[where & ~labels], n_bins)
    names, owner = np.unique(patients, return_inverse=True)
    shape = (len(names), len(edges))
    positives, negatives = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    hits, called = np.zeros(len(names), np.int64), np.zeros(len(names), np.int64)
    for i, patient in enumerate(owner):
        values, truth = scores[i][where[i]], labels[i][where[i]]
        bins = len(edges) - np.searchsorted(edges, values, side="right")
        positives[patient] += np.bincount(bins[truth], minlength=len(edges))
        negatives[patient] += np.bincount(bins[~truth], minlength=len(edges))
        exceeds = values > thresholds[i]
        hits[patient] += (truth & exceeds).sum()
        called[patient] += exceeds.sum()
    free = ~labels.any((1, 2))
    alarmed = free & (False if alarms is None else alarms)
    return PatientCounts(
        positives, negatives, hits, called,
        alarms=np.bincount(owner[alarmed], minlength=len(names)),
        tumour_free=np.bincount(owner[free], minlength=len(names)), patients=names,
    )  # fmt: skip


def _edges(positives: np.ndarray, negatives: np.ndarray, n_bins: int) -> np.ndarray:
    """Return rising lower edges of bins: each score of few, else quantiles of lesion pixels and of the others."""
    values = np.sort(np.concatenate([positives, negatives]))
    distinct = values[np.append(True, values[1:] != values[:-1])]
    if len(distinct) <= n_bins:
        return distinct
    share = np.linspace(0, 1, n_bins // 2)
    parts = [np.quantile(part, share, method="nearest") for part in (positives, negatives) if part.size]
    return np.unique(np.concatenate([distinct[:1], *parts]))


def pixel_figures(positives: np.ndarray, negatives: np.ndarray) -> dict[str, np.ndarray]:
    """Compute best Dice, AP and AUROC of counts (..., n_bins), the highest scores first; NaN where undefined."""
    true = np.cumsum(positives, axis=-1, dtype=np.float64)
    false = np.cumsum(negatives, axis=-1, dtype=np.float64)
    n_true, n_false = true[..., -1:], false[..., -1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(true + false > 0, true / np.maximum(true + false, 1), 0)
        dice = (2 * true / (true + false + n_true)).max(-1)
        ap = (np.diff(true / n_true, axis=-1, prepend=0) * precision).sum(-1)
        sensitivity, fall_out = (np.insert(part, 0, 0, axis=-1) for part in (true / n_true, false / n_false))
        auroc = (np.diff(fall_out, axis=-1) * (sensitivity[..., 1:] + sensitivity[..., :-1]) / 2).sum(-1)
    dice, ap = (np.where(n_true[..., 0] == 0, np.nan, part) for part in (dice, ap))
    return {"best_dice": dice, "ap": ap, "auroc": auroc}


def _resampled(counts: PatientCounts, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Compute all figures for each row of ``weights`` (n, n_patients): how often each patient is drawn."""
    figures = pixel_figures(weights @ counts.positives, weights @ counts.negatives)
    with np.errstate(invalid="ignore", divide="ignore"):
        called = weights @ counts.called + weights @ counts.positives.sum(1)
        figures["dice_at_val_threshold"] = 2 * (weights @ counts.hits) / called
        figures["false_alarm_rate"] = (weights @ counts.alarms) / (weights @ counts.tumour_free)
    return figures


@dataclass(frozen=True, eq=False)
class Resamples:
    """Figures of one method, means over its seeds: of all patients, and of draws that are the same for all methods."""

    means: dict[str, float]
    draws: dict[str, np.ndarray]  # (n_resamples,)

    @classmethod
    def of(cls, seeds: Sequence[PatientCounts], *, n_resamples: int = 2000) -> Resamples:
        """Resample the patients of one method, trained with several seeds; they are the same for all of these."""
        n = len(seeds[0].hits)
        rng = np.random.default_rng(_SEED)
        weights = rng.multinomial(n, np.full(n, 1 / n), n_resamples).astype(np.float64)
        parts = [_mean_over(seeds, part) for part in np.array_split(weights, -(-n_resamples // _CHUNK))]
        draws = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        means = {name: float(value[0]) for name, value in _mean_over(seeds, np.ones((1, n))).items()}
        return cls(means, draws)

    def intervals(self, minus: Resamples | None = None) -> dict[str, tuple[float, float, float]]:
        """Return mean, low and high end of the 95 % interval of each figure, or of its excess over another's."""
        bounds = {}
        for name, mean in self.means.items():
            draws = self.draws[name] - (0.0 if minus is None else minus.draws[name])
            mean -= 0.0 if minus is None else minus.means[name]
            if np.isfinite(mean):
                low, high = np.nanpercentile(draws, _TAILS)
                bounds[name] = (mean, float(low), float(high))
        return bounds


def _mean_over(seeds: Sequence[PatientCounts], weights: np.ndarray) -> dict[str, np.ndarray]:
    figures = [_resampled(counts, weights) for counts in seeds]
    return {name: np.mean([one[name] for one in figures], axis=0) for name in figures[0]}


def precision_recall(counts: PatientCounts) -> tuple[np.ndarray, np.ndarray]:
    """Return at most 100 points (recall, precision) of the curve over all patients, evenly spread over recall."""
    true, false = counts.positives.sum(0).cumsum(), counts.negatives.sum(0).cumsum()
    recall, precision = true / max(1, true[-1]), true / np.maximum(1, true + false)
    wanted = np.searchsorted(recall, np.linspace(0, 1, _CURVE_POINTS))
    chosen = np.unique(np.minimum(wanted, len(recall) - 1))
    return recall[chosen], precision[chosen]
