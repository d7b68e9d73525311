"""How far a pixel is from the healthy mean, in healthy standard deviations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from skmimood.exceptions import InputError
from skmimood.maps.base import UntrainedDetector
from skmimood.maps.residuals import RESIDUALS, finish_maps
from skmimood.preprocessing.heads import head_masks
from skmimood.preprocessing.thumbnails import thumbnails
from skmimood.validation.rules import COUNT, COUNT_OR_ZERO, FINITE_POSITIVE, SMOOTHING, one_of


class HealthyZScore(UntrainedDetector):
    """Distance of each pixel to the mean of the healthy slices, in their standard deviations at that pixel.

    It is made for scans that are aligned to one another. The slices of a stack show different levels of the head, so
    ``n_templates`` groups the healthy slices by likeness, and a slice is compared with the nearest group.

    Parameters
    ----------
    n_templates : int, default=1
        Groups of like healthy slices (k-means of slices reduced to 16 x 16 pixels), each with its own mean and
        deviation. 1 is right for slices at one level; for stacks take about one for every 10 mm. Needs a refit.
    floor : float > 0, default=0.05
        Smallest standard deviation, in intensity, for where all healthy slices agree. No refit needed.
    residual : {"absolute", "positive"}, default="absolute"
        ``"positive"`` counts only pixels brighter than the mean. No refit needed.
    smoothing : float in [0, 1000], default=0.0
        Standard deviation in pixels of a Gaussian filter of the maps. No refit needed.
    erosion : int >= 0, default=0
        See `IntensityThreshold`. No refit needed.
    fpr : float in (0, 1), default=0.01
        Share of the foreground of the healthy slices above ``threshold_``. The means come from the same slices, so with
        few slices a template the threshold is too low. Fit again to change it.
    random_state : int, RandomState instance or None, default=None
        Seeds k-means.

    Attributes
    ----------
    templates_ : ndarray of shape (k, 2, H, W), float32
        Mean and standard deviation of each group; k is ``n_templates``, or less if fewer slices differ.
    image_shape_, threshold_, calibrated_with_
        See `BasePixelDetector`.
    """

    n_templates: Annotated[int, COUNT] = 1
    floor: Annotated[float, FINITE_POSITIVE] = 0.05
    residual: Annotated[str, one_of(RESIDUALS)] = "absolute"
    smoothing: Annotated[float, SMOOTHING] = 0.0
    erosion: Annotated[int, COUNT_OR_ZERO] = 0
    random_state: Any = None

    _arrays: ClassVar[Mapping[str, tuple[int | None, ...]]] = {"templates_": (None, 2, None, None)}
    _learnt = ("threshold_", "calibrated_with_")

    def _fit(self, healthy: np.ndarray, held_out: float) -> None:
        if self.n_templates > len(healthy):
            raise InputError(
                f"n_templates={self.n_templates} groups cannot be made of {len(healthy)} healthy slices. Pass more "
                "slices or lower n_templates."
            )
        groups = KMeans(self.n_templates, n_init=4, random_state=self.random_state)
        with threadpool_limits(1, user_api="openmp"):  # a forked process has no others
            labels = groups.fit_predict(thumbnails(healthy))
        members = [healthy[labels == label].astype(np.float64) for label in np.unique(labels)]
        self.templates_ = np.stack([[m.mean(0), m.std(0)] for m in members]).astype(np.float32)

    @property
    def image_shape_(self) -> tuple[int, int]:
        """Height and width seen in fit."""
        return self.templates_.shape[2:]

    def _detect(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        distance = thumbnails(X)[:, None] - thumbnails(self.templates_[:, 0])  # (n, k, 256)
        nearest = np.square(distance).sum(2).argmin(1)
        mean, deviation = self.templates_[nearest].swapaxes(0, 1)
        difference = X - mean
        scores = difference.clip(min=0) if self.residual == "positive" else np.abs(difference)
        scores /= np.maximum(deviation, np.float32(self.floor))
        return finish_maps(scores, head_masks(X), self.smoothing, self.erosion), mean
