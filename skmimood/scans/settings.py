"""Whether a pipeline still has the parameters that its thresholds were calibrated with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from skmimood.scans.wording import listing, warn

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

_RUNTIME_PARAMETERS = ("batch_size", "device", "memory", "verbose", "checkpoint_dir", "resume")


def inference_settings(pipeline: Pipeline) -> dict[str, Any]:
    """Return the plain parameters of a pipeline's steps, but for those that change no map."""
    return {
        name: value
        for name, value in pipeline.get_params().items()
        if name.rpartition("__")[2] not in _RUNTIME_PARAMETERS
        and (value is None or isinstance(value, (bool, int, str)) or _is_finite_float(value))
    }


def warn_if_changed(pipeline: Pipeline, settings: Mapping[str, Any]) -> None:
    """Warn if a pipeline's `inference_settings` are not the ``settings`` that it was calibrated with."""
    now = inference_settings(pipeline)
    changed = sorted(name for name in now.keys() | settings.keys() if now.get(name) != settings.get(name))
    if changed:
        warn(
            f"{listing(changed)} of pipeline_ changed since the thresholds were set, so that they and the "
            "p-values may not hold now. Set them again with calibrate."
        )


def _is_finite_float(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value)
