"""What every last step offers, whatever makes its maps: maps, healed slices, masks and a calibrated threshold."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from typing import Any

import numpy as np

from skmimood._slice_estimator import SliceEstimator
from skmimood._training import split_validation
from skmimood.calibration import HealthyReference
from skmimood.exceptions import SkmimoodWarning
from skmimood.scans import TokenizedScans

_MAX_CALIBRATION_SLICES = 32


class BasePixelDetector(SliceEstimator):
    """Base of the last steps of a pipeline, from slices or their tokens to pixel maps.

    Subclasses implement `detect` and ``_inference_parameters``, and call ``_calibrate`` at the end of `fit`.

    Attributes
    ----------
    threshold_ : float
        Map value above which `predict` calls a pixel anomalous: exceeded by a share ``fpr`` of the foreground
        (intensity above 0) of the healthy slices that were held out of the training.
    calibrated_with_ : dict
        The inference parameters that it belongs to.
    """

    fpr: float
    threshold_: float
    calibrated_with_: dict[str, Any]

    @abstractmethod
    def detect(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the anomaly maps and the healed slices, each (n, H, W) float32."""

    @abstractmethod
    def _inference_parameters(self, X: Any) -> dict[str, Any]:
        """Return every parameter that changes maps but needs no refit."""

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the pixel anomaly maps, shape (n, H, W), float32; higher is more anomalous."""
        return self.detect(X)[0]

    def transform(self, X: Any) -> np.ndarray:
        """Return the healed slices, shape (n, H, W), float32 in [0, 1]."""
        return self.detect(X)[1]

    def predict(self, X: Any) -> np.ndarray:
        """Return masks (n, H, W), bool: map values above ``threshold_``."""
        maps = self.decision_function(X)
        if self._inference_parameters(X) != self.calibrated_with_:
            warnings.warn(
                "threshold_ was calibrated with other inference parameters; fit again (trained networks come "
                "from the cache) or set threshold_ yourself.",
                SkmimoodWarning, stacklevel=2,
            )  # fmt: skip
        return maps > self.threshold_

    def score(self, X: Any, y: Any) -> float:
        """Return the average precision over all pixels of masks ``y`` (n, H, W)."""
        from skmimood.metrics import pixel_average_precision_scorer

        return pixel_average_precision_scorer(self, X, y)

    def _calibrate(self, X: Any) -> None:
        """Set ``threshold_`` on the foreground of healthy slices, which were best held out of the training."""
        n_slices = min(len(X), _MAX_CALIBRATION_SLICES)
        X = X[np.linspace(0, len(X) - 1, n_slices).astype(int)]
        maps = self.decision_function(X)
        foreground = (X.images if isinstance(X, TokenizedScans) else X) > 0
        pixels = maps[foreground] if foreground.any() else maps
        self.threshold_ = HealthyReference.from_scans([(pixels, 0.0)]).pixel_threshold(self.fpr)
        self.calibrated_with_ = self._inference_parameters(X)


def held_out_slices(X: Any, share: float) -> Any:
    """Return the share at the end of ``X`` that a training holds out; all, with a warning, if it holds out none."""
    held_out = split_validation(len(X), share)[1]
    if len(held_out):
        return X[held_out]
    warnings.warn(
        f"threshold_ is calibrated on the {len(X)} training slices themselves, since none were held out, and "
        "will be too low. Pass more slices or raise validation_fraction.",
        SkmimoodWarning, stacklevel=3,
    )  # fmt: skip
    return X
