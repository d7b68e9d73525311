"""The head or brain in slices that are scaled to [0, 1], and intensities that are relative to it.

Networks see such slices without the volume. `skmimood.preprocessing.foreground` finds heads in volumes of any unit.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from skmimood.preprocessing.channels import across_channels, brightest

_BACKGROUND = 0.1  # noise of the air around a head stays below this
N_BINS = 256
_CENTRE, _SCALE = 0.4, 0.1  # of standardised slices: more room above the median, for lesions and fat
_DARKEST = 0.01  # of a standardised head, so that it differs from the background
_MARGIN = 1 / 16  # of the longer side: how far inside the head its interior begins
_LEAST_INTERIOR = 50  # pixels; of a smaller interior, the whole head is measured
_LEAST_CORE, _LEAST_CORE_SHARE = 8, 0.002  # pixels of a head without background beside them, of the slice
_LEAST_SPREAD = 1e-3
_SMALLEST_PART = 0.05  # of the largest part's area; the lower lobes of a stripped brain may be separate parts


def head_masks(images: np.ndarray) -> np.ndarray:
    """Find the head or brain in slices (n, H, W) or (n, C, H, W) in [0, 1]; return masks (n, H, W), bool.

    What exceeds 0.1 in any channel, above the noise of the background, without specks of less than 5 % of the largest
    part, and with all that it encloses.
    """
    return np.stack([_head_mask(image) for image in brightest(images)])


def _head_mask(image: np.ndarray) -> np.ndarray:
    labels = ndimage.label(image > _BACKGROUND)[0]
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    is_large = (areas > 0) & (areas >= _SMALLEST_PART * areas.max())
    return ndimage.binary_fill_holes(is_large[labels])


def have_heads(images: np.ndarray) -> np.ndarray:
    """Tell which slices (n, H, W) or (n, C, H, W) in [0, 1] show a head or brain, (n,) bool.

    Black or even slices, noise of the air and specks do not: a part of `head_masks` must have at least 0.2 % of the
    slice, and 8 pixels, without background beside them, and intensities must differ by more than 0.1.
    """
    images = brightest(images)
    least = max(_LEAST_CORE, _LEAST_CORE_SHARE * images[0].size)
    cores = [np.bincount(ndimage.label(core)[0].ravel())[1:] for core in eroded(head_masks(images), 1)]
    is_large = np.array([sizes.max(initial=0) >= least for sizes in cores])
    return is_large & (np.ptp(images, axis=(1, 2)) > _BACKGROUND)


def eroded(masks: np.ndarray, n_pixels: int) -> np.ndarray:
    """Remove from masks (n, H, W) what is within ``n_pixels`` of the background, diagonals counting as one."""
    size = 2 * min(n_pixels, max(masks.shape[1:])) + 1
    return ndimage.minimum_filter(masks, (1, size, size), mode="nearest")


def standardise(images: np.ndarray) -> np.ndarray:
    """Standardise slices (n, H, W), or each channel of slices (n, C, H, W), by the interior of their heads.

    The interior's median becomes 0.4 and a standard deviation 0.1; the result is clipped to [0, 1], and 0 outside the
    head, which is that of all channels.
    """
    heads = head_masks(images)
    centres, spreads = _interior_levels(images, heads)
    standardised = _CENTRE + _SCALE * (images - centres) / spreads
    return np.where(across_channels(heads, images), standardised.clip(_DARKEST, 1), 0).astype(np.float32)


def undo_standardise(standardised: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Return standardised slices in the intensities of ``images``, in [0, 1], and 0 outside their heads."""
    heads = head_masks(images)
    centres, spreads = _interior_levels(images, heads)
    original = centres + (standardised - _CENTRE) / _SCALE * spreads
    return np.where(across_channels(heads, images), original.clip(0, 1), 0).astype(np.float32)


def _interior_levels(images: np.ndarray, heads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return median and standard deviation of the interior of each head, each of shape (n, 1, 1) or (n, C, 1, 1)."""
    levels = []
    interiors = eroded(heads, round(_MARGIN * max(heads.shape[1:])))
    for image, head, interior in zip(images, heads, interiors, strict=True):
        places = interior if interior.sum() >= _LEAST_INTERIOR else head
        for channel in image.reshape(-1, *head.shape):
            measured = channel[places]
            levels.append((np.median(measured), measured.std()) if measured.size else (0.0, 0.0))
    centres, spreads = np.array(levels, np.float32).T.reshape(2, *images.shape[:-2], 1, 1)
    return centres, spreads + _LEAST_SPREAD


def equalise(images: np.ndarray, heads: np.ndarray) -> np.ndarray:
    """Replace intensities by the share of the slice's own head (n, H, W) that is darker; 0 outside the heads."""
    levels = [
        look_up(image, cumulative_histogram(image[head])) for image, head in zip(images, heads, strict=True)
    ]
    return np.where(heads, np.stack(levels), 0).astype(np.float32)


def cumulative_histogram(pixels: np.ndarray) -> np.ndarray:
    """Return the share of pixels below each edge of 256 bins over [0, 1], shape (257,)."""
    counts = np.histogram(pixels.clip(0, 1), N_BINS, (0, 1))[0]
    return np.concatenate([[0], np.cumsum(counts)]) / max(1, len(pixels))


def look_up(images: np.ndarray, cumulative: np.ndarray) -> np.ndarray:
    """Map intensities in [0, 1] to shares by a `cumulative_histogram`."""
    return np.interp(images, np.linspace(0, 1, N_BINS + 1), cumulative)
