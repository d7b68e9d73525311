"""What a ``ScanDetector``'s parameters must be, and its fitted attributes as arrays and JSON values and back."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Mapping
from dataclasses import asdict, field
from typing import TYPE_CHECKING, Annotated, Any, get_args

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skmimood.exceptions import ModelLoadError, listing, warn
from skmimood.maps.conformal import HealthyReference
from skmimood.nifti import DEFAULT_MAX_BYTES
from skmimood.persistence import RETIRED, load_model, save_model
from skmimood.preprocessing import Plane
from skmimood.scans.cohort import ScanStatus, StatusName
from skmimood.scans.domain import Domain
from skmimood.validation import rules
from skmimood.validation.estimator import CheckedParameters
from skmimood.validation.old_names import new_settings

if TYPE_CHECKING:
    from typing import Self  # of Python 3.11; nothing else needs it

_MIN_SIDE = 8
_NUMBERS = ("spacing_", "slice_smoothing_", "pixel_threshold_", "scan_threshold_")
CLUSTER_MASS, TOP_MEAN = "cluster mass", "top mean"  # how a scan is scored; the latter in models of before
_REFERENCE = "reference_."
_RUNTIME_PARAMETERS = ("batch_size", "device", "memory", "verbose", "checkpoint_dir", "resume")
_PLANES = get_args(Plane)


def as_pair(size: Any) -> tuple[Any, ...]:
    """Return (height, width) of ``size``, one or two numbers."""
    return tuple(size) if isinstance(size, (tuple, list)) else (size, size)


def _is_size(size: Any) -> bool:
    sides = as_pair(size)
    return len(sides) == 2 and all(rules.is_count(side) and side >= _MIN_SIDE for side in sides)


_PIPELINE: rules.Rule = (
    lambda pipeline: (
        isinstance(pipeline, Pipeline)
        and pipeline.steps
        and hasattr(pipeline.steps[-1][1], "map_and_restore")
    ),
    "a Pipeline whose last step has map_and_restore, as make_mimood_pipeline returns",
)
_SIZE: rules.Rule = (_is_size, f"one or two whole numbers of at least {_MIN_SIDE} pixels")
_MASK: rules.Rule = (
    lambda mask: isinstance(mask, str) and mask,
    "'auto', 'none', 'ct-brain' or the ending of mask files",
)
_INVALID: rules.Rule = (lambda share: 0 <= share <= 1, "a share in [0, 1]")
_N_JOBS: rules.Rule = (
    lambda n: n is None or (isinstance(n, numbers.Integral) and n != 0),
    "None or a whole number other than 0",
)


class SavedDetector(CheckedParameters):
    """The parameters of a ``ScanDetector``, what they must be, and how it is saved and loaded."""

    pipeline: Annotated[Pipeline, _PIPELINE] = field(kw_only=False)
    plane: Annotated[Plane, rules.one_of(_PLANES)] = "axial"
    spacing: Annotated[float | None, rules.or_none(rules.FINITE_POSITIVE)] = None
    size: Annotated[int | tuple[int, int], _SIZE] = 64
    mask: Annotated[str, _MASK] = "auto"
    modality: str | None = None
    min_foreground: Annotated[float, rules.SHARE] = 0.05
    calibration_fraction: Annotated[float, rules.RATE] = 0.15
    fpr: Annotated[float, rules.RATE] = 0.01
    scan_fpr: Annotated[float, rules.RATE] = 0.1
    slice_smoothing: Annotated[float, rules.FINITE_NOT_NEGATIVE] = 5.0
    max_slices: Annotated[int, rules.COUNT] = 20000
    max_bytes: Annotated[int, rules.COUNT] = DEFAULT_MAX_BYTES
    max_invalid: Annotated[float, _INVALID] = 0.01
    random_state: Any = 0
    verbose: bool = False
    volume: Annotated[int | None, rules.or_none(rules.COUNT_OR_ZERO)] = None
    n_jobs: Annotated[int | None, _N_JOBS] = None

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
        fitted = {name: value for name, value in vars(self).items() if name.endswith("_")}
        del fitted["pipeline_"]
        # Numbers travel as arrays: a threshold may be infinite, for which JSON has no word.
        names = (*_NUMBERS, *Domain.of(self).attributes())
        arrays = {name: np.asarray(value) for name in names if (value := fitted.pop(name)) is not None}
        reference = fitted.pop("reference_").to_arrays()
        arrays |= {_REFERENCE + name: array for name, array in reference.items()}
        return arrays, {**fitted, "fit_status_": [asdict(line) for line in self.fit_status_]}

    def __skmimood_restore__(self, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> None:
        """Set the fitted attributes from `__skmimood_state__`; nothing is set if one of them is wrong."""
        # Old models keep these as parameters only.
        learned = {f"{name}_": getattr(self, name) for name in ("plane", "mask")} | {
            "scan_statistic_": TOP_MEAN,
            "n_modalities_": 1,
        }
        fitted = _restored({"slice_smoothing_": np.zeros(()), **arrays}, {**learned, **values})
        if fault := rules.fault_of("pipeline_", self.pipeline_, _PIPELINE):
            raise ModelLoadError(f"{fault}.")
        fitted["calibrated_with_"] = new_settings(fitted["calibrated_with_"], self.pipeline.get_params())
        if "slice_smoothing_" not in arrays:  # a new calibration leaves an old model as it was
            self.slice_smoothing = 0.0
        self.__dict__.update(fitted)


def _restored(arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> dict[str, Any]:
    try:
        fitted: dict[str, Any] = {name: float(np.asarray(arrays[name]).reshape(())) for name in _NUMBERS}
        fitted |= Domain.from_arrays(arrays).attributes()
        fitted["size_"] = tuple(values["size_"])
        fitted |= {
            name: values[name]
            for name in ("plane_", "mask_", "scan_statistic_", "n_scans_", "n_slices_", "n_modalities_")
        }
        fitted["fit_status_"] = [_status(line) for line in values["fit_status_"]]
        fitted |= {name: dict(values[name]) for name in ("calibrated_with_", "suspects_")}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelLoadError(f"the detector's settings are incomplete: {error!r}. Save it again.") from error
    table = {name.removeprefix(_REFERENCE): array for name, array in arrays.items()}
    fitted["reference_"] = HealthyReference.from_arrays(table)
    is_sound = (
        fitted["plane_"] in _PLANES
        and fitted["scan_statistic_"] in (CLUSTER_MASS, TOP_MEAN)
        and isinstance(fitted["mask_"], str)
        and 0 < fitted["spacing_"] < math.inf
        and 0 <= fitted["slice_smoothing_"] < math.inf
        and not any(math.isnan(fitted[name]) for name in _NUMBERS)
        and _is_size(fitted["size_"])
        and all(rules.is_count(fitted[name]) for name in ("n_scans_", "n_slices_", "n_modalities_"))
    )
    if not is_sound:
        raise ModelLoadError("the detector's settings are damaged: a value is out of range. Save it again.")
    return fitted


def _status(line: Mapping[str, Any]) -> ScanStatus:
    if line["status"] not in get_args(StatusName):
        raise ValueError(f"status {line['status']!r}")
    return ScanStatus(**{**line, "shape": tuple(line["shape"]), "spacing": tuple(line["spacing"])})


def inference_settings(pipeline: Pipeline) -> dict[str, Any]:
    """Return the plain parameters of a pipeline's steps, but for those that change no map."""
    return {
        name: value
        for name, value in pipeline.get_params().items()
        if name.rpartition("__")[2] not in _RUNTIME_PARAMETERS
        and (
            value is None
            or isinstance(value, (int, str))
            or (isinstance(value, float) and math.isfinite(value))
        )
    }


def warn_if_changed(pipeline: Pipeline, settings: Mapping[str, Any]) -> None:
    """Warn if a pipeline's `inference_settings` are not the ``settings`` that it was calibrated with."""
    now, present = inference_settings(pipeline), pipeline.get_params()
    known = {name for name in settings if name in present or name.rpartition("__")[2] in RETIRED}
    # A model of another version may know other parameters.
    changed = sorted(name for name in known if (name, settings[name]) not in now.items())
    if changed:
        warn(
            f"{listing(changed)} of pipeline_ changed since the thresholds were set, so that they and the "
            "p-values may not hold now. Set them again with calibrate."
        )
