"""Lesion-wise detection: connected components instead of pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from skmimood.exceptions import InputError
from skmimood.metrics._checks import check_binary


@dataclass(frozen=True)
class LesionDetection:
    """Lesions found and false alarms raised, counted as connected components.

    Attributes
    ----------
    n_images, n_lesions, n_detected : int
        Numbers of images, of lesions in them, and of those lesions that were detected.
    n_detections, n_false_positives : int
        Numbers of detected components, and of those that touch no lesion.
    """

    n_images: int
    n_lesions: int
    n_detected: int
    n_detections: int
    n_false_positives: int

    @property
    def recall(self) -> float:
        """Share of lesions that were detected; nan without lesions."""
        return self.n_detected / self.n_lesions if self.n_lesions else np.nan

    @property
    def precision(self) -> float:
        """Share of detected components that touch a lesion; nan without detections."""
        return 1 - self.n_false_positives / self.n_detections if self.n_detections else np.nan

    @property
    def false_positives_per_image(self) -> float:
        """Mean number of false alarms in an image."""
        return self.n_false_positives / self.n_images


def lesion_detection(
    y_true: Any, y_pred: Any, *, min_overlap: float = 0.1, min_size: int = 1
) -> LesionDetection:
    """Count the lesions that a mask detects, and its false alarms.

    Pixels are connected across edges and corners. A volume (n, D, H, W) has three-dimensional components.

    Parameters
    ----------
    y_true, y_pred : array-like of bool, shape (n_images, ...)
        Lesion masks, and detected masks: scores above a threshold.
    min_overlap : float, default=0.1
        Share of its pixels that must be detected for a lesion to count as detected, in (0, 1].
    min_size : int, default=1
        Detected components of fewer pixels are ignored.

    Raises
    ------
    InputError
        If shapes differ, masks are not binary, or `min_overlap` is out of range.
    """
    truth, detected = check_binary("y_true", y_true), check_binary("y_pred", y_pred)
    if truth.ndim < 3 or truth.shape != detected.shape:
        raise InputError(
            f"y_true and y_pred must have one shape (n_images, height, width); got {truth.shape} and "
            f"{detected.shape}. For one image pass mask[np.newaxis]."
        )
    if not 0 < min_overlap <= 1:
        raise InputError(f"min_overlap must be in (0, 1]; got {min_overlap!r}. It is a share of a lesion.")
    counts = [
        _count_components(lesions, detections, min_overlap, min_size)
        for lesions, detections in zip(truth, detected, strict=True)
    ]
    return LesionDetection(len(truth), *np.array(counts, dtype=int).reshape(-1, 4).sum(axis=0).tolist())


def _count_components(
    truth: np.ndarray, detected: np.ndarray, min_overlap: float, min_size: int
) -> tuple[int, ...]:
    """Return the numbers of lesions, detected lesions, detections and false detections in one image."""
    neighbours = np.ones((3,) * truth.ndim, dtype=int)
    lesions, n_lesions = ndimage.label(truth, neighbours)
    found, n_found = ndimage.label(detected, neighbours)
    is_large = ndimage.sum_labels(detected, found, np.arange(n_found + 1)) >= min_size
    is_large[0] = False
    overlaps = ndimage.mean(is_large[found], lesions, np.arange(1, n_lesions + 1))
    touches = ndimage.maximum(truth, found, np.arange(n_found + 1)).astype(bool)
    return (
        n_lesions,
        int((overlaps >= min_overlap).sum()),
        int(is_large.sum()),
        int((is_large & ~touches).sum()),
    )
