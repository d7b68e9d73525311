"""From restorations to a pixel map: residual, combination of R restorations, min and mean filters."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skmimood.preprocessing.heads import eroded, head_masks

COMBINATIONS = ("similarity", "mean", "median", "min")
REFERENCES = ("image", "reconstruction")
RESIDUALS = ("absolute", "positive")
WEIGHTS = ("none", "changed", "anomaly")


def residual_maps(
    reference: Tensor, healed: Tensor, residual: str, combination: str, sharpness: float
) -> tuple[Tensor, Tensor]:
    """Combine the residuals of R restorations.

    Parameters
    ----------
    reference : Tensor of shape (n, H, W)
        What the restorations are compared with.
    healed : Tensor of shape (n, R, H, W)
        The decoded restorations.
    residual : {"absolute", "positive"}
        ``"positive"`` counts only what is brighter than its restoration (Baur et al. 2021).
    combination : {"similarity", "mean", "median", "min"}
        ``"similarity"`` weights restoration r by softmax(sharpness * mean(d) / d_r), d_r being its mean
        residual over the image: the scale-free form of Naval Marimont & Tarroni (ISBI 2021), whose
        softmax(3 / d_r) was made for z-scored images. The others act on each pixel.
    sharpness : float >= 0
        0 is the mean; large values take the nearest restoration.

    Returns
    -------
    maps, healed : Tensor of shape (n, H, W)
        Combined residuals, and the restorations averaged with the same weights.
    """
    difference = reference[:, None] - healed
    residuals = difference.clamp(min=0) if residual == "positive" else difference.abs()
    if combination == "similarity":
        distance = difference.abs().mean((2, 3)).clamp(min=1e-12)  # (n, R)
        weights = torch.softmax(sharpness * distance.mean(1, keepdim=True) / distance, dim=1)[..., None, None]
        return (weights * residuals).sum(1), (weights * healed).sum(1)
    if combination == "median":
        return residuals.quantile(0.5, dim=1), healed.mean(1)
    if combination == "min":
        return residuals.amin(1), healed.mean(1)
    return residuals.mean(1), healed.mean(1)


def upsample(values: Tensor, factor: int, image_shape: tuple[int, ...]) -> Tensor:
    """Interpolate values of tokens (n, h, w), ``factor`` pixels a side, bilinearly to pixels (n, H, W).

    Tokens that reach beyond the image, which was padded to whole tokens at the right and bottom, are cut off there.
    """
    height, width = image_shape
    pixels = F.interpolate(values[:, None], scale_factor=factor, mode="bilinear", align_corners=False)
    return pixels[:, 0, :height, :width]


def filter_maps(maps: Tensor, min_filter: int, mean_filter: int) -> Tensor:
    """Apply a minimum, then a mean filter of odd sizes in pixels to maps (n, H, W).

    The minimum removes the thin residuals of edges that a blurred decoder leaves. Windows are cut off at
    the border, where zero padding would lower the scores.
    """
    maps = -F.max_pool2d(-maps[:, None], min_filter, stride=1, padding=min_filter // 2)
    maps = F.avg_pool2d(maps, mean_filter, stride=1, padding=mean_filter // 2, count_include_pad=False)
    return maps[:, 0]


def clear_surface(maps: Tensor, images: np.ndarray, erosion: int) -> Tensor:
    """Set maps (n, H, W) to 0 outside the eroded heads of the slices; an ``erosion`` of 0 pixels leaves them."""
    return maps * torch.from_numpy(eroded(head_masks(images), erosion)) if erosion else maps
