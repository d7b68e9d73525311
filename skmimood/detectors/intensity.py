"""Brightness alone as the anomaly score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import numpy as np

from skmimood.maps.base import UntrainedDetector
from skmimood.maps.residuals import finish_maps
from skmimood.preprocessing.heads import N_BINS, cumulative_histogram, equalise, head_masks, look_up
from skmimood.validation.rules import BOOLEAN, COUNT_OR_ZERO, SMOOTHING, one_of

EQUALISATIONS = ("slice", "training", "none")


class IntensityThreshold(UntrainedDetector):
    """How bright a pixel is: the score that every learnt method for bright lesions has to beat (Meissen et al. 2021).

    The paper equalises the histogram of each volume; here it is of each slice, or of the healthy slices of `fit`.
    Nothing is restored: the "healed" slices are the slices. No parameter but ``fpr`` needs a refit.

    Parameters
    ----------
    equalize : {"slice", "training", "none"}, default="slice"
        ``"slice"``: the score is the share of the slice's own head or brain that is darker. It tolerates any change of
        contrast, but a slice without a lesion scores as high as one that is full of it. ``"training"``: the share of
        healthy heads that is darker, which is right as far as scans are scaled alike. ``"none"``: the intensity.
    bright : bool, default=True
        Whether bright pixels are anomalous; False calls dark ones so.
    smoothing : float in [0, 1000], default=0.0
        Standard deviation in pixels of a Gaussian filter of the maps; the paper removes small components instead.
    erosion : int >= 0, default=0
        Scores are 0 outside the head or brain (see `head_masks`), and within this many pixels of its surface: the scalp
        is as bright as a lesion.
    fpr : float in (0, 1), default=0.01
        Share of the foreground of the healthy slices above ``threshold_``. Fit again to change it.

    Attributes
    ----------
    cumulative_ : ndarray of shape (257,)
        Share of the healthy heads below k / 256, k = 0 .. 256.
    image_shape_, threshold_, calibrated_with_
        See `BasePixelDetector`.

    References
    ----------
    Meissen, Kaissis & Rueckert, Challenging current semi-supervised anomaly segmentation methods for brain MRI, 2021.
    """

    equalize: Annotated[str, one_of(EQUALISATIONS)] = "slice"
    bright: Annotated[bool, BOOLEAN] = True
    smoothing: Annotated[float, SMOOTHING] = 0.0
    erosion: Annotated[int, COUNT_OR_ZERO] = 0

    _arrays: ClassVar[Mapping[str, tuple[int | None, ...]]] = {"cumulative_": (N_BINS + 1,)}

    def _fit(self, healthy: np.ndarray, held_out: float) -> None:
        self.cumulative_ = cumulative_histogram(healthy[head_masks(healthy)])
        self.image_shape_ = healthy.shape[1:]

    def _detect(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images = X.clip(0, 1)
        heads = head_masks(images)
        scores = self._equalised(images, heads)
        return finish_maps(scores if self.bright else 1 - scores, heads, self.smoothing, self.erosion), images

    def _equalised(self, images: np.ndarray, heads: np.ndarray) -> np.ndarray:
        if self.equalize == "slice":
            return equalise(images, heads)
        return look_up(images, self.cumulative_) if self.equalize == "training" else images
