"""What token detectors and restorers share, whatever their networks."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from sklearn.base import TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skmimood._device import out_of_memory_advice
from skmimood._residuals import COMBINATIONS, REFERENCES, filter_maps, residual_maps
from skmimood._trained_step import TrainedStep, is_count, run_in_batches
from skmimood._training import split_validation
from skmimood.calibration import HealthyReference
from skmimood.exceptions import InputError, SkmimoodWarning
from skmimood.scans import TokenizedScans


def check_tokenized(X: Any) -> TokenizedScans:
    """Return ``X`` if it is what the step before produces, else raise `InputError`."""
    if not isinstance(X, TokenizedScans):
        raise InputError(
            f"X must be TokenizedScans, the output of VQTokenizer.transform; got {type(X).__name__}. "
            "Use the steps in a Pipeline, as make_mimood_pipeline builds it."
        )
    return X


def check_grid(X: Any, grid: tuple[int, int]) -> None:
    """Raise `InputError` unless ``X`` has the token grid seen in fit."""
    if check_tokenized(X).tokens.shape[1:] != grid:
        raise InputError(
            f"X must have {grid[0]} x {grid[1]} tokens a slice as in fit; got {X.tokens.shape[1:]}. Tokenise it "
            "with the tokenizer that the fit had."
        )


def detector_of(X: Any) -> BaseTokenDetector:
    """Return the detector that ``X`` has passed, else raise `InputError`."""
    detector = check_tokenized(X).detector
    if detector is None:
        raise InputError("X has not passed a token detector; transform it with one first.")
    return detector


class BaseTokenDetector(TransformerMixin, TrainedStep):
    """Base of the steps that score tokens: higher is more anomalous.

    Subclasses implement ``_score_tokens(tokens (n, h, w) tensor) -> (n, h, w) tensor`` and have a
    parameter ``threshold``, the score above which a token is resampled.
    """

    threshold: float
    grid_: tuple[int, int]

    @abstractmethod
    def _score_tokens(self, tokens: Tensor) -> Tensor: ...

    def score_tensor(self, tokens: Tensor) -> Tensor:
        """Score tokens (n, h, w) that are on this estimator's device already; same as `decision_function`."""
        return self._score_tokens(tokens)

    def decision_function(self, X: TokenizedScans) -> np.ndarray:
        """Score every token.

        Parameters
        ----------
        X : TokenizedScans of n slices

        Returns
        -------
        ndarray of shape (n, h, w), float32
            Higher is more anomalous.
        """
        check_is_fitted(self)
        check_grid(X, self.grid_)
        tokens = torch.from_numpy(X.tokens).to(self._torch_device)
        return run_in_batches(self._score_tokens, tokens, self.batch_size).cpu().numpy()

    def transform(self, X: TokenizedScans) -> TokenizedScans:
        """Return ``X`` with its ``anomaly`` scores and this ``detector``."""
        X = check_tokenized(X)
        return TokenizedScans(X.images, X.tokens, X.tokenizer, self.decision_function(X), self)


class BaseRestorer(TrainedStep):
    """Base of the last steps: they restore tokens and turn the change into a pixel map.

    Subclasses implement ``_restore_chunk(X) -> (n, R, h, w) int64 tensor``. The pixel map is
    computed here, once for all restorers: decode the R restorations, take the residual, combine,
    filter (MIM-OOD section 3.4, step 5).

    Attributes
    ----------
    threshold_ : float
        Map value above which `predict` calls a pixel anomalous: exceeded by a share ``fpr`` of the foreground
        (intensity above 0) of the healthy slices whose loss chose the best weights.
    calibrated_with_ : dict
        The inference parameters that it belongs to.
    """

    combination: str
    fpr: float
    mean_filter: int
    min_filter: int
    residual_reference: str
    sharpness: float
    validation_fraction: float
    threshold_: float
    grid_: tuple[int, int]
    _max_calibration_slices = 32

    @abstractmethod
    def _restore_chunk(self, X: TokenizedScans) -> Tensor: ...

    def _inference_parameters(self, X: TokenizedScans) -> dict[str, Any]:
        """Return every parameter that changes maps but not networks."""
        names = ["combination", "sharpness", "residual_reference", "min_filter", "mean_filter", "fpr"]
        return {name: getattr(self, name) for name in names}

    def restore(self, X: TokenizedScans) -> np.ndarray:
        """Return the tokens of all restorations, shape (n, R, h, w), int64."""
        check_is_fitted(self)
        self._check_parameters()
        chunks = [self._restore_chunk(chunk).cpu() for chunk in self._chunks(check_tokenized(X))]
        return torch.cat(chunks).numpy()

    def detect(self, X: TokenizedScans) -> tuple[np.ndarray, np.ndarray]:
        """Return the anomaly maps and the healed slices of one and the same restoration.

        Parameters
        ----------
        X : TokenizedScans of n slices

        Returns
        -------
        maps : ndarray of shape (n, H, W), float32
            In [0, 1]; higher is more anomalous.
        healed : ndarray of shape (n, H, W), float32
            The restorations, weighted as in the maps.
        """
        check_is_fitted(self)
        self._check_parameters()
        parts = [self._detect_chunk(chunk) for chunk in self._chunks(check_tokenized(X))]
        maps, healed = (torch.cat(list(part)).numpy() for part in zip(*parts, strict=True))
        return maps, healed

    def decision_function(self, X: TokenizedScans) -> np.ndarray:
        """Return the pixel anomaly maps, shape (n, H, W), float32 in [0, 1]; higher is more anomalous."""
        return self.detect(X)[0]

    def transform(self, X: TokenizedScans) -> np.ndarray:
        """Return the healed slices, shape (n, H, W), float32 in [0, 1]."""
        return self.detect(X)[1]

    def predict(self, X: TokenizedScans) -> np.ndarray:
        """Return masks (n, H, W), bool: map values above ``threshold_``."""
        maps = self.decision_function(X)
        if self._inference_parameters(X) != self.calibrated_with_:
            warnings.warn(
                "threshold_ was calibrated with other inference parameters; fit again (trained networks come "
                "from the cache) or set threshold_ yourself.",
                SkmimoodWarning, stacklevel=2,
            )  # fmt: skip
        return maps > self.threshold_

    def score(self, X: TokenizedScans, y: Any) -> float:
        """Return the average precision over all pixels of masks ``y`` (n, H, W)."""
        from skmimood.metrics import pixel_average_precision_scorer

        return pixel_average_precision_scorer(self, X, y)

    def _chunks(self, X: TokenizedScans) -> Iterator[TokenizedScans]:
        check_grid(X, self.grid_)
        with out_of_memory_advice(self.batch_size):
            for start in range(0, len(X), self.batch_size):
                yield X[start : start + self.batch_size]

    def _detect_chunk(self, X: TokenizedScans) -> tuple[Tensor, Tensor]:
        restored = self._restore_chunk(X)  # (n, R, h, w)
        n, n_restorations = restored.shape[:2]
        decode = X.tokenizer.decode_tensor
        images = torch.from_numpy(X.images)
        healed = decode(restored.flatten(0, 1)).cpu().unflatten(0, (n, n_restorations))  # (n, R, H, W)
        reference = images if self.residual_reference == "image" else decode(torch.from_numpy(X.tokens)).cpu()
        maps, healed = residual_maps(reference, healed, self.combination, self.sharpness)
        return filter_maps(maps, self.min_filter, self.mean_filter), healed

    def _calibrate(self, X: TokenizedScans) -> None:
        """Set ``threshold_`` on the foreground of the healthy slices that chose the best weights."""
        held_out = split_validation(len(X), self.validation_fraction)[1]
        if len(held_out) == 0:
            held_out = np.arange(len(X))
            warnings.warn(
                f"threshold_ is calibrated on the {len(X)} training slices themselves, since none were held out, and "
                "will be too low. Pass more slices or raise validation_fraction.",
                SkmimoodWarning, stacklevel=4,
            )  # fmt: skip
        spread = np.linspace(0, len(held_out) - 1, min(len(held_out), self._max_calibration_slices)).astype(
            int
        )
        X = X[held_out[spread]]
        maps = self.decision_function(X)
        foreground = X.images > 0
        pixels = maps[foreground] if foreground.any() else maps
        self.threshold_ = HealthyReference.from_scans([(pixels, 0.0)]).pixel_threshold(self.fpr)
        self.calibrated_with_ = self._inference_parameters(X)

    def _parameter_faults(self) -> Iterator[str]:
        yield from super()._parameter_faults()
        yield from self._faults("combination", lambda name: name in COMBINATIONS, f"one of {COMBINATIONS}")
        yield from self._faults("sharpness", lambda value: value >= 0, "a number of at least 0")
        yield from self._faults("residual_reference", lambda name: name in REFERENCES, f"one of {REFERENCES}")
        for name in ("min_filter", "mean_filter"):
            yield from self._faults(
                name,
                lambda size: is_count(size) and size % 2 == 1,
                "an odd number of pixels, 1 for no filter",
            )
        yield from self._faults("fpr", lambda rate: 0 < rate < 1, "a number in (0, 1)")
