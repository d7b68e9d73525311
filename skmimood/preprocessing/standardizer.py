"""Slices whose intensities mean the same from scan to scan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.utils.validation import check_is_fitted

from skmimood.exceptions import ModelLoadError
from skmimood.preprocessing.heads import standardise
from skmimood.validation.estimator import SliceEstimator
from skmimood.validation.images import check_images


class SliceStandardizer(TransformerMixin, SliceEstimator):
    """Standardise each slice by median and standard deviation of the interior of its head.

    A scan with its scalp is scaled by the scalp; the contrast of its brain, and with it the size of a residual, then
    differs from scan to scan. Here the median of the interior, which begins 1/16 of the slice's longer side inside the
    head, becomes 0.4 and a standard deviation 0.1; the result is clipped to [0, 1], and 0 outside the head. Each of
    several channels is measured by itself, inside the head that any of them shows. A first step before a detector of
    slices; `VQTokenizer` does the same with ``standardize=True``. Not a part of MIM-OOD.

    Attributes
    ----------
    image_shape_ : tuple of int
        Height and width seen in fit, after the number of channels where slices have them.
    """

    def fit(self, X: Any, y: Any = None, groups: Any = None) -> SliceStandardizer:
        """Note the shape of slices ``X`` (n, H, W) or (n, C, H, W); nothing else is learnt, the others are ignored."""
        self.image_shape_ = check_images(X).shape[1:]
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the slices ``X`` in [0, 1], of the shape seen in fit, standardised: float32 in [0, 1]."""
        check_is_fitted(self)
        return standardise(check_images(X, self.image_shape_))

    def __skmimood_state__(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return what was learnt, for `skmimood.save_model`."""
        return {}, {"image_shape_": list(self.image_shape_)}

    def __skmimood_restore__(self, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> None:
        """Set what was learnt."""
        shape = values.get("image_shape_", [])
        if arrays or set(values) != {"image_shape_"} or not _is_size(shape):
            raise ModelLoadError(
                f"SliceStandardizer should have learnt image_shape_ alone; the file has {dict(values)}."
            )
        self.image_shape_ = tuple(shape)


def _is_size(shape: Any) -> bool:
    return (
        isinstance(shape, list) and len(shape) in (2, 3) and all(isinstance(n, int) and n > 0 for n in shape)
    )
