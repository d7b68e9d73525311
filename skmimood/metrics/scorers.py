"""Scorers for scikit-learn's model selection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from skmimood.exceptions import InputError
from skmimood.metrics._checks import check_masks, warn_undefined
from skmimood.metrics.pixels import auroc, average_precision, best_dice


def pixel_average_precision_scorer(estimator: Any, X: Any, y: Any) -> float:
    """Score an estimator by the average precision of its maps; pass it as ``scoring=`` to `GridSearchCV`.

    Parameters
    ----------
    estimator : object
        Fitted, with ``decision_function(X)`` returning maps of the shape of `y`.
    X : array-like of shape (n, H, W)
        Images.
    y : array-like of numbers, shape (n, H, W)
        Lesion masks: what is not 0 is lesion, as in `fit`.

    Returns
    -------
    float
        Higher is better. On a fold without lesions it is nan, after an `UndefinedMetricWarning`: put
        samples with lesions in every test fold, for instance with `PredefinedSplit`.
    """
    return _score_pixels(average_precision, estimator, X, y)


def pixel_best_dice_scorer(estimator: Any, X: Any, y: Any) -> float:
    """Score by the best achievable Dice coefficient (`best_dice`); else as `pixel_average_precision_scorer`."""
    return _score_pixels(best_dice, estimator, X, y)


def pixel_auroc_scorer(estimator: Any, X: Any, y: Any) -> float:
    """Score by the AUROC of the maps; else as `pixel_average_precision_scorer`."""
    return _score_pixels(auroc, estimator, X, y)


def _score_pixels(metric: Callable[..., Any], estimator: Any, X: Any, y: Any) -> float:
    if y is None:
        raise InputError("A pixel scorer needs lesion masks; got y=None. Pass them as y to fit or score.")
    masks = check_masks("y", y)
    if not masks.any():  # known before the maps are computed, which may take minutes
        warn_undefined("The score of this fold")
        return np.nan
    return float(metric(masks, estimator.decision_function(X)))
