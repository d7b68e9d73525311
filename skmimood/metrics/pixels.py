"""Metrics over pooled pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

from skmimood.exceptions import InputError
from skmimood.metrics._checks import check_binary, warn_undefined
from skmimood.validation.images import as_array


def best_dice(y_true: Any, y_score: Any, *, where: Any = None, return_threshold: bool = False) -> Any:
    """Compute the best Dice coefficient that any one threshold can reach ([DICE] in [1]_).

    The threshold is chosen with the labels, so this is an upper bound of what a threshold fixed beforehand reaches. It
    is exact: every distinct score is tried as a threshold, after one sort.

    Parameters
    ----------
    y_true : array-like of bool, any shape
        Lesion masks.
    y_score : array-like of float, same shape
        Anomaly scores.
    where : array-like of bool, same shape, optional
        Pixels to count, for instance those of the brain. All by default.
    return_threshold : bool, default=False
        Whether to return the threshold too.

    Returns
    -------
    dice : float
        In [0, 1]; nan, with an `UndefinedMetricWarning`, if there is no lesion.
    threshold : float
        A threshold that reaches it: ``y_score > threshold`` is the mask. It lies in the middle between two
        scores, the highest two if several pairs do. Only if `return_threshold`.

    Raises
    ------
    InputError
        If shapes differ, labels are not binary, or scores are not finite.

    References
    ----------
    .. [1] S. Naval Marimont, V. Siomos, G. Tarroni, "MIM-OOD: Generative masked image modelling for
       out-of-distribution detection in medical images", DGM4MICCAI 2023, section 4.
    """
    labels, scores = _pooled(y_true, y_score, where)
    if not labels.any():
        warn_undefined("The best Dice coefficient")
        return (np.nan, np.nan) if return_threshold else np.nan
    order = np.argsort(-scores)
    scores, labels = scores[order], labels[order]
    # Equal scores fall on one side of every threshold: only the last of each run of ties is a possible cut.
    cuts = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    dice = 2 * np.cumsum(labels, dtype=np.int64)[cuts] / (cuts + 1 + int(labels.sum()))
    best = int(np.argmax(dice))
    value = float(dice[best])
    return (value, _between(scores, cuts[best])) if return_threshold else value


def average_precision(y_true: Any, y_score: Any, *, where: Any = None) -> float:
    """Compute the average precision over pooled pixels, without interpolation; parameters are those of `best_dice`.

    Returns
    -------
    float
        In [0, 1], by chance the share of lesion pixels; nan, with an `UndefinedMetricWarning`, without lesions.
    """
    from sklearn.metrics import average_precision_score

    labels, scores = _pooled(y_true, y_score, where)
    if not labels.any():
        warn_undefined("Average precision")
        return np.nan
    return float(average_precision_score(labels, scores))


def auroc(y_true: Any, y_score: Any, *, where: Any = None) -> float:
    """Compute the area under the receiver operating characteristic; parameters are those of `best_dice`.

    Background that every method scores 0 inflates it: pass the brain as `where`, or report that all pixels count.

    Returns
    -------
    float
        In [0, 1], by chance 0.5; nan, with an `UndefinedMetricWarning`, if all pixels have the same label.
    """
    from sklearn.metrics import roc_auc_score

    labels, scores = _pooled(y_true, y_score, where)
    if labels.all() or not labels.any():
        warn_undefined("AUROC", missing="healthy" if labels.all() else "lesion")
        return np.nan
    return float(roc_auc_score(labels, scores))


def dice_at_threshold(y_true: Any, y_score: Any, threshold: float, *, where: Any = None) -> float:
    """Compute the Dice coefficient of ``y_score > threshold``, which may be infinite; see `best_dice` for the others.

    Returns
    -------
    float
        In [0, 1]; nan, with an `UndefinedMetricWarning`, without lesions.
    """
    labels, scores = _pooled(y_true, y_score, where)
    detected = scores > _check_threshold(threshold)
    if not labels.any():
        warn_undefined("The Dice coefficient")
        return np.nan
    return float(2 * np.sum(labels & detected) / (labels.sum() + detected.sum()))


def false_positive_rate(y_true: Any, y_score: Any, threshold: float, *, where: Any = None) -> float:
    """Compute the share of healthy pixels that score more than `threshold`; see `dice_at_threshold`.

    Returns
    -------
    float
        In [0, 1]; nan, with an `UndefinedMetricWarning`, if all pixels are lesion.
    """
    labels, scores = _pooled(y_true, y_score, where)
    detected = scores > _check_threshold(threshold)
    if labels.all():
        warn_undefined("The false-positive rate", missing="healthy")
        return np.nan
    return float(np.mean(detected[~labels]))


def _between(scores: np.ndarray, last: np.intp) -> float:
    """Return a number below the falling ``scores`` up to ``last`` and not below those after it."""
    lowest = scores[last]
    if last + 1 == len(scores):
        return float(np.nextafter(lowest, -np.inf, dtype=scores.dtype))
    middle = lowest / 2 + scores[last + 1] / 2
    # Halves may be rounded up to the higher score, or lie outside where scores are hardly above zero.
    return float(middle if scores[last + 1] <= middle < lowest else scores[last + 1])


def _pooled(y_true: Any, y_score: Any, where: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return labels (bool) and scores (float) of all pixels that count, both of shape (n_pixels,)."""
    labels, scores = check_binary("y_true", y_true), as_array("y_score", y_score)
    if labels.shape != scores.shape:
        raise InputError(
            f"y_true and y_score must have the same shape; got {labels.shape} and {scores.shape}."
        )
    if not np.issubdtype(scores.dtype, np.number) and scores.dtype != bool:
        raise InputError(f"y_score must be numeric; got dtype {scores.dtype}.")
    if where is not None:
        chosen = check_binary("where", where)
        if chosen.shape != labels.shape:
            raise InputError(f"where must have the shape of y_true, {labels.shape}; got {chosen.shape}.")
        labels, scores = labels[chosen], scores[chosen]
    labels, scores = labels.ravel(), scores.ravel()
    if labels.size == 0:
        raise InputError(
            "There are no pixels to evaluate. Pass non-empty arrays and a `where` that is true somewhere."
        )
    if not np.isfinite(scores).all():
        bad = int(np.sum(~np.isfinite(scores)))
        raise InputError(
            f"y_score must be finite; got {bad} NaN or infinite values. Leave those pixels out with `where`."
        )
    return labels, scores if scores.dtype.kind == "f" else scores.astype(np.float64)


def _check_threshold(threshold: float) -> float:
    if np.isnan(threshold):
        raise InputError("threshold must be a number; got NaN.")
    return float(threshold)
