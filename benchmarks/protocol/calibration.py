"""Whether thresholds hold what they promise: rates of false positives among healthy subjects that nobody has seen."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import binomtest, bootstrap

from benchmarks.protocol.scores import Row
from skmimood.exceptions import SkmimoodWarning
from skmimood.maps.conformal import HealthyReference
from skmimood.scans.reference import HealthyScan, refer

RATES = (0.01, 0.02, 0.05, 0.1, 0.2)
LEVELS = ("pixel", "scan")
_N_RESAMPLES = 2000


def measure(folds: Sequence[Mapping[str, HealthyScan]], n_calibration: int, n_draws: int) -> list[Row]:
    """Return the rates of false positives, of pixels and of scans, at each rate that is asked for.

    Each fold has its own networks, and scans of subjects that these never saw. In every draw, ``n_calibration`` of
    them set the thresholds of their fold, and all others are tested. The rate of a subject is the mean over the times
    that it was tested, and ``rate`` the mean over subjects. ``low`` and ``high`` bound it at 95 %: for scans by the
    binomial law of as many subjects (Clopper and Pearson), for pixels, those of one subject depending on one another,
    by resampling subjects. ``attainable`` is what a threshold promises: n scans know no rates but multiples of
    1 / (n + 1). ``lowest`` and ``highest`` are the rates of single draws.
    """
    subjects = sorted({name for scans in folds for name in scans})
    shape = len(folds), n_draws, len(subjects), len(RATES)
    tested = {level: np.full(shape, np.nan) for level in LEVELS}  # NaN where a subject takes no part
    for fold, scans in enumerate(folds):
        for draw in range(n_draws):
            names = np.random.default_rng([draw, fold]).permutation(sorted(scans))
            reference, _ = refer({name: scans[name] for name in names[:n_calibration]})
            limits = {level: _thresholds(reference, level) for level in LEVELS}
            for name in names[n_calibration:]:
                scan, place = scans[name], (fold, draw, subjects.index(name))
                tested["pixel"][place] = scan.pixels.pixels_above(limits["pixel"]) / scan.pixels.n_pixels
                tested["scan"][place] = scan.score(reference) > limits["scan"]
    steps = {"pixel": 0, "scan": n_calibration + 1}
    return [
        {"level": level, "n_calibration": n_calibration, "asked": rate, "attainable": _attainable(rate, steps[level])}
        | _row(tested[level][..., i], level)
        for level in LEVELS
        for i, rate in enumerate(RATES)
    ]  # fmt: skip


def _attainable(rate: float, n_steps: int) -> float:
    """Return the largest multiple of 1 / n_steps up to a rate; 0 steps stand for more than matters."""
    return float(np.floor(rate * n_steps + 1e-9) / n_steps) if n_steps else rate


def _thresholds(reference: HealthyReference, level: str) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkmimoodWarning)  # too few scans for a rate: nothing is flagged
        return np.array([getattr(reference, f"{level}_threshold")(rate) for rate in RATES])


def _row(tested: np.ndarray, level: str) -> Row:
    """Return the figures of one rate, from what was counted of subjects: (n_folds, n_draws, n_subjects)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a mean of nothing
        of_subjects, of_draws = np.nanmean(tested, axis=(0, 1)), np.nanmean(tested, axis=(0, 2))
    of_subjects = of_subjects[~np.isnan(of_subjects)]
    n, rate = len(of_subjects), float(of_subjects.mean())
    if level == "scan":
        interval = binomtest(round(rate * n), n).proportion_ci()
    else:
        resampled = bootstrap((of_subjects,), np.mean, n_resamples=_N_RESAMPLES, method="percentile", rng=0)
        interval = resampled.confidence_interval
    return {
        "rate": rate, "low": float(interval.low), "high": float(interval.high), "n_subjects": n,
        "n_draws": len(of_draws), "lowest": float(of_draws.min()), "highest": float(of_draws.max()),
    }  # fmt: skip
