"""Copies among scans: the same voxels, perhaps turned, mirrored, scaled or rounded."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

_N_PLACES = 1024  # voxels that are compared before all others are
_COARSE = 0.15  # deviations that the roughest copy may differ by at these
_TOO_CLOSE = 1e-2  # of the spread of intensity: what rounding may move
_LEAST_SHARE = 1e-3  # of all voxels, for a part of the range of intensities to count
_FEWEST_LEVELS = 64  # of a copy: with fewer, steps are differences of tissues, not rounding
_ROUNDING = 1.05  # steps that the voxels of a copy may differ by

T = TypeVar("T")


class Copies(Generic[T]):
    """Finds scans whose voxels another had before, in any orientation; see `is_copy`.

    ``read`` returns the voxels (X, Y, Z) of a scan that was noted, or None. Only scans that may be copies are read.
    """

    def __init__(self, read: Callable[[T], np.ndarray | None]) -> None:
        self._read = read
        self._noted: list[tuple[tuple[int, ...], np.ndarray, T]] = []  # shape, values at a few places, scan

    def find(self, scan: T, voxels: np.ndarray) -> T | None:
        """Return the scan that was noted before with the same voxels; if there is none, note this one."""
        turned = orientations(voxels)
        values = [_values_at_places(one) for one in turned]
        for shape, noted, which in self._noted:
            alike = [
                one
                for one, its in zip(turned, values, strict=True)
                if one.shape == shape and np.abs(its - noted).max() <= _COARSE
            ]
            earlier = self._read(which) if alike else None
            if earlier is not None and any(is_copy(one, orientations(earlier)[0]) for one in alike):
                return which
        self._noted.append((turned[0].shape, values[0], scan))
        return None


def _values_at_places(voxels: np.ndarray) -> np.ndarray:
    """Return deviations from the mean at the same places of all scans of a shape, (n_places,) float32."""
    places = np.random.default_rng(0).integers(0, voxels.size, _N_PLACES)
    values = voxels[np.unravel_index(places, voxels.shape)].astype(np.float64)
    mean, deviation = voxels.mean(dtype=np.float64), voxels.std(dtype=np.float64)
    return ((values - mean) / max(deviation, 1e-300)).astype(np.float32)


def is_copy(first: np.ndarray, second: np.ndarray) -> bool:
    """Tell whether voxels (X, Y, Z) are those of another scan up to a linear scale of intensity, and rounding.

    Every voxel of the one must be predicted by that of the other to little more than half a step of the grey values of
    each. Different scans, even of one subject in one session, differ by more: by their noise.
    """
    if first.shape != second.shape:
        return False
    x, y = (voxels.ravel().astype(np.float64) for voxels in (first, second))
    slope, offset = _line(x, y)
    tolerance = _ROUNDING * (slope * _step(first) + _step(second))
    return slope > 0 and bool(np.abs(y - offset - slope * x).max() <= tolerance)


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return slope and offset of y over x; parts of the range of x count alike, if not a few voxels only."""
    low, span = float(x.min()), max(float(np.ptp(x)), 1e-300)
    bins = np.minimum((x - low) / span * _FEWEST_LEVELS, _FEWEST_LEVELS - 1).astype(int)
    counts = np.bincount(bins)
    filled = np.flatnonzero(counts >= _LEAST_SHARE * x.size)
    x, y = (np.bincount(bins, weights=values)[filled] / counts[filled] for values in (x, y))
    centred = x - x.mean()
    slope = float(centred @ y) / max(float(centred @ centred), 1e-300)
    return slope, float(y.mean() - slope * x.mean())


def orientations(voxels: np.ndarray) -> list[np.ndarray]:
    """Turn voxels (X, Y, Z) as their content says, alike for all 48 orientations of them, whatever the affine.

    The longest axis comes first, of equally long ones that along which intensity is spread most; along each axis, more
    intensity lies in the first half. Where that is too close to call, all answers are given, the likeliest first.
    """
    shape, lowest = voxels.shape, float(voxels.min())
    centres, spreads = [], []
    for axis, length in enumerate(shape):
        sums = voxels.sum(axis=tuple(k for k in range(3) if k != axis), dtype=np.float64)
        profile = sums - lowest * (voxels.size / length)
        profile /= max(float(profile.sum()), 1e-300)
        places = np.arange(length) - (length - 1) / 2
        centres.append(float(profile @ places))
        spreads.append(max(float(profile @ (places - centres[-1]) ** 2) ** 0.5, 1e-9))

    def is_plausible(order: tuple[int, ...]) -> bool:
        pairs = itertools.pairwise(order)
        return all((shape[a], spreads[a] * (1 + _TOO_CLOSE)) >= (shape[b], spreads[b]) for a, b in pairs)

    likeliest = sorted(range(3), key=lambda axis: (shape[axis], spreads[axis]), reverse=True)
    orders = filter(is_plausible, itertools.permutations(likeliest))  # the likeliest is first
    steps = []
    for centre, spread in zip(centres, spreads, strict=True):
        step = -1 if centre > 0 else 1
        steps.append((step, -step) if abs(centre) < _TOO_CLOSE * spread else (step,))
    return [
        voxels[tuple(slice(None, None, step) for step in flips)].transpose(order)
        for order in orders
        for flips in itertools.product(*steps)
    ]


def _step(values: np.ndarray) -> float:
    """Return the smallest distance between different values, from rounding of float32 to a share of the range."""
    levels = np.unique(values)
    noise = 4 * float(np.abs(levels).max()) * np.finfo(np.float32).eps
    steps = np.diff(levels)
    smallest = float(steps[steps > noise].min(initial=np.inf))
    return float(max(min(smallest, np.ptp(levels) / _FEWEST_LEVELS), 2 * noise))
