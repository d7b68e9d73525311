"""The channels of slices: (n, H, W) has one, (n, C, H, W) has C, such as the modalities of registered scans.

What looks at slices takes both. Heads, maps and masks have no channels: they are (n, H, W) for slices of either shape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Slices = TypeVar("Slices", np.ndarray, "Tensor")


def with_channels(images: Slices) -> Slices:
    """Return slices (n, H, W) or (n, C, H, W) with an axis of channels, (n, C, H, W), as networks take them."""
    return images if images.ndim == 4 else images[:, None]


def n_channels(images: np.ndarray) -> int:
    """Return how many channels slices (n, H, W) or (n, C, H, W) have."""
    return images.shape[1] if images.ndim == 4 else 1


def across_channels(maps: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Return maps (n, H, W) in the shape that goes with each channel of slices (n, H, W) or (n, C, H, W)."""
    return maps if images.ndim == 3 else maps[:, None]


def first_channel(images: np.ndarray) -> np.ndarray:
    """Return slices (n, H, W), or the first channel of slices (n, C, H, W): what pictures show."""
    return images if images.ndim == 3 else images[:, 0]


def brightest(images: np.ndarray) -> np.ndarray:
    """Return what any channel of slices (n, H, W) or (n, C, H, W) shows, (n, H, W)."""
    return images if images.ndim == 3 else images.max(axis=1)
