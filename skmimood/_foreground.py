"""The head or brain in slices, found by intensity."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

_BACKGROUND = 0.1  # noise of the air around a head stays below this
_SMALLEST_PART = 0.05  # of the largest part's area; the lower lobes of a stripped brain may be separate parts


def head_masks(images: np.ndarray) -> np.ndarray:
    """Find the head or brain in slices (n, H, W) in [0, 1]; return masks (n, H, W), bool.

    What exceeds 0.1, above the noise of the background, without specks of less than 5 % of the largest part, and with
    all that it encloses.
    """
    return np.stack([_head_mask(image) for image in images])


def _head_mask(image: np.ndarray) -> np.ndarray:
    labels = ndimage.label(image > _BACKGROUND)[0]
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    is_large = (areas > 0) & (areas >= _SMALLEST_PART * areas.max())
    return ndimage.binary_fill_holes(is_large[labels])


def eroded(masks: np.ndarray, n_pixels: int) -> np.ndarray:
    """Remove from masks (n, H, W) what is within ``n_pixels`` of the background, diagonals counting as one."""
    size = (1, 2 * n_pixels + 1, 2 * n_pixels + 1)
    return ndimage.minimum_filter(masks, size, mode="nearest")
