"""What the detectors that train no network share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from scipy import ndimage

from skmimood.exceptions import ModelLoadError
from skmimood.maps.base import BasePixelDetector
from skmimood.preprocessing.heads import eroded


class UntrainedDetector(BasePixelDetector):
    """Base of the last steps that train no network: parameters checked, and what was learnt saved.

    ``_arrays`` says which shapes the learnt arrays have (None for any size), ``_learnt`` what else.
    """

    _arrays: ClassVar[Mapping[str, tuple[int | None, ...]]] = {}

    def _finish(self, healthy: Any, held_out: float) -> None:
        self._calibrate(healthy)

    def _inference_parameters(self, X: Any) -> dict[str, Any]:
        return {name: value for name, value in self.get_params().items() if name != "random_state"}

    def __skmimood_state__(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return what was learnt as arrays and JSON values, for `skmimood.save_model`."""
        return self._values(*self._arrays), self._values(*self._learnt)

    def __skmimood_restore__(self, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> None:
        """Set what was learnt; nothing is set unless it is complete and of the right shapes."""
        if {*arrays, *values} != {*self._arrays, *self._learnt}:
            raise ModelLoadError(
                f"{type(self).__name__} should have learnt {sorted([*self._arrays, *self._learnt])}; the file has "
                f"{sorted([*arrays, *values])}."
            )
        for name, shape in self._arrays.items():
            if not _fits(arrays[name].shape, shape) or not np.isfinite(arrays[name]).all():
                raise ModelLoadError(
                    f"{name} of {type(self).__name__} has a wrong shape or holds NaN or infinity."
                )
        for name, value in (dict(values) | dict(arrays)).items():
            setattr(self, name, tuple(value) if isinstance(value, list) else value)


def finish_maps(scores: np.ndarray, heads: np.ndarray, smoothing: float, erosion: int) -> np.ndarray:
    """Smooth scores (n, H, W) inside the heads and set them to 0 outside the eroded heads; see `IntensityThreshold`."""
    maps = np.where(heads, scores, 0).astype(np.float32)
    if smoothing > 0:
        maps = ndimage.gaussian_filter(maps, (0, smoothing, smoothing))
    return maps * eroded(heads, erosion)


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        side == want or (want is None and side > 0) for side, want in zip(shape, wanted, strict=True)
    )
