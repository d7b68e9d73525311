"""From restorations to what is healed: the slice or scan itself wherever nothing was found."""

from __future__ import annotations

import numpy as np


def healing_weights(maps: np.ndarray, threshold: float) -> np.ndarray:
    """Return how much of a restoration maps ask for, of their shape, in [0, 1].

    It is 0 up to the threshold, below which nothing was found, 1 from twice of it on, and rises without a kink between.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        rise = np.nan_to_num(np.log2(maps / float(threshold)), posinf=1).clip(0, 1)
    return rise * rise * (3 - 2 * rise)


def blend(images: np.ndarray, restored: np.ndarray, maps: np.ndarray, threshold: float) -> np.ndarray:
    """Put restorations into images of any one shape, by the evidence of their maps."""
    return images + healing_weights(maps, threshold) * (restored - images)
