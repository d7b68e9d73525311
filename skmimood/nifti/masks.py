"""Which voxels a mask marks, whether its values are 0 and 1, classes, probabilities or scaled integers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, NamedTuple

import numpy as np
from nibabel.affines import apply_affine
from scipy import ndimage

from skmimood.exceptions import ScanReadError, warn
from skmimood.nifti.geometry import Grid, box_corners
from skmimood.nifti.images import DEFAULT_MAX_BYTES, Scan
from skmimood.nifti.names import Source, file_name
from skmimood.nifti.reading import read_volume

_NOTHING = 1e-6  # what scaled headers make of 0 lies far below
_WHOLE = 0.05  # ... and what they make of whole numbers within this
_OVERSHOOT = 1.5  # how far interpolation carries values beyond the plateau, in units of it
_FEW_CLASSES = 4  # so many values are classes, whatever they are
_SOFT_SHARE = 0.05  # soft lesions fill less of the volume; a picture fills more
# Shares of the voxels of a mask that have nearly its one value, overshoot it, and lie on soft edges. The values of
# edges are spread evenly: no twentieth of the range holds more of them than the last share, as tissues do.
_PLATEAU_SHARE, _OVERSHOOT_SHARE, _EDGE_SHARE, _PEAK_SHARE = 0.2, 0.05, 0.6, 0.1
_LARGEST_CLASS = 2**20
_MANY_RATERS = 16  # so few values up to 1 are shares of raters, or halves of halves
_FLIPPED_SHARE = 0.1  # of what is set: more voxels far below 0 are no overshoots
_LEAST_PERCENT = 50  # whole numbers that all lie below are classes, not percentages


class Mask(NamedTuple):
    """A mask on the grid of a scan, (X, Y, Z) bool, and what was odd about its file."""

    voxels: np.ndarray
    remarks: tuple[str, ...]


class _Reading(NamedTuple):
    """Values count from ``threshold``; graded ones may be interpolated before they are compared with it."""

    threshold: float
    is_graded: bool = False
    remark: str = ""


def read_labels(
    source: Source,
    like: Scan,
    *,
    labels: Collection[int] | None = None,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> np.ndarray:
    """Read a mask onto the grid of a scan; `read_mask` without its remarks, which become warnings.

    Parameters
    ----------
    source : str, path or nibabel image
        The mask. NaN and infinities count as 0.
    like : Scan
        The scan that the mask belongs to.
    labels : collection of int, optional
        The classes that count; by default all above 0, and probabilities from one half.
    max_bytes : int
        As in `read_scan`.

    Returns
    -------
    ndarray of shape (X, Y, Z), bool
        On ``like``'s grid. A mask on another grid of the same field of view is resampled.

    Raises
    ------
    ScanReadError
        If the file cannot be read, covers another field of view or is no mask but a picture.
    """
    mask = read_mask(source, like, labels=labels, max_bytes=max_bytes)
    for remark in mask.remarks:
        warn(f"{like.id}: {remark}.")
    return mask.voxels


def read_mask(
    source: Source,
    like: Scan,
    *,
    kind: Literal["lesion", "brain"] = "lesion",
    labels: Collection[int] | None = None,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> Mask:
    """Read a mask onto the grid of a scan; source, like, labels and max_bytes are as in `read_labels`.

    Of two plateaus, the higher is the mask, whatever its value; small deviations, as scaled headers and interpolation
    leave them, change nothing. Of several whole numbers, classes, all above 0 count. Values between the plateaus are
    probabilities, from 0 to 1, to 100 or to 255 or the plateau, and count from one half. Graded masks of another grid
    are interpolated, then compared with one half; of all others, each voxel takes the nearest value.

    Of a brain (`kind`), one solid mask is expected: several classes are remarked on, and a mask without plateau is
    refused. Lesions may be small, soft or absent. Masks that are set in the corners are remarked on.
    """
    name = file_name(source) or f"labels of {like.id}"
    raw = read_volume(source, name, max_bytes, None)
    finite = np.where(np.isfinite(raw.voxels), raw.voxels, 0)
    _check_signs(finite, name, kind)
    values = np.maximum(finite, 0)
    if labels is None:
        reading = _read_values(values, name, kind)
        if not reading.is_graded:
            values = values >= reading.threshold
    else:
        is_whole = bool((np.abs(values - np.rint(values)) <= _WHOLE).all())
        remark = "" if is_whole else f"the {kind} mask holds values between its labels; the nearest counts"
        values, reading = np.isin(np.rint(values), list(labels)), _Reading(1.0, False, remark)
    grid = Grid(raw.voxels.shape, raw.geometry.affine_mm)
    if not grid.matches(like.grid):
        _check_field_of_view(name, grid, raw.shape, like)
        values = _resample(values, grid, like.grid, order=1 if reading.is_graded else 0)
    voxels = values >= reading.threshold if reading.is_graded else values.astype(bool)
    remarks = [reading.remark] if reading.remark else []
    if voxels[np.ix_(*((0, -1) for _ in range(3)))].all():
        remarks.append(f"the {kind} mask is set in the corners of the volume, or everywhere (inverted?)")
    return Mask(voxels, tuple(remarks))


def _check_signs(values: np.ndarray, name: str, kind: str) -> None:
    """Refuse a mask of which a part lies far below 0, as 255 does in int8; a background of -1 is none."""
    top = float(values.max())
    below = values < -max(top / 2, 0.5)
    if _FLIPPED_SHARE * np.count_nonzero(values > top / 2) < np.count_nonzero(below) < values.size / 2:
        raise ScanReadError(
            name,
            f"is no {kind} mask: a part of it lies below 0, down to {values.min():g}. Write it anew with values "
            "from 0, as an unsigned type (255 becomes -1 in int8).",
        )


def _read_values(values: np.ndarray, name: str, kind: str) -> _Reading:
    """Find out from which value on the voxels of a mask count; ``values`` are finite and not negative."""
    top = float(values.max())
    if top <= _NOTHING:
        return _Reading(1.0)
    positive = values[values > min(top / 50, 0.3)]
    if positive.min() >= 0.96 * top:  # two values
        if top < 0.5 and positive.size > 0.5 * values.size:  # zeros that a scaled header has moved
            return _Reading(1.0)
        return _Reading(
            top / 2, remark=f"the mask is {top:g} where it is not 0; this counts as set" * (top < 0.5)
        )
    unit = _find_plateau(positive, top)
    n_classes = _count_classes(positive)
    if n_classes and (
        n_classes <= _FEW_CLASSES or (not (unit and top >= _LEAST_PERCENT) and _is_in_patches(values))
    ):
        is_odd = kind == "brain" and n_classes > 1
        return _Reading(0.5, remark=f"the brain mask holds {n_classes} classes; all count as brain" * is_odd)
    is_usual = unit in (1.0, 100.0, 255.0)
    if unit is None and kind == "lesion":
        unit = _unit_of_soft_lesions(values, top)
        is_usual = unit == 1.0
    if unit is None:
        raise ScanReadError(
            name,
            f"is no {kind} mask: it holds a continuum of values up to {top:g}, as a picture does. Pass a mask of "
            "0 and 1, or of probabilities from 0 to 1.",
        )
    if top < unit / 2:
        remark = f"no value of the {kind} mask reaches one half of {unit:g}, so nothing counts"
    else:
        remark = "" if is_usual else f"the {kind} mask was read as graded from 0 to {unit:g}"
    return _Reading(unit / 2, True, remark)


def _find_plateau(positive: np.ndarray, top: float) -> float | None:
    """Return the value of a mask whose values are background, one plateau and soft edges, else None.

    It is rounded to 1, 100 or 255.
    """
    counts, bounds = np.histogram(positive, bins=26, range=(0.6 * top, top))
    common = float(bounds[counts.argmax() : counts.argmax() + 2].mean())
    scaled = positive[positive > 0.25 * common] / common
    edges, _ = np.histogram(scaled, bins=10, range=(0.25, 0.75))
    share = (np.abs(scaled - 1) <= 0.05).mean()
    is_plateau = (
        share >= _PLATEAU_SHARE
        and (scaled > 1.15).mean() <= _OVERSHOOT_SHARE
        and edges.sum() <= _EDGE_SHARE * scaled.size
        and edges.max() <= max(_PEAK_SHARE, share / 4) * scaled.size
    )
    if top <= _OVERSHOOT:
        has_few_values = np.unique(np.round(positive, 3)).size <= _MANY_RATERS
        return 1.0 if has_few_values or (is_plateau and common >= 0.75) else None
    usual = next((unit for unit in (100.0, 255.0) if abs(common / unit - 1) < 0.03), common)
    return usual if is_plateau else None


def _unit_of_soft_lesions(values: np.ndarray, top: float) -> float | None:
    """Return 1, 100 or 255 for probabilities without plateau that fill little of the volume, else None."""
    unit = next((unit for unit in (1.0, 100.0, 255.0) if top <= _OVERSHOOT * unit), np.inf)
    if _OVERSHOOT < top < 10:  # more likely classes between which was interpolated
        return None
    is_soft = ((values > 0.1 * unit) & (values < 0.9 * unit)).mean() < _SOFT_SHARE
    return unit if is_soft and unit < np.inf else None


def _count_classes(positive: np.ndarray) -> int:
    """Count the classes of a mask of whole numbers, interpolated between few or not; 0 for other values."""
    whole = np.rint(positive)
    share_whole = (np.abs(positive - whole) <= _WHOLE).mean()
    classes, sizes = np.unique(whole[whole > 0], return_counts=True)
    if share_whole == 1:
        return len(classes)
    large = int((sizes > 0.05 * positive.size).sum())
    return large if share_whole > 0.75 and 1 < large <= _FEW_CLASSES else 0


def _is_in_patches(values: np.ndarray) -> bool:
    """Tell whether most values have mostly equal neighbours above 0, as classes have and grey values have not."""
    if values.max() > _LARGEST_CLASS:
        return False
    whole = np.rint(values).astype(np.int32)
    n_values = int(whole.max()) + 1
    pairs, equal = np.zeros(n_values), np.zeros(n_values)
    for axis in range(3):
        along = np.moveaxis(whole, axis, 0)
        first, second = along[:-1], along[1:]
        both = (first > 0) & (second > 0)
        pairs += np.bincount(first[both], minlength=n_values)
        equal += np.bincount(first[both & (first == second)], minlength=n_values)
    return bool((equal >= 0.5 * pairs)[np.unique(whole[whole > 0])].mean() >= 0.5)


def _check_field_of_view(name: str, grid: Grid, shape: tuple[int, ...], like: Scan) -> None:
    to_like = np.linalg.inv(like.affine_mm) @ grid.affine_mm
    box = apply_affine(to_like, box_corners(grid.shape, margin=0.5))
    expected = box_corners(like.data.shape, margin=0.5)
    tolerance = np.maximum(1.0, np.abs(to_like[:3, :3]).sum(axis=1))
    gaps = [np.abs(f(box, axis=0) - f(expected, axis=0)) for f in (np.min, np.max)]
    if any((gap > tolerance).any() for gap in gaps):
        raise ScanReadError(
            name,
            f"covers another field of view than {like.id} (shapes {shape} and {like.shape}). "
            "Resample it onto the scan, or repair its affine.",
        )


def _resample(values: np.ndarray, grid: Grid, like: Grid, order: int) -> np.ndarray:
    back = np.linalg.inv(np.linalg.inv(like.affine_mm) @ grid.affine_mm)
    numbers = values.astype(np.float32 if order else np.uint8)
    return ndimage.affine_transform(
        numbers, back[:3, :3], back[:3, 3], like.shape, order=order, mode="nearest"
    )
