"""Thresholds and p-values from the anomaly scores of held-out healthy scans (split conformal)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from skmimood.exceptions import InputError, ModelLoadError, warn
from skmimood.validation.rules import RATE, fault_of

# A bin holds the float32 numbers that agree in sign, exponent and the first 11 bits of the mantissa. So it is
# 0.05 % wide at every magnitude, and the range of the scores need not be known beforehand.
_DROPPED_BITS = 12
_N_BINS = 2 ** (32 - _DROPPED_BITS)
_SIGN = np.uint32(1 << 31)
_CHUNK = 2**20


class ScoreHistogram:
    """Counts of scores on a fixed logarithmic grid: ranks of any number of scores in 8 MB.

    Order is kept exactly between bins; scores closer than 0.05 % may share a bin and then count as tied.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(_N_BINS, dtype=np.int64)

    def add(self, scores: np.ndarray) -> None:
        """Count float32 ``scores``, an array of any shape; `InputError` if one is NaN or infinite."""
        for chunk in _chunks(np.asarray(scores, dtype=np.float32)):
            if not np.isfinite(chunk).all():
                raise InputError(
                    "anomaly scores must be finite; got NaN or infinity. Fit the pipeline again, or leave "
                    "out the scan on which it fails."
                )
            np.add.at(self.counts, _bin_of(chunk), 1)

    def occupied(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the upper edge and the count of each bin that is not empty, in ascending order."""
        bins = np.flatnonzero(self.counts)
        return _upper_edge(bins), self.counts[bins]


@dataclass(frozen=True, eq=False)
class HealthyReference:
    """What the anomaly scores of held-out healthy scans look like.

    Parameters
    ----------
    pixel_values : ndarray of shape (n_values,), float32
        Ascending scores: the pixels' scores, each rounded up by at most 0.05 %.
    pixel_counts : ndarray of shape (n_values,), int64
        How many healthy foreground pixels have each score.
    scan_scores : ndarray of shape (n_scans,), float64
        The scores of the healthy scans as wholes, ascending: one for each subject, the highest where it has several.

    Notes
    -----
    Split conformal prediction [1]_, [2]_: with n healthy scores that took no part in training, the threshold
    at rate ``fpr`` is the ceil((n + 1)(1 - fpr))-th smallest of them, and the p-value of a score s is
    (1 + number of healthy scores >= s) / (n + 1). A score is above the threshold exactly when its p-value is
    at most ``fpr``; as the float32 p-values of pixels are rounded down, a rate counts as equal to a p-value that
    exceeds it by less than 1.2e-7 of itself. A new healthy *scan* exceeds its threshold with probability at most
    ``fpr`` if it is exchangeable with the healthy ones: same scanner, protocol and population. Scans of one subject
    depend on one another, so a subject counts once, with its highest score: p-values are rather too large. Pixels of
    one scan depend on one another, so the *pixel* rate holds on average over healthy scans, not within every scan.

    References
    ----------
    .. [1] Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", Springer 2005.
    .. [2] Angelopoulos and Bates, "Conformal Prediction: A Gentle Introduction", Foundations and Trends in
       Machine Learning 16(4), 2023, arXiv 2107.07511.
    """

    pixel_values: np.ndarray
    pixel_counts: np.ndarray
    scan_scores: np.ndarray

    @classmethod
    def from_scans(cls, scans: Iterable[tuple[np.ndarray, float]]) -> HealthyReference:
        """Build the reference from healthy scans that took no part in training, one at a time.

        ``scans`` yields the float32 scores of a scan's foreground, of any shape, and the score of the scan as a whole.
        `InputError` if there is no scan or no pixel, or if a score is NaN or infinite.
        """
        histogram = ScoreHistogram()
        scan_scores = []
        for pixel_scores, scan_score in scans:
            histogram.add(pixel_scores)
            scan_scores.append(float(scan_score))
        values, counts = histogram.occupied()
        if not counts.size:
            raise InputError(
                f"calibration needs at least 1 healthy scan with foreground; got {len(scan_scores)} scans "
                "and 0 pixels. Pass healthy scans that were not used for training."
            )
        if not np.isfinite(scan_scores).all():
            raise InputError(
                "a scan's score is NaN or infinite. Leave out the scan that the pipeline fails on."
            )
        return cls(values, counts, np.sort(np.asarray(scan_scores, dtype=np.float64)))

    @classmethod
    def pooled(cls, references: Sequence[HealthyReference]) -> HealthyReference:
        """Join references of different scans; `InputError` if there is none."""
        if not references:
            return cls.from_scans(())
        values, places = np.unique(
            np.concatenate([one.pixel_values for one in references]), return_inverse=True
        )
        counts = np.zeros(len(values), np.int64)
        np.add.at(counts, places, np.concatenate([one.pixel_counts for one in references]))
        return cls(values, counts, np.sort(np.concatenate([one.scan_scores for one in references])))

    def without(self, part: HealthyReference) -> HealthyReference:
        """Take the pixels of ``part`` out again, of which this was pooled; scores of scans stay."""
        counts = self.pixel_counts.copy()
        counts[np.searchsorted(self.pixel_values, part.pixel_values)] -= part.pixel_counts
        return replace(self, pixel_values=self.pixel_values[counts > 0], pixel_counts=counts[counts > 0])

    @property
    def n_pixels(self) -> int:
        """Number of healthy foreground pixels."""
        return int(self.pixel_counts.sum())

    @property
    def n_scans(self) -> int:
        """Number of healthy scans."""
        return len(self.scan_scores)

    def pixel_threshold(self, fpr: float) -> float:
        """Score that at most a share ``fpr`` in (0, 1) of the pixels of new healthy scans exceeds.

        It is +inf, with a :class:`SkmimoodWarning`, if there are too few pixels for this rate.
        """
        rank = _conformal_rank(self.n_pixels, fpr, "pixels")
        if rank is None:
            return math.inf
        return float(self.pixel_values[np.searchsorted(np.cumsum(self.pixel_counts), rank)])

    def scan_threshold(self, fpr: float) -> float:
        """Scan score that a new healthy scan exceeds with probability at most ``fpr`` in (0, 1).

        It is +inf, with a :class:`SkmimoodWarning` that says how many scans are needed, if there are too few.
        """
        rank = _conformal_rank(self.n_scans, fpr, "scans")
        return math.inf if rank is None else float(self.scan_scores[rank - 1])

    def pixel_fpr(self, threshold: float) -> float:
        """Rate at which pixels of new healthy scans exceed ``threshold``, at most: the inverse of `pixel_threshold`.

        It is the p-value of a score just above the threshold; 0 for an infinite threshold.
        """
        return _rate_above(int(self.pixels_above(np.array(threshold))), self.n_pixels, threshold)

    def pixels_above(self, thresholds: np.ndarray) -> np.ndarray:
        """Return how many of the pixels exceed each of ``thresholds``, of any shape."""
        first_above = np.searchsorted(self.pixel_values, thresholds.astype(np.float32), side="right")
        return self._at_least()[first_above]

    def _at_least(self) -> np.ndarray:
        """Return how many pixels score at least each of ``pixel_values``, and 0 for more than the last."""
        return np.append(np.cumsum(self.pixel_counts[::-1])[::-1], 0)

    def scan_fpr(self, threshold: float) -> float:
        """Rate at which new healthy scans exceed ``threshold``, at most: the inverse of `scan_threshold`."""
        return _rate_above(int(np.sum(self.scan_scores > threshold)), self.n_scans, threshold)

    def pixel_pvalue(self, scores: np.ndarray) -> np.ndarray:
        """Share of healthy pixels that score at least as high as ``scores``, of any shape; NaN stays NaN.

        The p-values are float32 of the same shape, from 1 / (n_pixels + 1) to 1. They are rounded down, by less than
        1.2e-7 of their value: the nearest number of this type to 0.1 is above 0.1.
        """
        scores = np.asarray(scores, dtype=np.float32)
        table = _rounded_down((1 + self._at_least()) / (1 + self.n_pixels))
        parts = [table[np.searchsorted(self.pixel_values, chunk)] for chunk in _chunks(scores)]
        pvalues = np.concatenate(parts).reshape(scores.shape)
        pvalues[np.isnan(scores)] = np.nan
        return pvalues

    def scan_pvalue(self, score: float) -> float:
        """Share of healthy scans that score at least as high as ``score``, in (0, 1]."""
        return float((1 + np.sum(self.scan_scores >= score)) / (1 + self.n_scans))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the reference as named arrays, for saving."""
        return dict(vars(self))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> HealthyReference:
        """Rebuild a reference from `to_arrays`; `ModelLoadError` if an array is missing or cannot be from there."""
        try:
            values = np.asarray(arrays["pixel_values"], dtype=np.float32)
            counts = np.asarray(arrays["pixel_counts"], dtype=np.int64)
            scans = np.asarray(arrays["scan_scores"], dtype=np.float64)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelLoadError(f"the healthy reference is incomplete: {error}. Fit again.") from error
        has_shapes = values.ndim == counts.ndim == scans.ndim == 1 and len(values) == len(counts) > 0 < len(
            scans
        )
        is_finite = np.isfinite(values).all() and np.isfinite(scans).all() and (counts > 0).all()
        if not (has_shapes and is_finite and (np.diff(values) > 0).all() and (np.diff(scans) >= 0).all()):
            raise ModelLoadError(
                "the healthy reference is damaged: not sorted counts of finite scores. Fit again."
            )
        return cls(values, counts, scans)


def average_precision_of_counts(diseased: ScoreHistogram, healthy: ScoreHistogram) -> float:
    """Average precision, in [0, 1], of counted scores of pixels inside and outside of lesions; ties count together.

    It is NaN, with a :class:`SkmimoodWarning`, if no pixel lies in a lesion.
    """
    n_diseased = int(diseased.counts.sum())
    if not n_diseased:
        warn("average precision is not defined without a lesion: every mask in y is empty. Add masked scans.")
        return math.nan
    hits = diseased.counts[::-1]
    found = np.cumsum(hits)
    called = found + np.cumsum(healthy.counts[::-1])
    precision = found / np.maximum(called, 1)
    return float((precision * hits).sum() / n_diseased)


def scores_needed(fpr: float) -> int:
    """Return the least number of healthy scores for which the threshold at rate ``fpr`` is finite."""
    return math.ceil(1 / fpr * (1 - 1e-12)) - 1  # undo rounding: 1 / 0.1 must not become 11


def _rate_above(n_above: int, n: int, threshold: float) -> float:
    return 0.0 if threshold == math.inf else (1 + n_above) / (1 + n)


def _conformal_rank(n: int, fpr: float, what: str) -> int | None:
    """Rank (from 1, ascending) of the threshold among n healthy scores; None if n is too small."""
    if fault := fault_of("fpr", fpr, RATE):
        raise InputError(f"{fault}. Use 0.01 for one in a hundred.")
    allowed = round((n + 1) * fpr)
    allowed -= (
        allowed / (n + 1) > fpr
    )  # as p-values are compared: 0.29 * 100 = 28.999..., but 29 / 100 = 0.29
    if allowed >= 1:
        return n + 1 - allowed
    there = f"{'is' if n == 1 else 'are'} {n}{' of different subjects' if what == 'scans' and n > 1 else ''}"
    warn(
        f"a false-positive rate of {fpr:g} needs at least {scores_needed(fpr)} healthy {what} for calibration; there "
        f"{there}. The threshold is infinite, so nothing is called anomalous: use more, or a higher rate.",
        stacklevel=4,
    )
    return None


def _chunks(scores: np.ndarray) -> list[np.ndarray]:
    """Cut flattened scores into parts that need little memory beside them."""
    return np.split(scores.reshape(-1), range(_CHUNK, scores.size, _CHUNK))


def _rounded_down(values: np.ndarray) -> np.ndarray:
    """Return positive float64 values as the largest float32 numbers that do not exceed them."""
    nearest = values.astype(np.float32)
    return np.where(nearest > values, np.nextafter(nearest, np.float32(0)), nearest)


def _bin_of(scores: np.ndarray) -> np.ndarray:
    """Bin number of each float32 score; bin numbers have the order of the scores."""
    bits = (scores + np.float32(0)).view(np.uint32)  # adding zero turns -0.0 into 0.0
    ordered = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    return ordered >> np.uint32(_DROPPED_BITS)


def _upper_edge(bins: np.ndarray) -> np.ndarray:
    """Largest float32 number of each bin."""
    ordered = (bins.astype(np.uint32) << np.uint32(_DROPPED_BITS)) | np.uint32(2**_DROPPED_BITS - 1)
    return np.where(ordered & _SIGN, ordered ^ _SIGN, ~ordered).astype(np.uint32).view(np.float32)
