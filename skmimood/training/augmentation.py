"""Augmentation: intensities for the tokenizer, flips and rotations for the token models (MIM-OOD section 4)."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skmimood.runtime.streams import normal_draws, uniform_draws


def vary_intensity(images: Tensor, generator: torch.Generator) -> Tensor:
    """Vary gamma, gain, offset, bias field, blur and noise of images (n, C, H, W) in [0, 1].

    The paper says only "broader than usual". Ours, drawn independently for each channel of each sample: gamma log-
    uniform in [0.5, 2], gain in [0.7, 1.3], offset in [-0.1, 0.1], a smooth bias field of up to 30 %, blur of up to
    sigma = 1.5 pixels, Gaussian noise of sigma up to 0.05. Pixels of 0 (outside the brain or head) stay 0.
    """
    shape = images.shape
    images = images.flatten(0, 1)[:, None]

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * uniform_draws(generator, len(images), *(shape or (1, 1, 1)))

    foreground = images > 0
    varied = images.clamp(0, 1) ** torch.exp(uniform(-math.log(2), math.log(2)))
    bias = F.interpolate(uniform(-0.3, 0.3, 1, 4, 4), images.shape[-2:], mode="bicubic", align_corners=False)
    varied = varied * uniform(0.7, 1.3) * (1 + bias) + uniform(-0.1, 0.1)
    varied = torch.lerp(varied, _blur(varied, sigma=1.5), uniform(0, 1) * (uniform(0, 1) < 0.5))
    noise = normal_draws(generator, *images.shape)
    varied = varied + noise * uniform(0, 0.05) * (uniform(0, 1) < 0.5)
    return (varied.clamp(0, 1) * foreground).view(shape)


def _blur(images: Tensor, sigma: float) -> Tensor:
    radius = math.ceil(2 * sigma)
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    with torch.autocast(images.device.type, enabled=False):
        images = F.conv2d(images, kernel, padding=(0, radius))
        return F.conv2d(images, kernel.transpose(2, 3), padding=(radius, 0))


def mirror_half(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirror each of images (n, ..., W) along the last axis with probability 1/2."""
    is_mirrored = rng.random(len(images)) < 0.5
    return np.where(is_mirrored.reshape(-1, *[1] * (images.ndim - 1)), images[..., ::-1], images)


def flip_and_rotate(
    images: Tensor, generator: torch.Generator, *, flip: bool = True, max_degrees: float = 15.0
) -> Tensor:
    """Flip images (n, c, H, W) along the last axis with probability 1/2, if ``flip``, and rotate them.

    Angles are uniform in [-max_degrees, max_degrees]; the paper gives no range.
    """
    n, _, height, width = images.shape
    angle = (2 * uniform_draws(generator, n) - 1) * math.radians(max_degrees)
    mirrored = uniform_draws(generator, n) < (0.5 if flip else 0.0)
    sign = 1 - 2 * mirrored.to(images.dtype)
    cosine, sine, zero = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    # Coordinates of affine_grid run from -1 to 1 along each axis, whatever its length.
    aspect = height / width
    rows = (
        torch.stack([cosine * sign, -sine * aspect, zero], 1),
        torch.stack([sine * sign / aspect, cosine, zero], 1),
    )
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
