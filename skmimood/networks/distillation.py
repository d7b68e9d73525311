"""The bottleneck and the student of reverse distillation (Deng & Li 2022), over the features of a frozen encoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skmimood.networks.features import make_encoder
from skmimood.networks.weights import in_float32, initialise_convolutions


def _block(n_in: int, n_out: int, kernel_size: int = 3, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(n_in, n_out, kernel_size, stride, padding=kernel_size // 2)
    return nn.Sequential(convolution, nn.GroupNorm(math.gcd(8, n_out), n_out), nn.SiLU())


class ReverseDistiller(nn.Module):
    """Images (n, 1, H, W) to how far the student is from the teacher at each of its feature maps, [(n, h, w), ...].

    The teacher's maps, of ``feature_widths`` channels and the finest first, are joined at the size of the coarsest,
    reduced to half of it, and made anew from there, the coarsest first. ``encoder`` are the sizes of the teacher, see
    `make_encoder`; without any, the caller sets it.
    """

    def __init__(self, *, feature_widths: Sequence[int], **encoder: Any) -> None:
        super().__init__()
        self.encoder = make_encoder(**encoder)
        coarsest = feature_widths[-1]
        self.bottleneck_in = nn.ModuleList(_block(width, width) for width in feature_widths)
        self.bottleneck = nn.Sequential(
            _block(sum(feature_widths), coarsest, kernel_size=1),
            _block(coarsest, 2 * coarsest, stride=2),
            _block(2 * coarsest, 2 * coarsest),
        )
        outputs = feature_widths[::-1]
        self.student = nn.ModuleList(
            nn.Sequential(_block(n_in, n_out), _block(n_out, n_out))
            for n_in, n_out in zip((2 * coarsest, *outputs), outputs, strict=False)
        )
        self.to_features = nn.ModuleList(nn.Conv2d(width, width, 1) for width in outputs)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights; see `initialise_convolutions`."""
        initialise_convolutions(self, generator)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the cosine distances, in [0, 2], the finest first."""
        assert self.encoder is not None
        with torch.no_grad():
            features = self.encoder(images)
        size = features[-1].shape[-2:]
        joined = [
            F.adaptive_avg_pool2d(block(one), size)
            for block, one in zip(self.bottleneck_in, features, strict=True)
        ]
        x = self.bottleneck(torch.cat(joined, dim=1))
        distances = []
        for one, block, head in zip(features[::-1], self.student, self.to_features, strict=True):
            x = block(F.interpolate(x, one.shape[-2:]))
            distances.append(1 - F.cosine_similarity(in_float32(head, x), one.float(), dim=1))
        return distances[::-1]
