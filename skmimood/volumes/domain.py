"""What the healthy scans of a cohort look like as wholes, and which scans do not look like them.

Nothing here decides on lesions. It finds scans that the networks should not be asked about: another modality,
inverted contrast, a skull under a model of bare brains, half a head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from skmimood.volumes.wording import listing, warn

N_BINS = 64
_SLACK = 1.5  # a scan may be this much farther from the training data than the farthest healthy scan
_DISTANCE_FLOOR = 0.02  # intensity distances below this are noise, however alike the healthy scans are
_VOLUME_SLACK = 1.25
_MIN_SCANS_FOR_SUSPECTS = 5
_SUSPECT_DEVIATIONS = 6.0
_MEASURES = ("its intensities", "its foreground volume", "its height in a slice", "its width in a slice")
_SPREAD_FLOORS = (0.01, 0.03, 0.03, 0.03)  # smallest standard deviations: of intensity, then of logarithms


@dataclass(frozen=True, eq=False)
class ScanFeatures:
    """Measures of one whole scan.

    Attributes
    ----------
    histogram : ndarray of shape (64,), float64
        Share of the foreground in each of 64 equal bins of scaled intensity over [0, 1].
    volume : float
        Foreground volume in ml.
    extent : tuple of float
        Height and width in mm of the foreground's bounding box in the slice plane.
    """

    histogram: np.ndarray
    volume: float
    extent: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Domain:
    """What may be asked of a model: limits on :class:`ScanFeatures` learned from healthy scans.

    Attributes
    ----------
    histogram : ndarray of shape (64,), float64
        Mean intensity histogram of the training scans.
    distance_limit : float
        Largest intensity distance, in units of scaled intensity, that passes without a remark.
    volume_range : tuple of float
        Smallest and largest foreground volume, in ml, that pass without a remark.
    """

    histogram: np.ndarray
    distance_limit: float
    volume_range: tuple[float, float]

    @classmethod
    def learn(cls, training: Sequence[ScanFeatures], held_out: Sequence[ScanFeatures]) -> Domain:
        """Learn the limits from healthy scans.

        Every distance is that of a scan to *other* scans: of a held-out scan to the mean histogram of the
        training scans, of a training scan to that of the other training scans. The limit is 1.5 times the
        largest of them.
        """
        histograms = np.stack([features.histogram for features in training])
        mean = histograms.mean(axis=0)
        distances = [intensity_distance(features.histogram, mean) for features in held_out]
        if len(histograms) > 1:
            others = (histograms.sum(axis=0) - histograms) / (len(histograms) - 1)
            distances += [intensity_distance(*pair) for pair in zip(histograms, others, strict=True)]
        volumes = [features.volume for features in (*training, *held_out)]
        return cls(
            mean,
            max(_SLACK * max(distances, default=0.0), _DISTANCE_FLOOR),
            (min(volumes) / _VOLUME_SLACK, max(volumes) * _VOLUME_SLACK),
        )

    def remarks(self, features: ScanFeatures) -> tuple[str, ...]:
        """Say in what respects a scan looks unlike the training data, one sentence each."""
        found = []
        distance = intensity_distance(features.histogram, self.histogram)
        if distance > self.distance_limit:
            found.append(
                f"looks unlike the training data: intensity distance {distance:.3f}, limit "
                f"{self.distance_limit:.3f} (another modality, contrast or scanner?). P-values and thresholds "
                "may not hold for it; for another scanner, calibrate on healthy scans of that site"
            )
        low, high = self.volume_range
        if not low <= features.volume <= high:
            found.append(
                f"foreground of {features.volume:.0f} ml lies outside the {low:.0f} to {high:.0f} ml of the "
                "training data (skull stripped in one and not in the other, or a part of the head only?)"
            )
        return tuple(found)


def intensity_histogram(intensities: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """Share of the foreground in each of 64 bins of scaled intensity over [0, 1], shape (64,), float64."""
    counts, _ = np.histogram(intensities[foreground], bins=N_BINS, range=(0.0, 1.0))
    return counts / max(int(counts.sum()), 1)


def intensity_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Wasserstein-1 distance of two histograms: by how much intensities are shifted on average."""
    return float(np.abs(np.cumsum(first - second)).sum() / N_BINS)


def learn_domain(
    training: dict[str, ScanFeatures], held_out: dict[str, ScanFeatures]
) -> tuple[Domain, dict[str, str]]:
    """Learn the limits from the scans that look like one another; return them and the suspects."""
    suspects = find_suspects(training | held_out)
    sound, aside = (
        [features for name, features in part.items() if name not in suspects] for part in (training, held_out)
    )
    return Domain.learn(sound or list(training.values()), aside), suspects


def find_suspects(features: dict[str, ScanFeatures]) -> dict[str, str]:
    """Name the scans of a healthy set that stand out of the others, with what is odd about each.

    A measure is odd if it lies 6 robust standard deviations from the median.
    With fewer than 5 scans nothing can be said, and the result is empty.
    """
    if len(features) < _MIN_SCANS_FOR_SUSPECTS:
        return {}
    measures = _measures(list(features.values()))
    deviations = robust_deviations(measures, np.asarray(_SPREAD_FLOORS))
    deviations[:, 1:] = np.abs(deviations[:, 1:])  # a distance is odd only if it is large
    return {
        scan: " and ".join(name for name, is_odd in zip(_MEASURES, row, strict=True) if is_odd)
        for scan, row in zip(features, deviations > _SUSPECT_DEVIATIONS, strict=True)
        if row.any()
    }


def find_high_scores(scores: dict[str, float]) -> dict[str, str]:
    """Name the healthy scans whose anomaly score stands out of the others'; empty with fewer than 5 scans."""
    if len(scores) < _MIN_SCANS_FOR_SUSPECTS:
        return {}
    values = np.asarray(list(scores.values()))
    deviations = robust_deviations(
        values[:, np.newaxis], np.asarray([0.1 * np.median(np.abs(values)) + 1e-12])
    )
    odd = deviations[:, 0] > _SUSPECT_DEVIATIONS
    return {scan: "its anomaly score" for scan, is_odd in zip(scores, odd, strict=True) if is_odd}


def warn_about_suspects(suspects: Mapping[str, str]) -> None:
    """Warn about healthy scans that stand out, with the reasons."""
    if suspects:
        odd = listing(f"{name} ({reason})" for name, reason in suspects.items())
        warn(f"{len(suspects)} of the healthy scans stand out: {odd}. Look at them; see suspects_.")


def robust_deviations(measures: np.ndarray, floors: np.ndarray) -> np.ndarray:
    """Signed distance of measures (n_scans, n_measures) from their medians in robust deviations."""
    centred = measures - np.median(measures, axis=0)
    spread = 1.4826 * np.median(np.abs(centred), axis=0)
    return centred / np.maximum(spread, floors)


def _measures(features: Sequence[ScanFeatures]) -> np.ndarray:
    """Intensity distance to the typical histogram, and logarithms of sizes, shape (n_scans, 4)."""
    typical = np.median([f.histogram for f in features], axis=0)
    typical = typical / max(float(typical.sum()), 1e-12)
    distances = [intensity_distance(f.histogram, typical) for f in features]
    sizes = np.log([[f.volume, *f.extent] for f in features])
    return np.column_stack([distances, sizes])
