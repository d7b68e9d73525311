"""What maps are worth: figures over pixels, tokens and slices, and counts for the intervals over patients."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from scipy import ndimage
from sklearn.base import BaseEstimator
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.pipeline import Pipeline

from benchmarks.data.slices import SliceSet
from benchmarks.protocol.bootstrap import PatientCounts, count
from skmimood import TokenizedScans, metrics
from skmimood.scans.mapping import top_mean

MIN_ALARM_AREA = 72.0  # mm2: 20 pixels of 1.9 mm
_TOKEN_RULE = "any"  # a token is a lesion if any of its pixels is

Row = dict[str, Any]


def regions(slices: SliceSet) -> dict[str, np.ndarray]:
    """Return the pixels that are counted, (n, H, W): all, and those of the interior or brain."""
    return {"all": np.ones_like(slices.region), slices.region_name: slices.region}


def strata(slices: SliceSet) -> dict[str, np.ndarray]:
    """Return masks (n,) of the slices that are pooled: tumour, all, thirds by lesion area, kinds of planted lesions."""
    tumour = slices.has_lesion
    chosen = {"tumour": tumour}
    if not tumour.all():
        chosen["head"] = np.ones(len(slices), bool)
    areas = slices.lesions.sum((1, 2))
    cuts = np.quantile(areas[tumour], [1 / 3, 2 / 3])
    for i, size in enumerate(("small", "medium", "large")):
        chosen[size] = tumour & (np.searchsorted(cuts, areas) == i)
    chosen |= {kind: tumour & (slices.kinds == kind) for kind in np.unique(slices.kinds) if kind}
    return {name: mask for name, mask in chosen.items() if mask.any()}


def _parts(slices: SliceSet, maps: np.ndarray) -> Iterator[tuple[str, str, SliceSet, np.ndarray, Any]]:
    """Yield stratum, region, slices, maps and the pixels that count, of each stratum in both regions."""
    for name, chosen in strata(slices).items():
        part = slices[chosen]
        for region, where in regions(part).items():
            yield name, region, part, maps[chosen], where


def fix_thresholds(maps: np.ndarray, tumour: SliceSet) -> dict[str, float]:
    """Return for each region the threshold of the best Dice over tumour slices of val."""
    return {
        name: _quiet(metrics.best_dice, tumour.lesions, maps, where=where, return_threshold=True)[1]
        for name, where in regions(tumour).items()
    }


def pixel_rows(
    maps: np.ndarray, slices: SliceSet, thresholds: Mapping[str, float] | None = None
) -> list[Row]:
    """Compute the figures of maps (n, H, W) in all strata and both regions, also at the thresholds fixed on val."""
    rows = []
    for name, region, part, part_maps, where in _parts(slices, maps):
        row: Row = {"slices": name, "level": "pixel", "region": region}
        row |= _figures(part.lesions, part_maps, where)
        if thresholds is not None:
            threshold, free = thresholds[region], part.is_healthy
            row["dice_at_val_threshold"] = _quiet(
                metrics.dice_at_threshold, part.lesions, part_maps, threshold, where=where
            )
            if free.any():
                alarms = false_alarms(part_maps[free], threshold, part.spacing, where[free])
                row["false_alarm_rate"] = float(alarms.mean())
        rows.append(row)
    return rows


def false_alarms(maps: np.ndarray, threshold: float, spacing: float, where: Any = True) -> np.ndarray:
    """Tell which slices have 72 mm2 of connected pixels ``where`` maps exceed a threshold, corners included."""

    def largest(called: np.ndarray) -> int:
        parts, _ = ndimage.label(called, np.ones((3, 3)))
        return np.bincount(parts.ravel())[1:].max(initial=0)

    return np.array([largest(called) for called in (maps > threshold) & where]) * spacing**2 >= MIN_ALARM_AREA


def token_rows(estimator: BaseEstimator, slices: SliceSet) -> list[Row]:
    """Compute AP and AUROC of token scores; nothing for a method without tokens."""
    scans = estimator[:-1].transform(slices.images) if isinstance(estimator, Pipeline) else None
    if not isinstance(scans, TokenizedScans):
        return []
    last: Any = estimator[-1]
    scores = last.token_scores(scans) if hasattr(last, "token_scores") else scans.anomaly
    if scores is None:
        return []
    labels = metrics.token_labels(slices.lesions, scans.tokenizer.downsampling, rule=_TOKEN_RULE)
    return [
        {"slices": name, "level": "token", "region": "all", **_figures(labels[chosen], scores[chosen])}
        for name, chosen in strata(slices).items()
        if name in ("tumour", "head")
    ]


def image_rows(estimator: BaseEstimator, maps: np.ndarray, slices: SliceSet) -> list[Row]:
    """Score slices by the mean of the highest 1 % of their maps, and by ``score_samples`` where a method has it."""
    labels = slices.has_lesion
    if labels.all():
        return []
    scores = {"all": np.array([top_mean(one) for one in maps])}
    if hasattr(estimator, "score_samples") and not isinstance(estimator, Pipeline):
        scores["classifier"] = np.asarray(estimator.score_samples(slices.images))
    return [
        {"slices": "head", "level": "image", "region": region, **_figures(labels, values)}
        for region, values in scores.items()
    ]


def patient_counts(
    maps: np.ndarray, slices: SliceSet, thresholds: Mapping[str, float]
) -> dict[tuple[str, str], PatientCounts]:
    """Count the scores of tumour and of head slices, patient by patient, in both regions."""
    counts = {}
    for name, region, part, part_maps, where in _parts(slices, maps):
        if name in ("tumour", "head"):
            alarms = false_alarms(part_maps, thresholds[region], part.spacing, where)
            counts[name, region] = count(
                part.lesions, part_maps, part.patients, thresholds[region], where=where, alarms=alarms
            )
    return counts


def _figures(labels: np.ndarray, scores: np.ndarray, where: Any = None) -> dict[str, float]:
    named = {"best_dice": metrics.best_dice, "ap": metrics.average_precision, "auroc": metrics.auroc}
    return {name: _quiet(metric, labels, scores, where=where) for name, metric in named.items()}


def _quiet(metric: Any, *arguments: Any, **options: Any) -> Any:
    """Compute a metric; where it is undefined, as in a stratum without lesions in the region, it is NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        return metric(*arguments, **options)
