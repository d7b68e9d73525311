"""From restorations to a pixel map: residual, combination of R restorations, min and mean filters."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from skmimood.preprocessing.heads import eroded, head_masks
from skmimood.validation.estimator import CheckedParameters, ParameterGroup
from skmimood.validation.rules import COUNT_OR_ZERO, NOT_NEGATIVE, ODD, POSITIVE, one_of

COMBINATIONS = ("similarity", "mean", "median", "min")
RESIDUALS = ("absolute", "positive")
WEIGHTS = ("none", "changed", "anomaly")
FUSIONS = ("none", "geometric")


class ResidualMaps(ParameterGroup):
    """How restorations become an anomaly map: residual, combination, weight and filters (MIM-OOD section 3.4, step 5).

    The restorers take it as ``maps``. None of it needs a refit. Of slices of several channels, the residual of a pixel
    is the mean of those of its channels.

    Parameters
    ----------
    residual : {"absolute", "positive"}, default="absolute"
        ``"positive"`` counts only pixels brighter than their restoration, a prior for lesions that are bright, as
        those of FLAIR are (paper: absolute).
    residual_weight : {"none", "changed", "anomaly"}, default="none"
        What the residual is multiplied by, interpolated from tokens to pixels (paper: nothing): the share of
        restorations that changed the token (the resampling mask of Pinaya et al. 2022), or the score of the token
        detector before this step.
    weight_power : float > 0, default=1.0
        Power of that factor (Pinaya et al.: 1).
    combination : {"similarity", "mean", "median", "min"}, default="similarity"
        How R maps become one (paper silent). ``"similarity"`` weights the restorations nearer to the slice more, as the
        authors' earlier work does (Naval Marimont & Tarroni 2021).
    sharpness : float >= 0, default=3.0
        Of ``"similarity"``: 0 is the mean, large values take the nearest restoration (3 in that work).
    min_filter : int, default=3
        Side of the minimum filter in pixels, odd (paper: a min filter; size from the authors' earlier code, 3 x 3 x 3).
    mean_filter : int, default=7
        Side of the mean filter that follows, odd (size from the same code: 7 x 7 in plane).
    fusion : {"none", "geometric"}, default="none"
        ``"geometric"``: the map is the geometric mean of what the lines above make and of the evidence from pixels,
        where the slices have passed a `PixelEvidence` (paper: none). Both must see a lesion, and what is high in both
        need not be calibrated: a factor of either scales the whole map.
    erosion : int, default=0
        Maps are 0 outside the head or brain and within this many pixels of its surface, to leave out a scalp that has
        not been stripped; 0 leaves them as they are (paper).
    """

    residual: Annotated[str, one_of(RESIDUALS)] = "absolute"
    residual_weight: Annotated[str, one_of(WEIGHTS)] = "none"
    weight_power: Annotated[float, POSITIVE] = 1.0
    combination: Annotated[str, one_of(COMBINATIONS)] = "similarity"
    sharpness: Annotated[float, NOT_NEGATIVE] = 3.0
    min_filter: Annotated[int, ODD] = 3
    mean_filter: Annotated[int, ODD] = 7
    fusion: Annotated[str, one_of(FUSIONS)] = "none"
    erosion: Annotated[int, COUNT_OR_ZERO] = 0


def residual_maps(
    reference: Tensor, healed: Tensor, residual: str, combination: str, sharpness: float
) -> tuple[Tensor, Tensor]:
    """Combine the residuals between slices (n, H, W) and their R decoded restorations (n, R, H, W).

    Of slices (n, C, H, W) and restorations (n, R, C, H, W), a residual is the mean of those of the C channels.
    ``"similarity"`` weights restoration r by softmax(sharpness * mean(d) / d_r), d_r being its mean residual over the
    image: the scale-free form of Naval Marimont & Tarroni (ISBI 2021), whose softmax(3 / d_r) was made for z-scored
    images. The other combinations act on each pixel. Returns the maps (n, H, W) and the averaged restorations, of the
    shape of the slices.
    """
    difference = reference[:, None] - healed
    residuals = difference.clamp(min=0) if residual == "positive" else difference.abs()
    if residuals.ndim == 5:
        residuals = residuals.mean(2)
    if combination == "similarity":
        distance = difference.abs().mean(tuple(range(2, difference.ndim))).clamp(min=1e-12)  # (n, R)
        weights = torch.softmax(sharpness * distance.mean(1, keepdim=True) / distance, dim=1)
        averaged = (weights.reshape(*weights.shape, *[1] * (healed.ndim - 2)) * healed).sum(1)
        return (weights[..., None, None] * residuals).sum(1), averaged
    if combination == "median":
        return residuals.quantile(0.5, dim=1), healed.mean(1)
    if combination == "min":
        return residuals.amin(1), healed.mean(1)
    return residuals.mean(1), healed.mean(1)


def upsample(values: Tensor, factor: int, image_shape: tuple[int, ...]) -> Tensor:
    """Interpolate values of tokens (n, h, w), ``factor`` pixels a side, bilinearly to pixels (n, H, W).

    What reaches beyond the image, which was padded to whole tokens, is cut off.
    """
    height, width = image_shape
    pixels = F.interpolate(values[:, None], scale_factor=factor, mode="bilinear", align_corners=False)
    return pixels[:, 0, :height, :width]


def filter_maps(maps: Tensor, min_filter: int, mean_filter: int) -> Tensor:
    """Apply a minimum, then a mean filter of odd sizes to maps (n, H, W), with windows cut off at the border."""
    maps = -F.max_pool2d(-maps[:, None], min_filter, stride=1, padding=min_filter // 2)
    maps = F.avg_pool2d(maps, mean_filter, stride=1, padding=mean_filter // 2, count_include_pad=False)
    return maps[:, 0]


def median_maps(maps: Tensor, median_filter: int) -> Tensor:
    """Apply a median filter of odd size to maps (n, H, W) in the memory of the CPU."""
    return torch.from_numpy(ndimage.median_filter(maps.numpy(), (1, median_filter, median_filter)))


def clear_surface(maps: Tensor, images: np.ndarray, erosion: int) -> Tensor:
    """Set maps (n, H, W) to 0 outside the eroded heads of the slices; an ``erosion`` of 0 pixels leaves them."""
    return maps * torch.from_numpy(eroded(head_masks(images), erosion)) if erosion else maps


def finish_maps(scores: np.ndarray, heads: np.ndarray, smoothing: float, erosion: int) -> np.ndarray:
    """Smooth scores (n, H, W) inside the heads and set them to 0 outside the eroded heads; see `IntensityThreshold`."""
    maps = np.where(heads, scores, 0).astype(np.float32)
    if smoothing > 0:
        maps = ndimage.gaussian_filter(maps, (0, smoothing, smoothing))
    return maps * eroded(heads, erosion)


class MedianResiduals(CheckedParameters):
    """Base of the estimators whose maps are the residuals inside the eroded heads, filtered by a median."""

    residual: Annotated[str, one_of(RESIDUALS)] = "absolute"
    erosion: Annotated[int, COUNT_OR_ZERO] = 2
    median_filter: Annotated[int, ODD] = 5

    def _residuals(self, images: Tensor, restored: Tensor, heads: np.ndarray) -> Tensor:
        """Return the maps (n, H, W) of slices (n, H, W) or (n, C, H, W) and their restorations, on the CPU."""
        maps, _ = residual_maps(images, restored[:, None], self.residual, "mean", 0.0)
        return median_maps(maps.cpu() * torch.from_numpy(eroded(heads, self.erosion)), self.median_filter)
