"""The first law of planting: lesions of the phantom's kinds, painted into a real brain."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import map_coordinates

from benchmarks.data.planted import Brain, Law
from skmimood.datasets.atlas import Frame
from skmimood.datasets.lesions import LESION_KINDS, Lesion, displace, paint_lesion, plan_lesions


def paint(
    brain: Brain, kind: str, slab: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return some neighbouring slices with a lesion of one kind, and its mask, both (d, H, W)."""
    frame = _frame(brain, slab)
    depth, shares, images = brain.depth[slab], brain.shares[:, slab], brain.images[slab]
    lesions = plan_lesions(kind, frame, depth, shares, rng)
    if kind == "mass":
        images, shares = _displaced(brain, slab, frame, lesions[0])
    mask = np.zeros(images.shape, bool)
    for lesion in lesions:
        images, painted = paint_lesion(images, lesion, frame, shares, brain.levels, rng)
        mask |= painted
    return np.clip(images + mask * brain.grain(images.shape, rng), 0, 1).astype(np.float32), mask


PHANTOM_LESIONS = Law(LESION_KINDS, paint)


def _frame(brain: Brain, slab: np.ndarray) -> Frame:
    _, height, width = brain.images.shape
    x = (np.arange(width) - (width - 1) / 2) * brain.spacing
    y = ((height - 1) / 2 - np.arange(height)) * brain.spacing
    return Frame(x, y, (slab - slab.mean()) * brain.thickness)


def _displaced(brain: Brain, slab: np.ndarray, frame: Frame, mass: Lesion) -> tuple[np.ndarray, np.ndarray]:
    """Return images (d, H, W) and tissue shares (3, d, H, W) pushed outwards by a mass."""
    push = displace(frame.points(), mass, brain.depth[slab])
    steps = np.array([brain.thickness, -brain.spacing, brain.spacing])  # rows run backwards
    voxels = np.indices(push.shape[1:]) + push[::-1] / steps[:, None, None, None]
    voxels[0] += slab[0]
    images = map_coordinates(brain.images, voxels, order=3, mode="nearest", output=np.float32)
    shares = np.stack([map_coordinates(share, voxels, order=1, mode="nearest") for share in brain.shares])
    return np.clip(images, 0, 1), shares
