"""The second law of planting: tumours that grow in a real brain as gliomas do, by reaction and diffusion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from benchmarks.data.planted import Brain, Law

_GREY_OVER_WHITE = 0.2  # diffusion in grey matter over that in white matter (Swanson et al. 2000)
_VISIBLE = 0.2  # density of cells above which the change of intensity is seen; the mask
_SATURATED = 0.6  # ... and beyond which tissue does not become darker
_SEED_DENSITY, _MAX_STEPS = 0.5, 1000
_SEED_DEPTH = 8.0  # mm below the surface of the brain
_CLOSED = 4.0  # mm: swollen tissue closes what is narrower, such as sulci
_COIL = 15.0  # mm: the brightness of a scan does not vary within less
_UNEVEN, _PATCH = 0.35, 8.0  # the logarithm of the growth's rate varies by this much over so many mm


@dataclass(frozen=True)
class Grade:
    """How a kind of tumour grows and looks."""

    widths: tuple[float, float]  # mm: sqrt(diffusion / rate), of which the blur of the edge is a multiple
    radii: tuple[float, float]  # mm: of a ball as large as what is denser than `until` at the end
    until: float  # density of cells
    has_core: bool = False  # which is necrotic, beyond ``until``
    has_rim: bool = False  # which enhances contrast, around the core

    @property
    def reach(self) -> float:
        """How far in mm from where it began a tumour can be seen, at most."""
        return 1.6 * self.radii[1] + 10 * self.widths[1]


GRADES = {
    "diffuse": Grade((1.2, 2.8), (9.0, 24.0), _VISIBLE),
    "necrotic": Grade((1.0, 1.8), (4.5, 13.0), 0.85, has_core=True),
    "enhancing": Grade((1.2, 2.0), (4.5, 13.0), 0.85, has_core=True, has_rim=True),
}


def grow(
    brain: Brain, kind: str, slab: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return some neighbouring slices with a tumour of one kind, and its mask, both (d, H, W).

    The density of its cells follows Fisher's and Kolmogorov's equation, dc/dt = div(D grad c) + r c (1 - c), with a D
    that is five times as large in white as in grey matter and 0 in fluid, and no flux out of the brain (Swanson et al.
    2000, Cell Prolif. 33: 317). On T1, tissue is the darker the more cells there are.
    """
    grade = GRADES[kind]
    seed = _place(brain, slab[len(slab) // 4 : -(len(slab) // 4) or None], rng)
    voxel = _voxel(brain)
    near = tuple(
        slice(max(0, int(at - n)), int(at + n + 1))
        for at, n in zip(seed, np.ceil(grade.reach / voxel), strict=True)
    )
    density = np.zeros(brain.images.shape, np.float32)
    density[near] = _grown(
        grade, brain.shares[(slice(None), *near)], seed - [part.start for part in near], voxel, rng
    )
    density = density[slab]
    return _seen(grade, brain, slab, density, rng), density > _VISIBLE


GLIOMAS = Law((*GRADES,), grow)


def _grown(
    grade: Grade, shares: np.ndarray, seed: np.ndarray, voxel: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return the density of cells (d, h, w) in [0, 1] of what began at a voxel, in tissue of shares (3, d, h, w)."""
    white, grey, passable = _closed(shares, voxel)
    width = rng.uniform(*grade.widths)
    radius = np.exp(rng.uniform(*np.log(grade.radii)))
    target = 4 / 3 * np.pi * radius**3 / voxel.prod()
    # Time is in units of 1 / r, and lengths are in mm: then r is 1, and D in white matter width ** 2.
    diffusion = width**2 * (white + _GREY_OVER_WHITE * grey) * passable
    conductances = [_between(diffusion, axis) / voxel[axis] ** 2 for axis in range(3)]
    rate = np.exp(_UNEVEN * _patches(passable.shape, _PATCH / voxel, rng)) * passable
    step = min(0.9 / (2 * width**2 * (1 / voxel**2).sum()), 0.2 / rate.max())
    density = np.zeros(passable.shape, np.float32)
    density[tuple(seed)] = _SEED_DENSITY
    for _ in range(_MAX_STEPS):
        change = rate * density * (1 - density)
        for axis, conductance in enumerate(conductances):
            flux = conductance * np.diff(density, axis=axis)
            change += np.diff(flux, axis=axis, prepend=0, append=0)
        density += step * change
        if (density > grade.until).sum() >= target:
            break
    return density * passable


def _closed(shares: np.ndarray, voxel: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return shares of white and grey matter without narrow sulci, and where cells can be (0 to 1), all (d, h, w)."""
    inside = shares.sum(0)
    around = np.maximum(gaussian_filter(inside, _CLOSED / 2 / voxel), 1e-6)
    white, grey = (gaussian_filter(share, _CLOSED / 2 / voxel) / around for share in shares[:2])
    return white, grey, inside * np.clip((white + grey - 0.3) / 0.4, 0, 1)


def _between(diffusion: np.ndarray, axis: int) -> np.ndarray:
    """Return the harmonic means of neighbours: nothing passes where either lets nothing through."""
    first, second = (np.moveaxis(diffusion, axis, 0)[part] for part in (slice(None, -1), slice(1, None)))
    mean = 2 * first * second / np.maximum(first + second, 1e-9)
    return np.moveaxis(mean, 0, axis)


def _place(brain: Brain, slab: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a voxel (slice, row, column) of solid tissue, white matter rather than grey, in one of the slices."""
    white, grey, _ = brain.shares[:, slab]
    depth = brain.depth[slab]
    weights = ((white + grey > 0.9) & (depth >= min(_SEED_DEPTH, depth.max()))) * (white + 0.5 * grey)
    weights = weights if weights.any() else white + grey
    chosen = rng.choice(weights.size, p=weights.ravel() / weights.sum())
    k, i, j = np.unravel_index(chosen, weights.shape)
    return np.array([slab[k], i, j])


def _patches(shape: tuple[int, ...], sizes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a smooth field of unit variance, with patches of ``sizes`` voxels."""
    field = gaussian_filter(rng.standard_normal(shape).astype(np.float32), sizes / 2, mode="wrap")
    return field / field.std()


def _seen(
    grade: Grade, brain: Brain, slab: np.ndarray, density: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return what T1 shows of slices with a density of cells (d, H, W)."""
    images, voxel = brain.images[slab], _voxel(brain)
    gain = _gain(brain, slab)
    fluid, grey, white = (brain.levels[name] * gain for name in ("csf", "grey", "white"))
    uneven = 0.12 * (grey - fluid) * _patches(images.shape, 5.0 / voxel, rng)
    # Swollen and infiltrated tissue: in proportion to its cells between what it was and a level below grey matter.
    swollen = grey - rng.uniform(0.25, 0.7) * (grey - fluid) + uneven
    weight = rng.uniform(0.8, 1.0) * np.minimum(density / _SATURATED, 1)
    seen, replaced = images + weight * (swollen - images), weight
    if grade.has_rim:
        weight = rng.uniform(0.7, 1.0) * _step(density, grade.until - rng.uniform(0.3, 0.45))
        seen += weight * (white + rng.uniform(0.15, 0.35) * (white - fluid) + uneven - seen)
        replaced = np.maximum(replaced, weight)
    if grade.has_core:
        weight = _step(density, grade.until)
        seen += weight * (fluid + rng.uniform(0.1, 0.35) * (grey - fluid) + uneven / 2 - seen)
        replaced = np.maximum(replaced, weight)
    # What has replaced tissue lacks the noise of the scan.
    seen += np.sqrt(1 - (1 - replaced) ** 2) * brain.grain(images.shape, rng)
    return np.clip(seen, 0, 1).astype(np.float32)


def _gain(brain: Brain, slab: np.ndarray) -> np.ndarray:
    """Return how bright slices are from place to place, (d, H, W), about 1: the coil's sensitivity."""
    shares, blur = brain.shares[:, slab], _COIL / _voxel(brain)
    expected = sum(
        brain.levels[name] * share for name, share in zip(("white", "grey", "csf"), shares, strict=True)
    )
    inside = shares.sum(0)
    observed, expected = (gaussian_filter(inside * part, blur) for part in (brain.images[slab], expected))
    return observed / np.maximum(expected, 1e-3)


def _step(density: np.ndarray, threshold: float) -> np.ndarray:
    """Return 0 below and 1 above a density, with a soft edge."""
    return np.clip((density - threshold) / 0.1 + 0.5, 0, 1)


def _voxel(brain: Brain) -> np.ndarray:
    return np.array([brain.thickness, brain.spacing, brain.spacing])
