"""What the tokenizer alone heals: the residual of its reconstruction, without a second stage."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch

from skmimood.maps.base import UntrainedDetector, held_out_slices
from skmimood.maps.residuals import RESIDUALS, clear_surface, filter_maps, residual_maps
from skmimood.tokens.base import check_grid, check_tokenized
from skmimood.tokens.container import TokenizedScans
from skmimood.validation.rules import COUNT_OR_ZERO, ODD, SHARE, one_of


class TokenizerResidual(UntrainedDetector):
    """Residual between a slice and its decoded tokens, none of which is changed.

    A codebook learnt from healthy slices cannot express every lesion, so a tokenizer heals a little by itself. This
    last step after `VQTokenizer` shows how much: it is MIM-OOD (Naval Marimont et al. 2023, section 3.4, step 5), T =
    0.

    Parameters
    ----------
    residual : {"absolute", "positive"}, default="absolute"
        ``"positive"`` counts only pixels brighter than their reconstruction. No refit needed.
    min_filter, mean_filter : int, default=3 and 7
        Sides in pixels, odd, of the filters of the maps; see `MaskedTokenInpainter`. No refit needed.
    erosion : int, default=0
        See `MaskedTokenInpainter`. No refit needed.
    fpr : float in (0, 1), default=0.01
        See `BasePixelDetector`.
    validation_fraction : float in [0, 1), default=0.1
        Share of the healthy slices, taken from the end, that ``threshold_`` is calibrated on: those that the tokenizer
        held out, where it has the same value. Fit again to change it.

    Attributes
    ----------
    grid_, threshold_, calibrated_with_
        See `TokenStep` and `BasePixelDetector`.
    """

    residual: Annotated[str, one_of(RESIDUALS)] = "absolute"
    min_filter: Annotated[int, ODD] = 3
    mean_filter: Annotated[int, ODD] = 7
    erosion: Annotated[int, COUNT_OR_ZERO] = 0
    validation_fraction: Annotated[float, SHARE] = 0.1

    _learnt = ("grid_", "threshold_", "calibrated_with_")
    _check_input = staticmethod(check_tokenized)

    def _validation_fraction(self) -> float:
        return self.validation_fraction

    def _fit(self, healthy: TokenizedScans, held_out: float) -> None:
        self.grid_ = healthy.tokens.shape[1:]

    def _finish(self, healthy: TokenizedScans, held_out: float) -> None:
        self._calibrate(held_out_slices(healthy, held_out))

    def _checked(self, X: Any) -> TokenizedScans:
        return check_grid(X, self.grid_)

    def _detect(self, X: TokenizedScans) -> tuple[np.ndarray, np.ndarray]:
        decoded = X.tokenizer.decode_tensor(torch.from_numpy(X.tokens)).cpu()
        seen = torch.from_numpy(X.tokenizer.seen(X.images))
        maps, _ = residual_maps(seen, decoded[:, None], self.residual, "mean", 0.0)
        maps = clear_surface(filter_maps(maps, self.min_filter, self.mean_filter), X.images, self.erosion)
        return maps.numpy(), X.tokenizer.unseen(decoded.numpy(), X.images)
