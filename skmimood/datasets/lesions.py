"""Lesions planted into the phantom: where they lie, which shape they have and how they look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from skmimood.datasets.atlas import BRAIN_WIDTH, Frame, smooth_field

LESION_KINDS = ("bright", "dark", "texture", "ring", "mass")
# Shares of the brain's width: a ring leaves room for its oedema, and a small mass would displace nothing.
_RADII = {
    "bright": (0.04, 0.11),
    "dark": (0.05, 0.12),
    "texture": (0.07, 0.14),
    "ring": (0.05, 0.085),
    "mass": (0.08, 0.14),
}
_OEDEMA = 1.75  # radius of the oedema over that of the ring it surrounds


@dataclass(frozen=True)
class Lesion:
    """One lesion on a frame: its `kind`, `centre` (x, y, z) in mm in the head frame and mean `radius` in mm.

    `depth` (D, H, W) is that in mm below the lesion's surface, negative outside; `oedema` the same around a ring.
    """

    kind: str
    centre: np.ndarray
    radius: float
    depth: np.ndarray
    oedema: np.ndarray | None = None


def plan_lesions(
    kind: str, frame: Frame, brain_depth: np.ndarray, shares: np.ndarray, rng: np.random.Generator
) -> list[Lesion]:
    """Draw size, place and shape of the lesions of one sample: one large one, or a few smaller ones.

    `brain_depth` (D, H, W) is the depth in mm below the surface of the brain, `shares` (3, D, H, W) are those of white
    matter, grey matter and fluid. Each lesion has its centre on a point of the frame inside the brain.
    """
    smallest, largest = (share * BRAIN_WIDTH for share in _RADII[kind])
    count = 1 if kind in ("ring", "mass") else int(rng.choice([1, 1, 2, 3]))
    largest = smallest + (largest - smallest) / count
    tissue = shares[0] if kind == "ring" else shares[0] + shares[1]  # only white matter swells
    lesions = []
    for _ in range(count):
        radius = rng.uniform(smallest, largest)
        centre = _draw_centre(frame, brain_depth, tissue, radius, rng)
        depth = _irregular_ball(frame, centre, radius, rng)
        oedema = _irregular_ball(frame, centre, radius * _OEDEMA, rng) if kind == "ring" else None
        lesions.append(Lesion(kind, centre, radius, depth, oedema))
    return lesions


def _draw_centre(
    frame: Frame, brain_depth: np.ndarray, tissue: np.ndarray, radius: float, rng: np.random.Generator
) -> np.ndarray:
    """Return a point (x, y, z) in solid tissue from which the lesion does not reach far out of the brain."""
    allowed = brain_depth >= min(0.6 * radius, 0.9 * float(brain_depth.max()))
    solid = allowed & (tissue > 0.7)
    candidates = np.argwhere(solid if solid.any() else allowed)
    k, i, j = candidates[rng.integers(len(candidates))]
    return np.array([frame.x[j], frame.y[i], frame.z[k]])


def _irregular_ball(frame: Frame, centre: np.ndarray, radius: float, rng: np.random.Generator) -> np.ndarray:
    """Return the depth in mm below the surface of a ball whose radius varies smoothly, shape (D, H, W)."""
    axes = rng.uniform(0.8, 1.2, 3)
    offset = (frame.points() - centre[:, None, None, None]) / (radius * axes / axes.mean())[
        :, None, None, None
    ]
    distance = np.sqrt(np.sum(offset**2, axis=0))
    wobble = 0.17 * smooth_field(frame, rng, wavelength=_wavelength(1.6 * radius))[0]
    return (radius * (1 + np.clip(wobble, -0.5, 0.5) - distance)).astype(np.float32)


def _wavelength(length: float) -> float:
    """Return a length in mm, in steps of 2 so that few spectra are needed, and at least 16 to be quick."""
    return max(2.0 * round(length / 2), 16.0)


def displace(points: np.ndarray, lesion: Lesion, brain_depth: np.ndarray) -> np.ndarray:
    """Return the displacement in mm by a mass, from each of `points` (3, D, H, W) to where its tissue came from.

    The mass has destroyed the innermost tissue and pushed the rest aside, and the displacement falls off with the
    distance from there. It fades towards the surface of the brain: the skull does not give way.
    """
    offset = points - lesion.centre[:, None, None, None].astype(np.float32)
    distance = np.maximum(np.sqrt(np.sum(offset**2, axis=0)), 1e-3)
    outside = np.maximum(-lesion.depth, 0)
    push = 0.7 * lesion.radius * np.exp(-outside / (1.6 * lesion.radius))
    push *= np.clip(brain_depth / 12.0, 0, 1)
    return -offset / distance * np.minimum(push, 0.95 * distance)


def paint_lesion(
    image: np.ndarray,
    lesion: Lesion,
    frame: Frame,
    shares: np.ndarray,
    levels: Mapping[str, float],
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Paint a lesion into an image (D, H, W) without noise; return the image, and where it was painted (bool).

    `shares` are as in `plan_lesions`, `levels` the intensities of "white", "grey" and "csf". A mass has displaced the
    anatomy before.
    """
    brain = shares.sum(axis=0) > 0.5
    mask = (lesion.depth >= 0) & brain
    low, high = sorted((levels["white"], levels["grey"]))
    uneven = smooth_field(frame, rng, wavelength=_wavelength(lesion.radius))[0]
    if lesion.kind == "bright":
        value = high + rng.uniform(0.18, 0.34) + 0.04 * uneven
    elif lesion.kind == "dark":
        value = np.maximum(low - rng.uniform(0.35, 0.7) * low + 0.03 * uneven, 0.05)
    elif lesion.kind == "texture":
        value = _scrambled(image, mask, rng, grain=2.2 / frame.pixel)
    elif lesion.kind == "mass":
        value = rng.uniform(low, high) + 0.25 * (high - low) * uneven
    else:  # a ring: a core of fluid, a solid rim, and oedema that spreads through white matter only
        assert lesion.oedema is not None
        # Oedema is bright on T2 and FLAIR, dark on T1.
        brightens = levels["csf"] > high or levels["grey"] > levels["white"]
        swollen = high + rng.uniform(0.12, 0.24) if brightens else low - rng.uniform(0.08, 0.16)
        oedema = ((lesion.oedema >= 0) & brain & (shares[0] > 0.6)) | mask
        image = _blend(image, swollen + 0.03 * uneven, lesion.oedema, oedema, frame, edge=4.0)
        solid = 0.5 * (low + high) + rng.uniform(-0.05, 0.05) + 0.03 * uneven
        image = _blend(image, solid, lesion.depth, mask, frame)
        core_depth = lesion.depth - max(0.35 * lesion.radius, 1.2 * frame.pixel)
        necrosis = levels["csf"] + (0.35 if levels["csf"] < low else -0.1) * abs(levels["csf"] - low)
        return _blend(image, necrosis + 0.02 * uneven, core_depth, mask & (core_depth >= 0), frame), oedema
    return _blend(image, value, lesion.depth, mask, frame), mask


def _blend(
    image: np.ndarray, value: np.ndarray, depth: np.ndarray, mask: np.ndarray, frame: Frame, edge: float = 1.5
) -> np.ndarray:
    """Mix `value` into `image`: half at the mask's edge, fully `edge` mm below it, nothing outside."""
    edge = max(edge, 0.5 * frame.pixel)
    weight = np.where(mask, np.clip(0.5 + depth / (2 * edge), 0.5, 1), 0)
    return image + weight * (value - image)


def _scrambled(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator, *, grain: float) -> np.ndarray:
    """Return a grainy texture with the mean of the image under the mask and no anatomy.

    Its intensities are ones that healthy tissue has, so that only their arrangement gives it away.
    """
    grains = ndimage.gaussian_filter(rng.standard_normal(image.shape), (0, *[max(grain, 0.6)] * 2))
    grains /= grains.std()
    under = image[mask]
    return np.maximum(np.median(under) + np.clip(under.std(), 0.08, 0.12) * grains, 0.05)
