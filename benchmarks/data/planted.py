"""Lesions with exact masks, planted into slices of real healthy brains by one law or another."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter
from sklearn.cluster import KMeans

from benchmarks.data.slices import MIN_EVALUATED_SHARE, SliceSet, join, rounded

_TISSUE_SAMPLES = 20_000


@dataclass(frozen=True)
class Law:
    """What kinds of lesions there are, and what makes one."""

    kinds: tuple[str, ...]
    # Returns some neighbouring slices of a brain, by their numbers, with a lesion of one kind, and its mask: (d, H, W).
    change: Callable[[Brain, str, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]


def plant(healthy: SliceSet, thickness: float, turn: int, *, law: Law) -> SliceSet:
    """Plant a lesion of each kind; return two slices of each, that of the largest area and of half of it, and twins."""
    brain = Brain.of(healthy, thickness)
    filled = np.flatnonzero(healthy.head.mean((1, 2)) > MIN_EVALUATED_SHARE)
    parts = []
    # Each slab gets one kind; from subject to subject the kinds move on by one slab.
    for number, slab in enumerate(np.array_split(filled, len(law.kinds))):
        kind = law.kinds[(number + turn) % len(law.kinds)]
        rng = np.random.default_rng([zlib.crc32(str(healthy.patients[0]).encode()), number])
        images, lesions = law.change(brain, kind, slab, rng)
        twins = healthy[slab]
        planted = replace(
            twins, images=rounded(images), lesions=lesions, kinds=np.full(len(slab), kind),
            vanished=np.logical_not(np.any(lesions, axis=(1, 2))),  # what a lesion pushes aside is not healthy either
        )  # fmt: skip
        chosen = _largest_and_half(lesions.sum((1, 2)))
        parts += [planted[chosen], twins[chosen]]
    return join(parts)


def _largest_and_half(areas: np.ndarray) -> np.ndarray:
    """Return the slice of the largest area and, if another has any, that nearest to half of it."""
    largest = int(np.argmax(areas))
    others = [i for i in np.flatnonzero(areas) if i != largest]
    return np.sort([largest, *sorted(others, key=lambda i: abs(int(areas[i]) - areas[largest] / 2))[:1]])


@dataclass(frozen=True, eq=False)
class Brain:
    """A skull-stripped T1 brain of D slices, and what a law of planting needs to know of it."""

    images: np.ndarray  # (D, H, W), float32 in [0, 1], 0 outside
    shares: np.ndarray  # (3, D, H, W), float32: estimated shares of white matter, grey matter and fluid
    levels: dict[str, float]  # mean intensity of "white", "grey" and "csf"
    depth: np.ndarray  # (D, H, W), float32: mm below the surface of the brain, 0 outside
    noise: float  # standard deviation of what a filter of 1 pixel removes in white matter
    spacing: float  # pixel size in mm
    thickness: float  # distance between slices in mm

    @classmethod
    def of(cls, slices: SliceSet, thickness: float) -> Brain:
        """Divide the intensities of a brain into three classes: on T1 fluid, grey and white matter, dark to bright."""
        inside, images = slices.head, slices.images
        values = images[inside][:: max(1, int(inside.sum()) // _TISSUE_SAMPLES), None]
        start = np.quantile(values, [0.1, 0.4, 0.8])[:, None]
        classes = KMeans(3, init=start, n_init=1).fit(values)
        centres = np.sort(classes.cluster_centers_.ravel())
        tissue = np.digitize(images, (centres[1:] + centres[:-1]) / 2)
        shares = np.stack([inside & (tissue == k) for k in (2, 1, 0)]).astype(np.float32)
        shares = gaussian_filter(shares, (0, 0, 0.7, 0.7)) * inside
        shares /= np.maximum(shares.sum(0), 1e-6)
        details = (images - gaussian_filter(images, (0, 1, 1)))[shares[0] > 0.99]
        noise = float(1.4826 * np.median(np.abs(details))) if details.size else 0.0
        levels = dict(zip(("csf", "grey", "white"), map(float, centres), strict=True))
        sampling = (thickness, slices.spacing, slices.spacing)
        depth = distance_transform_edt(inside, sampling=sampling).astype(np.float32)
        return cls(images, shares, levels, depth, noise, slices.spacing, thickness)

    def grain(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Draw noise as grainy as the scan's, which a painted lesion would lack."""
        noise = gaussian_filter(rng.standard_normal(shape), (0, 0.5, 0.5))
        return noise * self.noise / (noise - gaussian_filter(noise, (0, 1, 1))).std()
