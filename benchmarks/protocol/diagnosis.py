"""Which slices and which patients have a finding: figures of scores where no mask tells which pixels do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.metrics import average_precision_score
from sklearn.pipeline import Pipeline

from benchmarks.data.slices import SliceSet
from benchmarks.protocol.bootstrap import PatientCounts, Resamples, count
from benchmarks.protocol.scores import Row
from skmimood.scans.mapping import top_mean

ALL = "all"  # kinds together
LEVELS = ("slice", "patient")

Counts = dict[tuple[str, str, str], PatientCounts]  # by score, level and kind


def scores_of(estimator: BaseEstimator, slices: SliceSet) -> dict[str, np.ndarray]:
    """Return scores (n,) of slices: by the map inside the brain, and by ``score_samples`` where a method has it."""
    found = {"map": score_maps(estimator.decision_function(slices.images), slices)}
    if hasattr(estimator, "score_samples") and not isinstance(estimator, Pipeline):
        found["classifier"] = np.asarray(estimator.score_samples(slices.images), np.float64)
    return found


def score_maps(maps: Any, slices: SliceSet) -> np.ndarray:
    """Return the mean of the highest 1 % of each map (n, H, W) inside the brain."""
    return np.array([top_mean(one[brain]) for one, brain in zip(np.asarray(maps), slices.head, strict=True)])


def findings_of(
    values: np.ndarray, slices: SliceSet, level: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scores, kinds joined by ``+`` and patients of slices, or of patients: the highest score, all kinds."""
    if level == "slice":
        return values, slices.kinds, slices.patients
    names = np.unique(slices.patients)
    of_patient = [slices.patients == name for name in names]
    kinds = ["+".join(filter(None, np.unique(slices.kinds[chosen]))) for chosen in of_patient]
    return np.array([values[chosen].max() for chosen in of_patient]), np.array(kinds), names


def count_findings(scores: Mapping[str, np.ndarray], slices: SliceSet) -> Counts:
    """Count the scores of slices and patients with each kind of finding, and of those without any, patient by patient.

    A kind is compared with what has no finding; those with other kinds alone take no part.
    """
    counts: Counts = {}
    for name, values in scores.items():
        for level in LEVELS:
            of_level, told, patients = findings_of(values, slices, level)
            kinds = sorted({kind for one in told for kind in one.split("+") if kind})
            for kind in (ALL, *kinds):
                has = np.array([bool(one) if kind == ALL else kind in one.split("+") for one in told])
                takes_part = (has | (told == ""))[:, None, None]
                counts[name, level, kind] = count(
                    has[:, None, None], of_level[:, None, None], patients, np.inf, where=takes_part
                )
    return counts


def rows_of(counts: Counts) -> Iterator[Row]:
    """Yield AUROC and AP of every kind, with the 95 % interval of the AUROC over patients."""
    for (name, level, kind), one in counts.items():
        figures = Resamples.of([one]).intervals()
        yield {
            "score": name, "level": level, "kind": kind, "n": int(one.positives.sum()),
            "n_without": int(one.negatives.sum()),
            **dict(zip(("auroc", "low", "high"), figures["auroc"], strict=True)), "ap": figures["ap"][0],
        }  # fmt: skip


def differences(ours: Sequence[Counts], rival: Sequence[Counts]) -> Iterator[Row]:
    """Yield how much our AUROC and AP of all kinds exceed a rival's: means over seeds and 95 % intervals."""
    for score, level, kind in rival[0]:
        if kind == ALL:
            first = Resamples.of([counts["map", level, ALL] for counts in ours])
            second = Resamples.of([counts[score, level, ALL] for counts in rival])
            for metric, values in first.intervals(minus=second).items():
                if metric in ("auroc", "ap"):
                    yield {"score": score, "level": level, "metric": metric} | dict(
                        zip(("mean", "low", "high"), values, strict=True)
                    )


def slice_ap(maps: np.ndarray, slices: SliceSet) -> float:
    """Return the average precision of the scores of slices by their maps (n, H, W)."""
    return average_precision_score(slices.kinds != "", score_maps(maps, slices))
