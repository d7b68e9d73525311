"""What the metrics have in common: checked labels, and the warning where a metric is undefined."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from skmimood.exceptions import InputError
from skmimood.validation.images import as_array


def check_binary(name: str, values: Any) -> np.ndarray:
    """Return labels as bool, any shape."""
    labels = as_array(name, values)
    if labels.dtype == bool:
        return labels
    if labels.dtype.kind not in "iuf" or not np.isin(labels, (0, 1)).all():
        raise InputError(f"{name} must hold only 0 and 1. For a map of several labels pass labels > 0.")
    return labels.astype(bool)


def check_masks(name: str, values: Any) -> np.ndarray:
    """Return masks as bool, any shape: whatever is not 0 is lesion."""
    masks = as_array(name, values)
    if masks.dtype.kind not in "biuf" or np.isnan(masks).any():
        raise InputError(f"{name} must hold numbers, 0 outside of lesions; got {masks.dtype}. Pass masks.")
    return masks != 0


def warn_undefined(what: str, missing: str = "lesion") -> None:
    from sklearn.exceptions import UndefinedMetricWarning

    warnings.warn(
        f"{what} is undefined without {missing} pixels and is set to nan. Evaluate on images that have some.",
        UndefinedMetricWarning,
        stacklevel=3,
    )
