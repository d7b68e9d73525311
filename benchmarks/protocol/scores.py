"""What maps are worth: figures over pixels, tokens and slices, and counts for the intervals over patients."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage
from sklearn.base import BaseEstimator
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.pipeline import Pipeline

from benchmarks.data.slices import SliceSet
from benchmarks.protocol.bootstrap import PatientCounts, count, pixel_figures
from skmimood import TokenizedScans, metrics
from skmimood.exceptions import InputError
from skmimood.scans.mapping import top_mean

MIN_ALARM_AREA = 72.0  # mm2: 20 pixels of 1.9 mm
_TOKEN_RULE = "any"  # a token is a lesion if any of its pixels is

Row = dict[str, Any]
Thresholds = Mapping[str, Any]  # of each region: one for all slices, or one for each (n,)


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


@dataclass(frozen=True, eq=False)
class _Part:
    """A stratum of slices in one region."""

    name: str
    region: str
    slices: SliceSet
    maps: np.ndarray  # (n, H, W)
    where: np.ndarray  # (n, H, W), bool: the pixels that count
    thresholds: np.ndarray  # (n,); NaN without any


def _parts(slices: SliceSet, maps: np.ndarray, thresholds: Thresholds | None) -> Iterator[_Part]:
    """Yield each stratum in both regions."""
    for name, chosen in strata(slices).items():
        part = slices[chosen]
        for region, where in regions(part).items():
            fixed = np.nan if thresholds is None else thresholds[region]
            yield _Part(name, region, part, maps[chosen], where, np.broadcast_to(fixed, len(maps))[chosen])


def fix_thresholds(maps: np.ndarray, tumour: SliceSet) -> dict[str, float]:
    """Return for each region the threshold of the best Dice over tumour slices of val."""
    return {
        name: _quiet(metrics.best_dice, tumour.lesions, maps, where=where, return_threshold=True)[1]
        for name, where in regions(tumour).items()
    }


def pixel_rows(maps: np.ndarray, slices: SliceSet, thresholds: Thresholds | None = None) -> list[Row]:
    """Compute the figures of maps (n, H, W) in all strata and both regions, also at the thresholds fixed on val."""
    rows = []
    for part in _parts(slices, maps, thresholds):
        lesions, where, free = part.slices.lesions, part.where, part.slices.is_healthy
        row: Row = {"slices": part.name, "level": "pixel", "region": part.region}
        row |= _figures(lesions, part.maps, where)
        if thresholds is not None:
            called = part.maps > part.thresholds[:, None, None]
            row["dice_at_val_threshold"] = _quiet(
                metrics.dice_at_threshold, lesions, called, 0.5, where=where
            )
            if free.any():
                row["false_alarm_rate"] = float(
                    false_alarms(part.maps, part.thresholds, slices.spacing, where)[free].mean()
                )
        rows.append(row)
    return rows


def false_alarms(maps: np.ndarray, threshold: Any, spacing: float, where: Any = True) -> np.ndarray:
    """Tell which slices have 72 mm2 of connected pixels ``where`` maps exceed a threshold, corners included.

    The threshold is one for all maps (n, H, W), or one for each, (n,).
    """

    def largest(called: np.ndarray) -> int:
        parts, _ = ndimage.label(called, np.ones((3, 3)))
        return np.bincount(parts.ravel())[1:].max(initial=0)

    exceeds = maps > np.broadcast_to(threshold, len(maps))[:, None, None]
    return np.array([largest(called) for called in exceeds & where]) * spacing**2 >= MIN_ALARM_AREA


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


def image_rows(maps: np.ndarray, slices: SliceSet) -> list[Row]:
    """Score slices by the mean of the highest 1 % of their maps."""
    return _of_slices("all", np.array([top_mean(one) for one in maps]), slices)


def classifier_rows(estimator: BaseEstimator, slices: SliceSet) -> list[Row]:
    """Score slices by ``score_samples``, where a method has it."""
    if isinstance(estimator, Pipeline) or not hasattr(estimator, "score_samples"):
        return []
    return _of_slices("classifier", np.asarray(estimator.score_samples(slices.images)), slices)


def _of_slices(region: str, values: np.ndarray, slices: SliceSet) -> list[Row]:
    labels = slices.has_lesion
    if labels.all():
        return []
    return [{"slices": "head", "level": "image", "region": region, **_figures(labels, values)}]


def patient_counts(
    maps: np.ndarray, slices: SliceSet, thresholds: Thresholds, **options: Any
) -> dict[tuple[str, str], PatientCounts]:
    """Count the scores of tumour and of head slices, patient by patient, in both regions; options as in `count`."""
    counts = {}
    for part in _parts(slices, maps, thresholds):
        if part.name in ("tumour", "head"):
            alarms = false_alarms(part.maps, part.thresholds, slices.spacing, part.where)
            counts[part.name, part.region] = count(
                part.slices.lesions, part.maps, part.slices.patients, part.thresholds, where=part.where,
                alarms=alarms, **options,
            )  # fmt: skip
    return counts


def _figures(labels: np.ndarray, scores: np.ndarray, where: Any = ...) -> dict[str, float]:
    """Compute best Dice, AP and AUROC exactly, as `skmimood.metrics` does, all from one sort; NaN where undefined."""
    labels, scores = labels[where].ravel(), scores[where].ravel()
    if not np.isfinite(scores).all():
        raise InputError("Maps and scores must be finite to be measured; some are NaN or infinite.")
    if not len(scores):
        return dict.fromkeys(("best_dice", "ap", "auroc"), np.nan)
    order = np.argsort(-scores)
    # Equal scores fall on one side of every threshold.
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    positives = np.diff(np.cumsum(labels[order], dtype=np.int64)[last], prepend=0)
    figures = pixel_figures(positives, np.diff(last, prepend=-1) - positives)
    return {name: float(value) for name, value in figures.items()}


def _quiet(metric: Any, *arguments: Any, **options: Any) -> Any:
    """Compute a metric; where it is undefined, as in a stratum without lesions in the region, it is NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        return metric(*arguments, **options)
