"""What every last step offers, whatever makes its maps: maps, healed slices, masks and a calibrated threshold."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skmimood.exceptions import ModelLoadError, ModelSaveError, listing, warn
from skmimood.maps.conformal import HealthyReference
from skmimood.maps.healing import blend
from skmimood.preprocessing.channels import across_channels
from skmimood.preprocessing.heads import have_heads, head_masks
from skmimood.training.loop import split_validation
from skmimood.validation.estimator import SliceEstimator
from skmimood.validation.images import check_images
from skmimood.validation.learnt import as_learnt
from skmimood.validation.rules import RATE


class BasePixelDetector(SliceEstimator):
    """Base of the last steps of a pipeline, from slices or their tokens to pixel maps.

    Subclasses implement ``_fit``, ``_detect`` and ``_inference_parameters``.

    Parameters
    ----------
    fpr : float in (0, 1), default=0.01
        Share of held-out healthy pixels above ``threshold_``. Fit again to change it: training is cached.

    Attributes
    ----------
    threshold_ : float
        Map value above which `predict` calls a pixel anomalous: exceeded by a share ``fpr`` of the pixels in the
        heads or brains (see `head_masks`) of the healthy slices that were held out of the training.
    calibrated_with_ : dict
        The inference parameters that it belongs to.
    image_shape_ : tuple of int
        Of a detector of slices: height and width seen in fit, after the number of channels where slices have them.
    """

    _learnt: ClassVar[tuple[str, ...]] = ("image_shape_", "threshold_", "calibrated_with_")

    fpr: Annotated[float, RATE] = 0.01

    @abstractmethod
    def _detect(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the anomaly maps (n, H, W) and the restored slices, of the shape of what `_checked` has returned."""

    @abstractmethod
    def _inference_parameters(self, X: Any) -> dict[str, Any]:
        """Return every parameter that changes maps but needs no refit."""

    def _checked(self, X: Any) -> Any:
        """Return the slices in the form that ``_detect`` takes, or raise `InputError`."""
        return check_images(X, self.image_shape_)

    def detect(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the anomaly maps and the healed slices of one run.

        ``X`` is of the kind that the step was fitted on. Of slices that show no head (black, even, noise of the air,
        specks) the maps are 0, and nothing is healed.

        Returns
        -------
        maps : ndarray of shape (n, H, W), float32
            Higher is more anomalous; see the class for units.
        healed : ndarray of the shape of the slices, (n, H, W) or (n, C, H, W), float32
            The slices without what is abnormal, in [0, 1]: the slice itself off the head and where the map is at most
            ``threshold_``, what `map_and_restore` returns where it is above twice of that, and a mixture between.
        """
        images, maps, restored = self._restored(X)
        return maps, blend(images, restored, across_channels(maps, images), self.threshold_).clip(0, 1)

    def map_and_restore(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the anomaly maps of `detect`, and all of the restored slices that it heals from.

        `ScanDetector` heals from them by maps that it has averaged across slices.

        Returns
        -------
        maps : ndarray of shape (n, H, W), float32
        restored : ndarray of the shape of the slices, float32
            What a healthy slice would look like; off the head the slice itself.
        """
        return self._restored(X)[1:]

    def _restored(self, X: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the slices, their maps (n, H, W) and what they are restored to, off the head themselves."""
        images, maps, restored, have_head = self._run(X)
        heads = head_masks(images) & have_head[:, None, None]
        return images, maps, np.where(across_channels(heads, images), restored, images)

    def _run(self, X: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the slices, their maps (n, H, W), what ``_detect`` restored, and which show a head, (n,)."""
        check_is_fitted(self)
        self._check_parameters()
        X = self._checked(X)
        maps, restored = self._detect(X)
        images = slices_of(X)
        have_head = have_heads(images)
        maps[~have_head] = 0
        return images, maps, restored, have_head

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the pixel anomaly maps, shape (n, H, W), float32; higher is more anomalous."""
        return self._run(X)[1]

    def transform(self, X: Any) -> np.ndarray:
        """Return the healed slices, of the shape of the slices, float32 in [0, 1]."""
        return self.detect(X)[1]

    def predict(self, X: Any) -> np.ndarray:
        """Return masks (n, H, W), bool: map values above ``threshold_``."""
        maps = self.decision_function(X)
        if self._inference_parameters(X) != self.calibrated_with_:
            warn(
                "threshold_ was calibrated with other inference parameters; fit again (trained networks come "
                "from the cache) or set threshold_ yourself."
            )
        return maps > self.threshold_

    def score(self, X: Any, y: Any) -> float:
        """Return the average precision over all pixels of masks ``y`` (n, H, W)."""
        from skmimood.metrics import pixel_average_precision_scorer

        return pixel_average_precision_scorer(self, X, y)

    def _finish(self, healthy: Any, held_out: float) -> None:
        self._calibrate(held_out_slices(healthy, held_out))

    def _calibrate(self, X: Any) -> None:
        """Set ``threshold_`` on the heads of healthy slices."""
        maps, heads = self.decision_function(X), head_masks(slices_of(X))
        pixels = maps[heads] if heads.any() else maps
        self.threshold_ = HealthyReference.from_scans([(pixels, 0.0)]).pixel_threshold(self.fpr)
        self.calibrated_with_ = self._inference_parameters(X)


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
        named = {*self._arrays, *self._learnt}
        if lost := sorted(name for name in vars(self) if name.endswith("_") and name not in named):
            raise ModelSaveError(
                f"{type(self).__name__} has learnt {listing(lost)}, which would be lost. Name arrays in its _arrays "
                "and other values in its _learnt."
            )
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
        for name, value in (as_learnt(values) | dict(arrays)).items():
            setattr(self, name, value)


def slices_of(X: Any) -> np.ndarray:
    """Return the slices (n, H, W) or (n, C, H, W) themselves, of an array or of `TokenizedScans`."""
    return getattr(X, "images", X)


def held_out_slices(X: Any, share: float) -> Any:
    """Return the share at the end of ``X`` that a training holds out; all, with a warning, if it holds out none."""
    held_out = split_validation(len(X), share)[1]
    if len(held_out):
        return X[held_out]
    warn(
        f"threshold_ is calibrated on the {len(X)} training slices themselves, since none were held out, and "
        "will be too low. Pass more slices or raise validation_fraction.",
        stacklevel=5,
    )
    return X


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        side == want or (want is None and side > 0) for side, want in zip(shape, wanted, strict=True)
    )
