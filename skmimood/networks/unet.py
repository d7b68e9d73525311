"""The U-Net of the denoising autoencoder (Kascenas et al. 2022): standardised convolutions, GroupNorm, swish."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class StandardisedConv(nn.Conv2d):
    """3x3 convolution whose filters are brought to mean 0 and variance 1 at each use (Qiao et al. 2019)."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(n_in, n_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, n_in, H, W) to (n, n_out, H, W)."""
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True)
        return self._conv_forward(x, (self.weight - mean) * torch.rsqrt(variance + 1e-5), self.bias)


def _block(n_in: int, n_out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (n_in, n_out):
        layers += [StandardisedConv(width, n_out), nn.GroupNorm(math.gcd(8, n_out), n_out), nn.SiLU()]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Images (n, 1, H, W) to images of the same shape, whatever their height and width.

    Parameters
    ----------
    widths : sequence of int
        Channels of each level; each level but the first halves the resolution.
    """

    def __init__(self, *, widths: Sequence[int]) -> None:
        super().__init__()
        self.factor = 2 ** (len(widths) - 1)
        self.down = nn.ModuleList(map(_block, [1, *widths[:-1]], widths))
        wide, narrow = widths[:0:-1], widths[-2::-1]  # below and above each doubling, the lowest first
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(n_in, n_out, 2, stride=2) for n_in, n_out in zip(wide, narrow, strict=True)
        )
        self.merge = nn.ModuleList(_block(2 * width, width) for width in narrow)
        self.to_image = nn.Conv2d(widths[0], 1, 1)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights: torch's own default for convolutions (He et al. 2015, a = sqrt(5))."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
                bound = 1 / math.sqrt(module.weight[0].numel())
                assert module.bias is not None
                nn.init.uniform_(module.bias, -bound, bound, generator=generator)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, 1, H, W) to images (n, 1, H, W)."""
        height, width = images.shape[-2:]
        x = F.pad(images, (0, -width % self.factor, 0, -height % self.factor))
        skipped: list[Tensor] = []
        for block in self.down:
            x = block(F.avg_pool2d(x, 2) if skipped else x)
            skipped.append(x)
        skipped.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([up(x), skipped.pop()], dim=1))
        # In float32: the eight bits of a bfloat16 mantissa would show as steps in the residual.
        with torch.autocast(x.device.type, enabled=False):
            return self.to_image(x.float())[..., :height, :width]
