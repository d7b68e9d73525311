"""How well anomaly maps find lesions, pixel by pixel, token by token and lesion by lesion.

Higher scores are more anomalous everywhere. All pixels that are passed are pooled, over all images.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, overload

import numpy as np
from scipy import ndimage

from skmimood.exceptions import InputError

__all__ = [
    "LesionDetection",
    "auroc",
    "average_precision",
    "best_dice",
    "dice_at_threshold",
    "false_positive_rate",
    "lesion_detection",
    "pixel_auroc_scorer",
    "pixel_average_precision_scorer",
    "pixel_best_dice_scorer",
    "token_labels",
]


@overload
def best_dice(
    y_true: Any, y_score: Any, *, where: Any = ..., return_threshold: Literal[False] = ...
) -> float: ...
@overload
def best_dice(
    y_true: Any, y_score: Any, *, where: Any = ..., return_threshold: Literal[True]
) -> tuple[float, float]: ...
def best_dice(
    y_true: Any, y_score: Any, *, where: Any = None, return_threshold: bool = False
) -> float | tuple[float, float]:
    """Compute the best Dice coefficient that any one threshold can reach ([DICE] in [1]_).

    The threshold is chosen with the labels, so this is a property of the ranking and an upper bound of what
    a threshold fixed beforehand reaches. It is exact: every distinct score is tried as a threshold, after
    one sort.

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
        The highest threshold that reaches it; ``y_score >= threshold`` is the mask. Only if
        `return_threshold`.

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
    n_lesion = int(labels.sum())
    if n_lesion == 0:
        _warn_undefined("The best Dice coefficient")
        return (np.nan, np.nan) if return_threshold else np.nan
    order = np.argsort(-scores)
    scores, labels = scores[order], labels[order]
    # Equal scores fall on one side of every threshold: only the last of each run of ties is a possible cut.
    cuts = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    hits = np.cumsum(labels, dtype=np.int64)[cuts]
    dice = 2 * hits / (cuts + 1 + n_lesion)
    best = int(np.argmax(dice))
    value = float(dice[best])
    return (value, float(scores[cuts[best]])) if return_threshold else value


def average_precision(y_true: Any, y_score: Any, *, where: Any = None) -> float:
    """Compute the average precision over pooled pixels, without interpolation.

    Parameters
    ----------
    y_true, y_score, where
        As in `best_dice`.

    Returns
    -------
    float
        In [0, 1], by chance the share of lesion pixels; nan, with an `UndefinedMetricWarning`, without
        lesions.
    """
    from sklearn.metrics import average_precision_score

    labels, scores = _pooled(y_true, y_score, where)
    if not labels.any():
        _warn_undefined("Average precision")
        return np.nan
    return float(average_precision_score(labels, scores))


def auroc(y_true: Any, y_score: Any, *, where: Any = None) -> float:
    """Compute the area under the receiver operating characteristic over pooled pixels.

    Background that every method scores 0 inflates it: pass the brain as `where`, or say that all pixels
    count.

    Parameters
    ----------
    y_true, y_score, where
        As in `best_dice`.

    Returns
    -------
    float
        In [0, 1], by chance 0.5; nan, with an `UndefinedMetricWarning`, if all pixels have the same label.
    """
    from sklearn.metrics import roc_auc_score

    labels, scores = _pooled(y_true, y_score, where)
    if not labels.any():
        _warn_undefined("AUROC")
        return np.nan
    if labels.all():
        _warn_undefined("AUROC", missing="healthy")
        return np.nan
    return float(roc_auc_score(labels, scores))


def dice_at_threshold(y_true: Any, y_score: Any, threshold: float, *, where: Any = None) -> float:
    """Compute the Dice coefficient of ``y_score >= threshold`` with the lesions, over pooled pixels.

    Parameters
    ----------
    y_true, y_score, where
        As in `best_dice`.
    threshold : float
        Lowest score that counts as a detection; may be infinite.

    Returns
    -------
    float
        In [0, 1]; nan, with an `UndefinedMetricWarning`, without lesions.
    """
    labels, scores = _pooled(y_true, y_score, where)
    detected = scores >= _check_threshold(threshold)
    if not labels.any():
        _warn_undefined("The Dice coefficient")
        return np.nan
    return float(2 * np.sum(labels & detected) / (labels.sum() + detected.sum()))


def false_positive_rate(y_true: Any, y_score: Any, threshold: float, *, where: Any = None) -> float:
    """Compute the share of healthy pixels that score `threshold` or more.

    Parameters
    ----------
    y_true, y_score, where
        As in `best_dice`.
    threshold : float
        Lowest score that counts as a detection; may be infinite.

    Returns
    -------
    float
        In [0, 1]; nan, with an `UndefinedMetricWarning`, if all pixels are lesion.
    """
    labels, scores = _pooled(y_true, y_score, where)
    detected = scores >= _check_threshold(threshold)
    if labels.all():
        _warn_undefined("The false-positive rate", missing="healthy")
        return np.nan
    return float(np.mean(detected[~labels]))


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
    y_true : array-like of bool, shape (n_images, ...)
        Lesion masks.
    y_pred : array-like of bool, same shape
        Detected masks: scores at a threshold.
    min_overlap : float, default=0.1
        Share of its pixels that must be detected for a lesion to count as detected, in (0, 1].
    min_size : int, default=1
        Detected components of fewer pixels are ignored.

    Returns
    -------
    LesionDetection
        The counts, and recall, precision and false positives per image as properties.

    Raises
    ------
    InputError
        If shapes differ, masks are not binary, or `min_overlap` is out of range.
    """
    truth, detected = _binary("y_true", y_true), _binary("y_pred", y_pred)
    if truth.ndim < 3 or truth.shape != detected.shape:
        raise InputError(
            f"y_true and y_pred must have one shape (n_images, height, width); got {truth.shape} and "
            f"{detected.shape}. For one image pass mask[np.newaxis]."
        )
    if not 0 < min_overlap <= 1:
        raise InputError(f"min_overlap must be in (0, 1]; got {min_overlap!r}. It is a share of a lesion.")
    counts = np.zeros(4, dtype=int)
    for lesions, detections in zip(truth, detected, strict=True):
        counts += _count_components(lesions, detections, min_overlap, min_size)
    return LesionDetection(len(truth), *(int(count) for count in counts))


def _count_components(
    truth: np.ndarray, detected: np.ndarray, min_overlap: float, min_size: int
) -> tuple[int, int, int, int]:
    """Return the numbers of lesions, detected lesions, detections and false detections in one image."""
    neighbours = np.ones((3,) * truth.ndim, dtype=int)
    lesions, n_lesions = ndimage.label(truth, neighbours)
    found, n_found = ndimage.label(detected, neighbours)
    large = np.bincount(found.ravel(), minlength=n_found + 1) >= min_size
    large[0] = False
    sizes = np.bincount(lesions.ravel(), minlength=n_lesions + 1)[1:]
    overlaps = np.bincount(lesions[large[found]], minlength=n_lesions + 1)[1:]
    touching = np.zeros(n_found + 1, dtype=bool)
    touching[np.unique(found[truth])] = True
    return (
        n_lesions,
        int(np.sum(overlaps >= min_overlap * sizes)),
        int(large.sum()),
        int(np.sum(large & ~touching)),
    )


def token_labels(masks: Any, factor: int | tuple[int, int] = 8, *, rule: str = "any") -> np.ndarray:
    """Bring pixel masks to the token grid.

    The grid has ``ceil(H / factor)`` rows; what of the last tokens lies outside the image counts as healthy.

    Parameters
    ----------
    masks : array-like of bool, shape (n, H, W)
        Lesion masks.
    factor : int or (int, int), default=8
        Pixels per token, along both axes or along rows and columns: the paper's f.
    rule : {"any", "half", "nearest"}, default="any"
        A token is a lesion if any of its pixels is, if at least half of them are, or if its central pixel
        is. The centre of an even number of pixels is the pixel after it; of a token cut by the image's
        edge, the last pixel there is.

    Returns
    -------
    ndarray of shape (n, ceil(H / factor), ceil(W / factor)), bool
        The labels of the tokens.

    Raises
    ------
    InputError
        If masks are not binary or not of shape (n, H, W), or `factor` or `rule` is not one of the above.
    """
    pixels = _binary("masks", masks)
    if pixels.ndim != 3:
        raise InputError(
            f"masks must have shape (n, height, width); got {pixels.shape}. For one, pass mask[np.newaxis]."
        )
    fy, fx = (factor, factor) if isinstance(factor, int | np.integer) else factor
    if min(fy, fx) < 1:
        raise InputError(f"factor must be at least 1; got {factor!r}. It is the number of pixels in a token.")
    n, height, width = pixels.shape
    h, w = -(-height // fy), -(-width // fx)
    if rule == "nearest":
        rows = np.minimum(np.arange(h) * fy + fy // 2, height - 1)
        columns = np.minimum(np.arange(w) * fx + fx // 2, width - 1)
        return pixels[:, rows[:, None], columns]
    padded = np.pad(pixels, ((0, 0), (0, h * fy - height), (0, w * fx - width)))
    area = padded.reshape(n, h, fy, w, fx).sum(axis=(2, 4))
    if rule == "any":
        return area > 0
    if rule == "half":
        return 2 * area >= fy * fx
    raise InputError(f"rule must be 'any', 'half' or 'nearest'; got {rule!r}.")


def pixel_average_precision_scorer(estimator: Any, X: Any, y: Any) -> float:
    """Score an estimator by the average precision of its maps; pass it as ``scoring=`` to `GridSearchCV`.

    Parameters
    ----------
    estimator : object
        Fitted, with ``decision_function(X)`` returning maps of the shape of `y`.
    X : array-like of shape (n, H, W)
        Images.
    y : array-like of bool, shape (n, H, W)
        Lesion masks.

    Returns
    -------
    float
        Higher is better. On a fold without lesions it is nan, after an `UndefinedMetricWarning`: put
        samples with lesions in every test fold, for instance with `PredefinedSplit`.
    """
    return _score_pixels(average_precision, estimator, X, y)


def pixel_best_dice_scorer(estimator: Any, X: Any, y: Any) -> float:
    """Score an estimator by the best achievable Dice coefficient of its maps, as `best_dice` defines it.

    Parameters and behaviour on a fold without lesions are those of `pixel_average_precision_scorer`.
    """
    return _score_pixels(best_dice, estimator, X, y)


def pixel_auroc_scorer(estimator: Any, X: Any, y: Any) -> float:
    """Score an estimator by the AUROC of its maps.

    Parameters and behaviour on a fold without lesions are those of `pixel_average_precision_scorer`.
    """
    return _score_pixels(auroc, estimator, X, y)


def _score_pixels(metric: Callable[..., Any], estimator: Any, X: Any, y: Any) -> float:
    if y is None:
        raise InputError("A pixel scorer needs lesion masks; got y=None. Pass them as y to fit or score.")
    if not _binary("y", y).any():  # known before the maps are computed, which may take minutes
        _warn_undefined("The score of this fold")
        return np.nan
    return float(metric(y, estimator.decision_function(X)))


def _pooled(y_true: Any, y_score: Any, where: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return labels (bool) and scores (float) of all pixels that count, both of shape (n_pixels,)."""
    labels, scores = _binary("y_true", y_true), np.asarray(y_score)
    if labels.shape != scores.shape:
        raise InputError(
            f"y_true and y_score must have the same shape; got {labels.shape} and {scores.shape}."
        )
    if not np.issubdtype(scores.dtype, np.number) and scores.dtype != bool:
        raise InputError(f"y_score must be numeric; got dtype {scores.dtype}.")
    if where is not None:
        chosen = _binary("where", where)
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


def _binary(name: str, values: Any) -> np.ndarray:
    """Return labels as bool, any shape."""
    labels = np.asarray(values)
    if labels.dtype == bool:
        return labels
    if labels.dtype.kind not in "iuf" or not np.isin(labels, (0, 1)).all():
        raise InputError(f"{name} must hold only 0 and 1. For a map of several labels pass labels > 0.")
    return labels.astype(bool)


def _check_threshold(threshold: float) -> float:
    if np.isnan(threshold):
        raise InputError("threshold must be a number; got NaN.")
    return float(threshold)


def _warn_undefined(what: str, missing: str = "lesion") -> None:
    from sklearn.exceptions import UndefinedMetricWarning

    warnings.warn(
        f"{what} is undefined without {missing} pixels and is set to nan. Evaluate on images that have some.",
        UndefinedMetricWarning,
        stacklevel=3,
    )
