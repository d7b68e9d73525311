"""What healthy scans look like as wholes, and which scans do not look like them, so that networks cannot judge them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from skmimood.exceptions import listing, warn

N_BINS = 64
N_CELLS = 8  # of a layout along each axis
_SLACK = 1.5  # a scan may be this much farther from the training data than the farthest healthy scan
_DISTANCE_FLOOR = 0.02  # intensity distances below this are noise, however alike the healthy scans are
_LAYOUT_FLOOR = 0.1  # likewise of layout distances
_VOLUME_SLACK = 1.25
_ASPECT_SLACK = 1.1
_VOXEL_SLACK = 1.5
_INNER_SHARE = 0.5  # of a cell, that foreground must fill for its intensity to count
_MIN_CELLS = 5
_MIN_SCANS_FOR_SUSPECTS = 3
_MIN_SCORES_FOR_SUSPECTS = 5
_SUSPECT_DEVIATIONS = 6.0
# What a scan may stand out by, and the smallest standard deviations of many scans and of few, which tell little of
# their spread: of the two distances, then of logarithms.
_MEASURES = {
    "its intensities": (0.01, 0.03),
    "the layout of its tissue": (0.05, 0.1),
    "its foreground volume": (0.03, 0.08),
    "its height in a slice": (0.03, 0.08),
    "its width in a slice": (0.03, 0.08),
}
_FEW = 5


@dataclass(frozen=True, eq=False)
class ScanFeatures:
    """Measures of one whole scan.

    ``histogram`` (64,) float64 is the share of the foreground in equal bins of scaled intensity over [0, 1]; ``volume``
    that of the foreground in ml, and ``share`` its share of the scan's volume; ``extent`` height and width in mm of the
    foreground's bounding box in the slice plane; ``layout`` (2, 8, 8, 8) float32 its `tissue_layout`; ``voxel`` height
    and width of a voxel in the slice plane and its thickness across it, in mm.
    """

    histogram: np.ndarray
    volume: float
    extent: tuple[float, float]
    layout: np.ndarray
    share: float
    voxel: tuple[float, float, float]

    @property
    def aspect(self) -> float:
        """Height over width of the bounding box."""
        return self.extent[0] / self.extent[1]


@dataclass(frozen=True, eq=False)
class Domain:
    """What is learned of `ScanFeatures` from healthy scans, and the limits beyond which a scan is flagged.

    ``intensity_histogram`` (64,) float64 and ``layout`` (2, 8, 8, 8) float32 are the means of the training scans;
    ``intensity_limit``, in units of scaled intensity, and ``layout_limit``, in [0, 2], the largest distances from them;
    ``foreground_range`` the smallest and largest foreground in ml, and ``aspect_range`` that of its height over its
    width in a slice. ``pixel_range`` and ``thickness_range`` are the smallest and largest sides, in mm, that voxels of
    these scans have in the slice plane and across it; a scan is flagged if its own are 1.5 times smaller or larger. Old
    models have no limits on layout, aspect and voxels.
    """

    intensity_histogram: np.ndarray
    intensity_limit: float
    foreground_range: tuple[float, float]
    layout: np.ndarray | None = None
    layout_limit: float = np.inf
    aspect_range: tuple[float, float] = (0.0, np.inf)
    pixel_range: tuple[float, float] = (0.0, np.inf)
    thickness_range: tuple[float, float] = (0.0, np.inf)

    @classmethod
    def of(cls, detector: Any) -> Domain:
        """Return the domain whose `attributes` a fitted detector has."""
        return cls(**{name: getattr(detector, f"{name}_") for name in _SHAPES})

    def attributes(self) -> dict[str, Any]:
        """Return the limits by the names that they have as attributes of a detector."""
        return {f"{name}_": value for name, value in vars(self).items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> Domain:
        """Rebuild a domain from its `attributes` as arrays; KeyError or ValueError if one is missing or wrong."""
        limits: dict[str, Any] = {}
        for name, shape in _SHAPES.items():
            if f"{name}_" not in arrays and hasattr(cls, name):  # an old model, for which there is a default
                continue
            array = np.asarray(arrays[f"{name}_"])
            if array.shape != shape or not (array >= 0).all() or (shape == (2,) and array[0] > array[1]):
                raise ValueError(f"{name} is out of range")
            limits[name] = array if array.size > 2 else tuple(array.tolist()) if shape else float(array)
        return cls(**limits)

    def remarks(self, features: ScanFeatures) -> tuple[str, ...]:
        """Say in what respects a scan looks unlike the training data, one sentence each."""
        distance = intensity_distance(features.histogram, self.intensity_histogram)
        unlike = _beyond("intensity distance {0}, limit {2}", distance, 0.0, self.intensity_limit, 3)
        if self.layout is not None:
            distance = layout_distance(features.layout, self.layout)
            unlike += _beyond(
                "layout distance of its tissue {0}, limit {2}", distance, 0.0, self.layout_limit, 2
            )
        unlike += _beyond("height over width {}, limits {} and {}", features.aspect, *self.aspect_range, 2)
        found = _beyond(
            "foreground of {} ml lies outside the {} to {} ml of the training data (skull stripped in one and not in "
            "the other, or a part of the head only?)",
            features.volume,
            *self.foreground_range,
            0,
        )
        if unlike:
            found.insert(
                0,
                f"looks unlike the training data: {' and '.join(unlike)} (another modality, contrast or scanner, "
                "inverted, turned, or a part of the head only?). P-values and thresholds may not hold for it; for "
                "another scanner, calibrate on healthy scans of that site",
            )
        *pixel, thickness = features.voxel
        if not (_within(self.pixel_range, *pixel) and _within(self.thickness_range, thickness)):
            sides = " x ".join(f"{side:.3g}" for side in features.voxel)
            found.append(
                f"voxels of {sides} mm, where those of the training data measured {_span(self.pixel_range)} mm in a "
                f"slice and {_span(self.thickness_range)} mm across (another resolution, which shows less of small "
                "lesions, or more noise). P-values and thresholds may not hold for it"
            )
        return tuple(found)


_SHAPES = {
    "intensity_histogram": (N_BINS,),
    "intensity_limit": (),
    "foreground_range": (2,),
    "layout": (2, *(N_CELLS,) * 3),
    "layout_limit": (),
    "aspect_range": (2,),
    "pixel_range": (2,),
    "thickness_range": (2,),
}


def _within(limits: tuple[float, float], *sides: float) -> bool:
    low, high = limits
    return low <= min(sides) * _VOXEL_SLACK and max(sides) <= high * _VOXEL_SLACK


def _span(limits: tuple[float, float]) -> str:
    return " to ".join(dict.fromkeys(f"{side:.3g}" for side in limits))


def _beyond(text: str, value: float, low: float, high: float, digits: int) -> list[str]:
    """Tell of a value outside of its limits, with enough digits to see that it is."""
    if low <= value <= high:
        return []
    nearest = high if value > high else low
    while digits < 9 and f"{value:.{digits}f}" == f"{nearest:.{digits}f}":
        digits += 1
    return [text.format(*(f"{number:.{digits}f}" for number in (value, low, high)))]


def intensity_histogram(intensities: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """Share of the foreground in each of 64 bins of scaled intensity over [0, 1], shape (64,), float64."""
    counts, _ = np.histogram(intensities[foreground], bins=N_BINS, range=(0.0, 1.0))
    return counts / max(int(counts.sum()), 1)


def intensity_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Wasserstein-1 distance of two histograms: by how much intensities are shifted on average."""
    return float(np.abs(np.cumsum(first - second)).sum() / N_BINS)


def tissue_layout(intensities: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """Return where tissue lies and how bright it is, on 8 x 8 x 8 cells over the foreground's bounding box.

    Intensities and foreground (X, Y, Z) have axes in a fixed order and direction in the patient. The result
    (2, 8, 8, 8) float32 is the foreground's share of each cell, and the sum of its intensities over the cell's size.
    """
    places = np.nonzero(foreground)
    cells, sides = [], []
    for place in places:
        first, length = int(place.min()), int(np.ptp(place)) + 1
        cells.append((place - first) * N_CELLS // length)
        sides.append(np.bincount(np.arange(length) * N_CELLS // length, minlength=N_CELLS))
    shape = (N_CELLS,) * 3
    cell = np.ravel_multi_index(tuple(cells), shape)
    sizes = np.maximum(np.einsum("i,j,k->ijk", *sides), 1)
    sums = [np.bincount(cell, weights, N_CELLS**3) for weights in (None, intensities[places])]
    return np.stack([part.reshape(shape) / sizes for part in sums]).astype(np.float32)


def layout_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Return how little two layouts are alike, in [0, 2], whatever the gain and offset of the intensities.

    It is one minus the lower of two correlations: of the brightness of all cells, which shows the head's shape, and of
    the tissue in cells that both heads fill to one half, which shows the contrast.
    """
    (filled, brightness), (other_filled, other_brightness) = first, second
    common = np.minimum(filled, other_filled)
    inner = common > _INNER_SHARE
    tissue, other_tissue = brightness[inner] / filled[inner], other_brightness[inner] / other_filled[inner]
    return 1.0 - min(
        _correlation(brightness, other_brightness, np.ones_like(common)),
        _correlation(tissue, other_tissue, common[inner]),
    )


def _correlation(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> float:
    """Return the weighted correlation of two samples; 0 if there is nothing to compare, or no contrast."""
    if weights.size < _MIN_CELLS:
        return 0.0
    weights = weights / weights.sum()
    first, second = (part - (weights * part).sum() for part in (first, second))
    norm = np.sqrt((weights * first**2).sum() * (weights * second**2).sum())
    return float((weights * first * second).sum() / norm) if norm > 1e-9 else 0.0


def learn_domain(
    training: dict[str, ScanFeatures], held_out: dict[str, ScanFeatures]
) -> tuple[Domain, dict[str, str]]:
    """Learn the limits from the healthy scans that look like one another; return them and the suspects.

    Every distance is that of a scan to *other* scans: of a held-out scan to the mean histogram, or layout, of the
    training scans, of a training scan to that of the other training scans. The limit is 1.5 times the largest of them.
    """
    suspects = find_suspects(training | held_out)
    sound, aside = (
        [features for name, features in part.items() if name not in suspects] for part in (training, held_out)
    )
    sound = sound or list(training.values())
    histogram, farthest = _mean_and_farthest("histogram", intensity_distance, sound, aside)
    layout, farthest_layout = _mean_and_farthest("layout", layout_distance, sound, aside)
    volumes, aspects = ([getattr(one, name) for one in (*sound, *aside)] for name in ("volume", "aspect"))
    voxels = np.asarray([one.voxel for one in (*sound, *aside)])
    pixels, thicknesses = voxels[:, :2], voxels[:, 2]
    domain = Domain(
        histogram,
        max(_SLACK * farthest, _DISTANCE_FLOOR),
        (min(volumes) / _VOLUME_SLACK, max(volumes) * _VOLUME_SLACK),
        layout,
        max(_SLACK * farthest_layout, _LAYOUT_FLOOR),
        (min(aspects) / _ASPECT_SLACK, max(aspects) * _ASPECT_SLACK),
        (float(pixels.min()), float(pixels.max())),
        (float(thicknesses.min()), float(thicknesses.max())),
    )
    return domain, suspects


def _mean_and_farthest(
    name: str, distance: Callable[..., float], training: Sequence[ScanFeatures], held_out: Sequence[ScanFeatures]
) -> tuple[np.ndarray, float]:  # fmt: skip
    """Return the mean of a measure over the training scans, and the largest distance of a scan to other scans."""
    learned = np.stack([getattr(features, name) for features in training])
    mean = learned.mean(axis=0)
    distances = [distance(getattr(features, name), mean) for features in held_out]
    if len(learned) > 1:
        others = (learned.sum(axis=0) - learned) / (len(learned) - 1)
        distances += map(distance, learned, others)
    return mean, max(distances, default=0.0)


def find_suspects(features: dict[str, ScanFeatures]) -> dict[str, str]:
    """Name the scans of a healthy set that differ much from the others, with what is odd about each.

    A measure is odd if it lies 6 robust standard deviations from the median. With fewer than 3 scans none is.
    """
    if len(features) < _MIN_SCANS_FOR_SUSPECTS:
        return {}
    floors = np.asarray(list(_MEASURES.values()))[:, int(len(features) < _FEW)]
    deviations = _robust_deviations(_measures(list(features.values())), floors)
    deviations[:, 2:] = np.abs(deviations[:, 2:])  # a distance is odd only if it is large
    return {
        scan: " and ".join(name for name, is_odd in zip(_MEASURES, row, strict=True) if is_odd)
        for scan, row in zip(features, deviations > _SUSPECT_DEVIATIONS, strict=True)
        if row.any()
    }


def find_high_scores(scores: dict[str, float]) -> dict[str, str]:
    """Name the healthy scans whose anomaly score is much above the others'; empty with fewer than 5 scans."""
    if len(scores) < _MIN_SCORES_FOR_SUSPECTS:
        return {}
    values = np.sqrt(list(scores.values()))  # masses of clusters are skewed, their roots hardly
    deviations = _robust_deviations(values, 0.1 * np.median(np.abs(values)) + 1e-12)
    return {
        scan: "its anomaly score"
        for scan, deviation in zip(scores, deviations, strict=True)
        if deviation > _SUSPECT_DEVIATIONS
    }


def warn_about_suspects(suspects: Mapping[str, str]) -> None:
    """Warn about healthy scans that stand out, with the reasons."""
    if suspects:
        odd = listing(f"{name} ({reason})" for name, reason in suspects.items())
        warn(f"{len(suspects)} of the healthy scans stand out: {odd}. Look at them; see suspects_.")


def _robust_deviations(measures: np.ndarray, floors: Any) -> np.ndarray:
    """Signed distance of measures (n_scans, ...) from their medians in robust deviations, of at least ``floors``."""
    centred = measures - np.median(measures, axis=0)
    spread = 1.4826 * np.median(np.abs(centred), axis=0)
    return centred / np.maximum(spread, floors)


def _measures(features: Sequence[ScanFeatures]) -> np.ndarray:
    """Return distances to the typical histogram and layout, and logarithms of sizes, shape (n_scans, 5)."""
    typical = np.median([f.histogram for f in features], axis=0)
    typical = typical / max(float(typical.sum()), 1e-12)
    layout = np.median([f.layout for f in features], axis=0)
    distances = [
        (intensity_distance(f.histogram, typical), layout_distance(f.layout, layout)) for f in features
    ]
    return np.column_stack([distances, np.log([[f.volume, *f.extent] for f in features])])
