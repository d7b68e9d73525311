"""The U-Net of Kascenas et al. (2022), over images or over tokens: standardised convolutions, GroupNorm, swish."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skmimood.networks.weights import in_float32, initialise_convolutions


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
    """Images (n, n_inputs, H, W) to (n, n_outputs, H, W); each level of ``widths`` but the first halves them."""

    def __init__(self, *, widths: Sequence[int], n_inputs: int = 1, n_outputs: int = 1) -> None:
        super().__init__()
        self.factor = 2 ** (len(widths) - 1)
        self.down = nn.ModuleList(map(_block, [n_inputs, *widths[:-1]], widths))
        wide, narrow = widths[:0:-1], widths[-2::-1]  # below and above each doubling, the lowest first
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(n_in, n_out, 2, stride=2) for n_in, n_out in zip(wide, narrow, strict=True)
        )
        self.merge = nn.ModuleList(_block(2 * width, width) for width in narrow)
        self.to_image = nn.Conv2d(widths[0], n_outputs, 1)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights; see `initialise_convolutions`."""
        initialise_convolutions(self, generator)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, n_inputs, H, W) to images (n, n_outputs, H, W)."""
        height, width = images.shape[-2:]
        x = F.pad(images, (0, -width % self.factor, 0, -height % self.factor))
        skipped: list[Tensor] = []
        for block in self.down:
            x = block(F.avg_pool2d(x, 2) if skipped else x)
            skipped.append(x)
        skipped.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([up(x), skipped.pop()], dim=1))
        return in_float32(self.to_image, x)[..., :height, :width]


class TokenUNet(nn.Module):
    """Tokens (n, h, w) to logits (n, h, w, n_outputs), by a `UNet` over learned vectors of tokens and positions."""

    def __init__(
        self, *, n_inputs: int, n_outputs: int, grid: tuple[int, int], code_dim: int, widths: Sequence[int]
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_inputs, code_dim)
        self.position = nn.Parameter(torch.empty(code_dim, *grid))
        self.unet = UNet(widths=widths, n_inputs=code_dim, n_outputs=n_outputs)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights: N(0, 1) for the vectors of tokens, 0 for those of positions, and see `UNet`."""
        nn.init.normal_(self.embedding.weight, generator=generator)
        nn.init.zeros_(self.position)
        self.unet.initialise(generator)

    @torch.no_grad()
    def start_from(self, codes: Tensor) -> None:
        """Set the vectors of tokens to the standardised ``codes`` (n_inputs, code_dim), where neighbours mean alike."""
        self.embedding.weight.copy_((codes - codes.mean(0)) / (codes.std(0) + 1e-6))

    def forward(self, tokens: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the logits; nothing in training is random, so a ``generator`` is ignored."""
        vectors = self.embedding(tokens).permute(0, 3, 1, 2) + self.position  # (n, D, h, w)
        return self.unet(vectors).permute(0, 2, 3, 1)
