"""Lesions with exact masks, planted into slices of real healthy brains: the kinds of the phantom."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates
from sklearn.cluster import KMeans

from benchmarks.data.slices import MIN_EVALUATED_SHARE, SliceSet, join, rounded
from skmimood.datasets.atlas import Frame
from skmimood.datasets.lesions import LESION_KINDS, Lesion, displace, paint_lesion, plan_lesions

_TISSUE_SAMPLES = 20_000


def plant(healthy: SliceSet, thickness: float, turn: int) -> SliceSet:
    """Plant two lesions of each kind into a brain, the largest and one of half its area; return them and twins."""
    brain = Brain.of(healthy, thickness)
    filled = np.flatnonzero(healthy.head.mean((1, 2)) > MIN_EVALUATED_SHARE)
    parts = []
    # Each of five slabs gets one kind; from subject to subject the kinds move on by one slab.
    for number, slab in enumerate(np.array_split(filled, len(LESION_KINDS))):
        kind = LESION_KINDS[(number + turn) % len(LESION_KINDS)]
        rng = np.random.default_rng([zlib.crc32(str(healthy.patients[0]).encode()), number])
        images, lesions = brain.with_lesion(kind, slab, rng)
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
    """A skull-stripped T1 brain of D slices, and what the lesions of the phantom need to know of it."""

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

    def with_lesion(
        self, kind: str, slab: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return some neighbouring slices with a lesion of one kind, and its mask, both (d, H, W)."""
        frame = self._frame(slab)
        depth, shares, images = self.depth[slab], self.shares[:, slab], self.images[slab]
        lesions = plan_lesions(kind, frame, depth, shares, rng)
        if kind == "mass":
            images, shares = self._displaced(slab, frame, lesions[0])
        mask = np.zeros(images.shape, bool)
        for lesion in lesions:
            images, painted = paint_lesion(images, lesion, frame, shares, self.levels, rng)
            mask |= painted
        return np.clip(images + mask * self._noise(images.shape, rng), 0, 1).astype(np.float32), mask

    def _frame(self, slab: np.ndarray) -> Frame:
        _, height, width = self.images.shape
        x = (np.arange(width) - (width - 1) / 2) * self.spacing
        y = ((height - 1) / 2 - np.arange(height)) * self.spacing
        return Frame(x, y, (slab - slab.mean()) * self.thickness)

    def _displaced(self, slab: np.ndarray, frame: Frame, mass: Lesion) -> tuple[np.ndarray, np.ndarray]:
        """Return images (d, H, W) and tissue shares (3, d, H, W) pushed outwards by a mass."""
        push = displace(frame.points(), mass, self.depth[slab])
        steps = np.array([self.thickness, -self.spacing, self.spacing])  # rows run backwards
        voxels = np.indices(push.shape[1:]) + push[::-1] / steps[:, None, None, None]
        voxels[0] += slab[0]
        images = map_coordinates(self.images, voxels, order=3, mode="nearest", output=np.float32)
        shares = np.stack([map_coordinates(share, voxels, order=1, mode="nearest") for share in self.shares])
        return np.clip(images, 0, 1), shares

    def _noise(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Draw noise as grainy as the scan's, which a painted lesion would lack."""
        noise = gaussian_filter(rng.standard_normal(shape), (0, 0.5, 0.5))
        return noise * self.noise / (noise - gaussian_filter(noise, (0, 1, 1))).std()
