"""Checks of the arrays that users pass, with errors in the words of images."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np

from skmimood.exceptions import InputError, warn

MAX_CHANNELS = 8
_MIN_SIDE = 8
_MISSING = ("", "None", "nan", "NaT", "<NA>")  # labels, as tables have them


def as_array(name: str, values: Any) -> np.ndarray:
    """Return what numpy takes, or torch tensors of any real type and device, as one array, or raise `InputError`."""
    try:
        return np.asarray(_without_tensors(values))
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(
            f"{name} cannot be made into one array: {reason}. Pass a dense numpy array; all images must have one size."
        ) from error


def _without_tensors(values: Any) -> Any:
    if isinstance(values, list | tuple):
        return [_without_tensors(value) for value in values]
    if not hasattr(values, "detach"):
        return values
    try:
        return values.numpy(force=True)
    except TypeError:  # bfloat16 and narrower, which numpy does not have
        return values.float().numpy(force=True)


def check_one_channel(X: Any) -> np.ndarray:
    """Return `check_images` of slices (n_samples, height, width); `InputError` if they have several channels."""
    images = check_images(X)
    if images.ndim == 4:
        raise InputError(
            "X must have shape (n_samples, height, width), since this detector takes slices of one channel; got "
            f"{images.shape}. Several channels take make_mimood_pipeline, the other detectors on tokens after "
            "VQTokenizer, and DenoisingAutoencoder. Else pass one channel, X[:, 0]."
        )
    return images


def check_images(X: Any, image_shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Return ``X`` as a float32 array of shape (n_samples, height, width) or (n_samples, n_channels, height, width).

    `InputError` if X is not numeric, has another number of dimensions, no samples, more than 8 channels, sides below 8
    pixels, NaN or infinite values, intensities far outside [0, 1], or not the ``image_shape`` seen in fit: (height,
    width) or (n_channels, height, width).
    """
    if hasattr(X, "toarray"):
        raise InputError(
            "X is sparse; images must be dense. Pass X.toarray() reshaped to (n_samples, height, width)."
        )
    array = as_array("X", X)
    if array.dtype.kind not in "fiub":
        raise InputError(f"X must hold real numbers; got dtype {array.dtype}. Convert it to float32 first.")
    if array.ndim not in (3, 4) or (array.ndim == 4 and not 1 <= array.shape[1] <= MAX_CHANNELS):
        advice = {
            2: "For one image pass X[np.newaxis].",
            4: "For channels at the end pass np.moveaxis(X, -1, 1).",
        }
        raise InputError(
            "X must have shape (n_samples, height, width), or (n_samples, n_channels, height, width) of 1 to "
            f"{MAX_CHANNELS} channels; got {array.shape}. {advice.get(array.ndim, 'Pass 2-D slices.')}"
        )
    if len(array) == 0:
        raise InputError(f"X holds 0 samples (shape {array.shape}); at least 1 is needed.")
    if min(array.shape[-2:]) < _MIN_SIDE:
        raise InputError(
            f"Images must be at least {_MIN_SIDE} pixels high and wide; got {array.shape[1:]}. Pad or resample them."
        )
    if image_shape is not None:
        _check_shape(array.shape[1:], tuple(image_shape))
    array = np.require(array, np.float32, ["C_CONTIGUOUS", "WRITEABLE"])  # what torch can share
    _check_range(array)
    return array


def _check_shape(shape: tuple[int, ...], fitted: tuple[int, ...]) -> None:
    if shape[:-2] != fitted[:-2]:
        raise InputError(
            f"Images must have {_channels(fitted)} as in fit; got {_channels(shape)}. Pass the channels of fit, in its "
            "order."
        )
    if shape != fitted:
        raise InputError(
            f"Images must be {fitted[-2]} x {fitted[-1]} pixels as in fit; got {shape[-2]} x {shape[-1]}. Resample, "
            "crop or pad them to that size."
        )


def _channels(shape: tuple[int, ...]) -> str:
    """Say how many channels an image of this shape has, and on which axis."""
    if len(shape) == 2:
        return "no axis of channels, shape (n, H, W)"
    return f"{shape[0]} channel{'s' * (shape[0] > 1)}, shape (n, {shape[0]}, H, W)"


def _check_range(array: np.ndarray) -> None:
    low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all():
        n_bad = int((~np.isfinite(array)).sum())
        raise InputError(
            f"X contains {n_bad} NaN or infinite pixels. Replace them, for example by 0 (background)."
        )
    if low < -10 or high > 10:
        raise InputError(
            f"Intensities must lie in [0, 1]; got [{low:g}, {high:g}]. Clip each scan at its 98th percentile "
            "and divide by it, or use ScanDetector, which does so."
        )
    if low < -1e-3 or high > 1 + 1e-3:
        warn(f"Intensities are expected in [0, 1]; got [{low:g}, {high:g}].", stacklevel=5)


def has_lesion(y: Any, image_shape: tuple[int, ...]) -> np.ndarray:
    """Return for each sample of X of shape ``image_shape`` whether its mask or label ``y`` is not empty, (n,) bool."""
    n_samples = image_shape[0]
    mask_shape = (n_samples, *image_shape[-2:])
    if y is None:
        return np.zeros(n_samples, bool)
    y = as_array("y", y)
    if y.shape not in ((n_samples,), mask_shape):
        raise InputError(
            f"y must hold one mask for each sample, shape {mask_shape}, or one label, shape ({n_samples},); got "
            f"shape {y.shape}."
        )
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        raise InputError("y contains NaN or infinite values; masks are 0 outside lesions and not 0 inside.")
    return (y != 0).reshape(n_samples, -1).any(1)


def drop_lesions(X: Any, y: Any) -> Any:
    """Return the samples of ``X`` whose mask in ``y`` is empty: the healthy ones that may be learnt from."""
    lesions = has_lesion(y, X.shape)
    if lesions.all():
        raise InputError(
            f"Every one of the {len(X)} samples has a lesion in y; nothing healthy is left to learn from. "
            "Pass healthy samples, or y=None if X is healthy."
        )
    return X[~lesions] if lesions.any() else X


def healthy_samples(X: Any, y: Any, groups: Any, validation_fraction: float) -> tuple[Any, float]:
    """Return the healthy samples of ``X``, and the share at their end that is held out of the training.

    Without ``groups`` they keep their order, and the share is ``validation_fraction``. With them, whole groups are held
    out, the last to appear: so many that their share comes closest to ``validation_fraction``, and at least one.
    """
    healthy = drop_lesions(X, y)
    if groups is None:
        return healthy, validation_fraction
    numbers: dict[Hashable, int] = {}  # of the labels, by their first appearance
    codes = np.asarray([numbers.setdefault(label, len(numbers)) for label in check_groups(groups, len(X))])
    codes = codes[~has_lesion(y, X.shape)]
    n_samples = len(codes)
    wanted = min(round(validation_fraction * n_samples), n_samples - 1)
    present, sizes = np.unique(codes, return_counts=True)
    if wanted == 0 or len(present) < 2:
        if wanted:
            warn(
                "All healthy samples are of one group, so training and validation share it. Pass samples of more "
                "groups, or training__validation_fraction=0.",
                stacklevel=4,
            )
        return healthy, validation_fraction
    of_the_last = np.cumsum(sizes[:0:-1])  # groups: of one, of two, ...
    is_held_out = codes >= present[-1 - int(np.argmin(np.abs(of_the_last - wanted)))]
    if is_held_out[: -is_held_out.sum()].any():
        healthy = healthy[np.argsort(is_held_out, kind="stable")]
    return healthy, float(is_held_out.mean())


def check_groups(groups: Any, n_samples: int) -> list[Hashable]:
    """Return the labels that say which of ``n_samples`` samples belong together; `InputError` unless each has one."""
    labels: list[Hashable] = []
    if isinstance(groups, Iterable) and not isinstance(groups, (str, Mapping)):
        labels = np.asarray(groups).ravel().tolist() if hasattr(groups, "tolist") else list(groups)
    if len(labels) != n_samples:
        raise InputError(
            f"groups must hold one label for each of {n_samples} samples; got "
            f"{len(labels) if labels else repr(groups)}. Samples of one label are kept together."
        )
    if any(str(label).strip() in _MISSING for label in labels):
        raise InputError(
            "groups holds None or NaN, or is blank. Give every sample a label, one of its own if it is alone."
        )
    return labels
