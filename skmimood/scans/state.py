"""Checks of a ``ScanDetector``'s parameters, and its fitted attributes as arrays and JSON values and back."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skmimood.exceptions import InputError, ModelLoadError
from skmimood.maps.conformal import HealthyReference, check_rate
from skmimood.persistence import load_model, save_model
from skmimood.preprocessing import Plane
from skmimood.scans.cohort import ScanStatus, StatusName
from skmimood.scans.domain import N_BINS, N_CELLS

if TYPE_CHECKING:
    from typing import Self  # of Python 3.11; nothing else needs it

_MIN_SIDE = 8
_NUMBERS = ("spacing_", "pixel_threshold_", "scan_threshold_", "intensity_limit_")


class SavedDetector(BaseEstimator):
    """How a ``ScanDetector`` is saved, loaded and sent to workers."""

    def save(self, path: str | os.PathLike, *, overwrite: bool = False) -> None:
        """Save the detector as a folder of safetensors and JSON, with the ids in ``fit_status_``.

        Raises
        ------
        ModelSaveError
            If the folder exists and ``overwrite`` is False, or if it cannot be written.
        """
        check_is_fitted(self)
        save_model(self, path, overwrite=overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Self:
        """Load a detector that `save` has written.

        Raises
        ------
        ModelLoadError
            If the model is damaged, of another version, or not a ScanDetector.
        """
        loaded = load_model(path)
        if not isinstance(loaded, cls):
            kind = type(loaded).__name__
            raise ModelLoadError(f"this is a saved {kind}, not a {cls.__name__}. Load it with {kind}.load.")
        return loaded

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "pixel_threshold_")  # set last in fit

    def __skmimood_state__(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return the fitted attributes other than ``pipeline_`` as arrays and JSON values."""
        return pack(self)

    def __skmimood_restore__(self, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> None:
        """Set the fitted attributes from `__skmimood_state__`; nothing is set if one of them is wrong."""
        # Models of before there were these entries have kept them as parameters alone.
        learned = {f"{name}_": getattr(self, name) for name in ("plane", "mask")}
        self.__dict__.update(unpack(arrays, {**learned, **values}))


def check_parameters(detector: Any) -> None:
    """Raise one `InputError` that names every wrong parameter of a ``ScanDetector``."""
    size, spacing, mask = detector.size, detector.spacing, detector.mask
    sides = size if isinstance(size, (tuple, list)) else (size, size)
    steps = detector.pipeline.steps if isinstance(detector.pipeline, Pipeline) else []
    planes, share = get_args(Plane), detector.min_foreground
    faults = [
        None
        if steps and hasattr(steps[-1][1], "detect")
        else "pipeline must be a Pipeline whose last step has detect, as make_mimood_pipeline returns; "
        f"got {type(detector.pipeline).__name__}",
        None if detector.plane in planes else f"plane must be one of {planes}; got {detector.plane!r}",
        None
        if spacing is None or (_is_number(spacing) and 0 < spacing < math.inf)
        else f"spacing must be None or a positive number of mm; got {spacing!r}",
        None
        if len(sides) == 2 and all(_is_whole(side) and side >= _MIN_SIDE for side in sides)
        else f"size must be one or two whole numbers of at least {_MIN_SIDE} pixels; got {size!r}",
        None
        if isinstance(mask, str) and mask
        else f"mask must be 'auto', 'none' or the ending of mask files; got {mask!r}",
        None
        if _is_number(share) and 0 <= share < 1
        else f"min_foreground must be a share in [0, 1); got {share!r}",
    ]
    invalid = detector.max_invalid
    if not (_is_number(invalid) and 0 <= invalid <= 1):
        faults.append(f"max_invalid must be a share in [0, 1]; got {invalid!r}")
    volume = detector.volume
    if volume is not None and not (_is_whole(volume) and volume >= 0):
        faults.append(f"volume must be None or a whole number of at least 0; got {volume!r}")
    n_jobs = detector.n_jobs
    if n_jobs is not None and not (_is_whole(n_jobs) and n_jobs != 0):
        faults.append(f"n_jobs must be None or a whole number other than 0; got {n_jobs!r}")
    for name in ("max_slices", "max_bytes"):
        value = getattr(detector, name)
        if not (_is_whole(value) and value >= 1):
            faults.append(f"{name} must be a whole number of at least 1; got {value!r}")
    faults += [
        check_rate(name, getattr(detector, name)) for name in ("calibration_fraction", "fpr", "scan_fpr")
    ]
    raise_faults(faults)


def raise_faults(faults: Iterable[str | None]) -> None:
    """Raise one `InputError` with all faults that are not None."""
    if found := [fault for fault in faults if fault]:
        raise InputError("; ".join(found) + ". Set the parameter anew.")


def as_pair(size: Any) -> tuple[int, int]:
    """Return (height, width) of ``size``, one or two numbers."""
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    return int(height), int(width)


def pack(detector: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return all fitted attributes but the pipeline."""
    # Numbers travel as arrays: a threshold may be infinite, for which JSON has no word.
    arrays = {name: np.asarray(float(getattr(detector, name))) for name in _NUMBERS}
    arrays["intensity_histogram_"] = detector.intensity_histogram_
    if detector.layout_ is not None:
        arrays["layout_"] = detector.layout_
        arrays["layout_limit_"] = np.asarray(float(detector.layout_limit_))
        arrays["aspect_range_"] = np.asarray(detector.aspect_range_, dtype=np.float64)
    arrays["foreground_range_"] = np.asarray(detector.foreground_range_, dtype=np.float64)
    arrays |= {f"reference_.{name}": array for name, array in detector.reference_.to_arrays().items()}
    values = {
        "plane_": detector.plane_,
        "mask_": detector.mask_,
        "size_": list(detector.size_),
        "n_scans_": detector.n_scans_,
        "n_slices_": detector.n_slices_,
        "fit_status_": [asdict(line) for line in detector.fit_status_],
        "suspects_": dict(detector.suspects_),
        "calibrated_with_": dict(detector.calibrated_with_),
    }
    return arrays, values


def unpack(arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fitted attributes from what `pack` returned.

    Raises
    ------
    ModelLoadError
        If something is missing, of another shape or type, or out of range.
    """
    try:
        fitted: dict[str, Any] = {name: float(np.asarray(arrays[name]).reshape(())) for name in _NUMBERS}
        fitted["intensity_histogram_"] = np.asarray(arrays["intensity_histogram_"], dtype=np.float64)
        fitted["layout_"] = None  # in models of before there was one
        fitted["layout_limit_"] = float(np.asarray(arrays.get("layout_limit_", math.inf)).reshape(()))
        least, most = np.asarray(arrays.get("aspect_range_", (0.0, math.inf)), dtype=np.float64).tolist()
        fitted["aspect_range_"] = (least, most)
        if "layout_" in arrays:
            fitted["layout_"] = np.asarray(arrays["layout_"], dtype=np.float32)
        low, high = np.asarray(arrays["foreground_range_"], dtype=np.float64).tolist()
        fitted["foreground_range_"] = (low, high)
        height, width = values["size_"]
        fitted["size_"] = (height, width)
        fitted["plane_"], fitted["mask_"] = values["plane_"], str(values["mask_"])
        fitted["n_scans_"], fitted["n_slices_"] = values["n_scans_"], values["n_slices_"]
        fitted["fit_status_"] = [_status(line) for line in values["fit_status_"]]
        fitted["calibrated_with_"] = dict(values["calibrated_with_"])
        fitted["suspects_"] = {str(name): str(reason) for name, reason in values["suspects_"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelLoadError(f"the detector's settings are incomplete: {error!r}. Save it again.") from error
    prefix = "reference_."
    table = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    fitted["reference_"] = HealthyReference.from_arrays(table)
    histogram = fitted["intensity_histogram_"]
    is_sound = (
        fitted["plane_"] in get_args(Plane)
        and 0 < fitted["spacing_"] < math.inf
        and not math.isnan(fitted["pixel_threshold_"])
        and not math.isnan(fitted["scan_threshold_"])
        and 0 <= fitted["intensity_limit_"] < math.inf
        and 0 <= low <= high < math.inf
        and histogram.shape == (N_BINS,)
        and bool(np.isfinite(histogram).all() and (histogram >= 0).all())
        and _is_layout(fitted["layout_"])
        and fitted["layout_limit_"] >= 0
        and 0 <= least <= most
        and all(_is_whole(side) and side >= _MIN_SIDE for side in fitted["size_"])
        and all(_is_whole(fitted[name]) and fitted[name] >= 1 for name in ("n_scans_", "n_slices_"))
    )
    if not is_sound:
        raise ModelLoadError("the detector's settings are damaged: a value is out of range. Save it again.")
    return fitted


def _is_layout(layout: np.ndarray | None) -> bool:
    if layout is None:
        return True
    return layout.shape == (2, *(N_CELLS,) * 3) and bool(np.isfinite(layout).all() and (layout >= 0).all())


def _status(line: Mapping[str, Any]) -> ScanStatus:
    if line["status"] not in get_args(StatusName):
        raise ValueError(f"status {line['status']!r}")
    return ScanStatus(
        str(line["id"]),
        line["status"],
        str(line["reason"]),
        int(line["n_slices"]),
        tuple(int(side) for side in line["shape"]),
        tuple(float(step) for step in line["spacing"]),
        str(line.get("group", "")),
        float(line.get("foreground_ml", 0.0)),
        float(line.get("foreground_share", 0.0)),
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
