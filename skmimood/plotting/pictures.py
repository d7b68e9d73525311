"""Slices, maps and masks as pictures of one colour scale: arrays of colours, without figures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from skmimood.exceptions import InputError

if TYPE_CHECKING:
    from skmimood.scans.results import Gallery

COLUMNS = ("scan", "healed", "map", "mask")
"""The pictures of one slice, from left to right."""

COLOUR_MAP = "inferno"
_MASK_COLOUR = (1.0, 0.62, 0.0)
TRUTH_COLOUR = (0.25, 0.78, 0.95)
_FILL = 0.28  # opacity inside an outline


@dataclass(frozen=True)
class ColourScale:
    """The one colour scale of all maps of a model.

    Parameters
    ----------
    threshold : float
        Map value in the middle of the scale: the pixel threshold.
    is_calibrated : bool, default=True
        False if ``threshold`` replaces a pixel threshold that is infinite or not positive.
    """

    threshold: float
    is_calibrated: bool = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.threshold) and self.threshold > 0):
            raise InputError(
                f"The threshold of a colour scale must be positive and finite; got {self.threshold!r}. "
                "Use ColourScale.of(detector), which finds a stand-in."
            )

    @property
    def highest(self) -> float:
        """Map value of the brightest colour: twice the threshold."""
        return 2.0 * self.threshold

    @classmethod
    def of(cls, detector: Any) -> ColourScale:
        """Return the scale of a fitted :class:`skmimood.ScanDetector`.

        It depends only on the pixel threshold, not on the scans that are shown. If that is infinite or not positive,
        half the highest score of a healthy pixel replaces it.
        """
        threshold = float(detector.pixel_threshold_)
        if math.isfinite(threshold) and threshold > 0:
            return cls(threshold)
        highest = float(detector.reference_.pixel_values[-1])
        return cls(highest / 2 if highest > 0 else 0.5, is_calibrated=False)


def gallery_tiles(gallery: Gallery, scale: ColourScale) -> np.ndarray:
    """Return the pictures of a gallery, shape (k, 4, H, W, 3), uint8: scan, healed scan, map and mask."""
    pictures = grey(gallery.images), grey(gallery.healed), coloured(gallery.maps, scale)
    return np.stack([*pictures, overlay(gallery.images, gallery.masks)], axis=1)


def overlay(
    images: np.ndarray, masks: np.ndarray, colour: tuple[float, float, float] = _MASK_COLOUR
) -> np.ndarray:
    """Outline and tint masks (k, H, W) on slices (k, H, W) in [0, 1]; return pictures (k, H, W, 3), uint8."""
    from scipy.ndimage import binary_erosion, generate_binary_structure

    masks = np.asarray(masks, dtype=bool)
    outline = masks & ~binary_erosion(masks, generate_binary_structure(2, 1)[np.newaxis])  # within slices
    opacity = np.where(outline, 1.0, np.where(masks, _FILL, 0.0))[..., np.newaxis]
    mixed = (1 - opacity) * grey(images) + opacity * 255 * np.asarray(colour)
    return mixed.round().astype(np.uint8)


def colour_ramp(width: int = 256) -> np.ndarray:
    """Return the colours from the lowest value to the highest, shape (1, width, 3), uint8."""
    return coloured(np.linspace(0, 2, width)[np.newaxis], ColourScale(1.0))


def grey(images: np.ndarray) -> np.ndarray:
    """Return slices (n, H, W) in [0, 1] as pictures (n, H, W, 3), uint8."""
    levels = (255 * np.clip(images, 0, 1)).round().astype(np.uint8)
    return np.repeat(levels[..., np.newaxis], 3, axis=-1)


def coloured(maps: np.ndarray, scale: ColourScale) -> np.ndarray:
    """Return maps (n, H, W) as pictures (n, H, W, 3), uint8."""
    import matplotlib

    colours = matplotlib.colormaps[COLOUR_MAP](np.clip(maps / scale.highest, 0, 1), bytes=True)
    return np.asarray(colours)[..., :3]
