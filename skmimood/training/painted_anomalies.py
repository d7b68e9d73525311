"""Anomalies painted into healthy slices, from which a detector learns what departs from healthy anatomy.

Shapes and contents are general on purpose: they imitate no real lesion, and none of those that `skmimood.datasets`
plants for evaluation. The idea is that of foreign patch interpolation (Tan et al. 2020) and of the synthetic anomalies
of DISYRE (Naval Marimont et al. 2023); shapes and ranges are ours.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from skmimood.preprocessing.channels import brightest, with_channels

_FOREGROUND = 0.02  # intensity above which a pixel can be painted over
_MIN_PIXELS = 4
_VISIBLE = 0.04  # least change of intensity that counts as anomalous
_ONE_CHANNEL = 1 / 3  # of the anomalies in slices of several channels, those that show in one alone


def paint_anomalies(images: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Paint one to three anomalies into each healthy slice (n, H, W) or (n, C, H, W), float32 in [0, 1].

    In several channels an anomaly has one shape and contents of its own in each, and one of three shows in one channel
    alone. Returns the painted slices, and where any channel has visibly changed, (n, H, W), bool.
    """
    n = len(images)
    foreign = images[(np.arange(n) + rng.integers(1, max(2, n), n)) % n]
    pairs = zip(with_channels(images), with_channels(foreign), strict=True)
    painted = np.stack([_paint(one, other, rng) for one, other in pairs]).reshape(images.shape)
    return painted, brightest(np.abs(painted - images)) > _VISIBLE


def _paint(image: np.ndarray, foreign: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a slice (C, H, W) with anomalies; another one lends its contents."""
    foreground = (image > _FOREGROUND).any(axis=0)
    places = np.argwhere(foreground)
    if not len(places):
        return image
    painted = list(image)
    for _ in range(rng.choice([1, 1, 2, 3])):
        weight = _blob(foreground.shape, places[rng.integers(len(places))], rng) * foreground
        if (weight > 0.5).sum() < _MIN_PIXELS:
            continue
        for channel in _drawn_channels(len(painted), rng):
            before = painted[channel]
            content = _content(before, weight > 0.5, foreign[channel], rng)
            painted[channel] = np.clip(before + rng.uniform(0.6, 1.0) * weight * (content - before), 0, 1)
    return np.stack(painted).astype(np.float32)


def _drawn_channels(n_channels: int, rng: np.random.Generator) -> list[int]:
    """Draw in which channels an anomaly shows."""
    if n_channels > 1 and rng.random() < _ONE_CHANNEL:
        return [int(rng.integers(n_channels))]
    return list(range(n_channels))


def _blob(shape: tuple[int, ...], centre: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return weights (H, W) in [0, 1] of an ellipse with a wavy outline and a soft edge."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    down, right = rows - centre[0], columns - centre[1]
    tilt, stretch = rng.uniform(0, np.pi), np.sqrt(rng.uniform(1, 1.8))
    along = (np.cos(tilt) * right + np.sin(tilt) * down) / stretch
    across = (np.cos(tilt) * down - np.sin(tilt) * right) * stretch
    angle = np.arctan2(across, along)
    outline = np.ones(shape)
    for wave in range(2, 7):
        outline += rng.normal(0, 0.22 / wave**0.7) * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    radius = max(shape) * np.exp(rng.uniform(np.log(0.025), np.log(0.16)))
    depth = radius * np.maximum(outline, 0.25) - np.hypot(along, across)  # pixels below the surface
    return np.clip(depth / rng.uniform(0.5, 3.5) + 0.5, 0, 1)


def _grains(shape: tuple[int, ...], size: float, rng: np.random.Generator) -> np.ndarray:
    """Return smooth noise (H, W) of unit variance with grains of ``size`` pixels."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), size)
    return noise / noise.std()


def _sign(rng: np.random.Generator) -> float:
    return float(rng.choice([-1.0, 1.0]))


def _content(
    image: np.ndarray, inside: np.ndarray, foreign: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return what a blob shows (H, W), from the slice, where the blob is (bool), and another slice, all (H, W)."""
    kind = rng.integers(5)
    if kind == 0:  # shifted
        return image + _sign(rng) * rng.uniform(0.1, 0.6)
    if kind == 1:  # shifted unevenly
        shift = _sign(rng) * rng.uniform(0.1, 0.5)
        return image + shift + 0.12 * _grains(image.shape, rng.uniform(1, 6), rng)
    if kind == 2:  # scaled
        return image * rng.choice([rng.uniform(0.0, 0.7), rng.uniform(1.3, 2.2)])
    if kind == 3:  # one grainy level, through which some of the anatomy shines
        level, graininess = rng.uniform(0, 1), rng.uniform(0, 0.1)
        texture = graininess * _grains(image.shape, rng.uniform(0.7, 3), rng)
        return level + texture + rng.uniform(0, 0.5) * (image - image[inside].mean())
    # the other slice, moved
    down, right = (rng.integers(-(side // 3), side // 3 + 1) for side in image.shape)
    return np.roll(foreign, (down, right), axis=(0, 1))
