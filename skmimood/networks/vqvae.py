"""The convolutional autoencoder of VQGAN (Esser et al. 2021) around a quantiser; no adversary."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skmimood.networks.quantizer import (
    CosineQuantizer,
    EMAQuantizer,
    FiniteScalarQuantizer,
    Quantized,
    Quantizer,
)
from skmimood.networks.transformer import attend
from skmimood.networks.weights import in_float32, initialise_convolutions


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, max(1, channels // 4)), channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """GroupNorm, swish, 3x3 convolution, twice, added to a (projected) shortcut."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(n_in), nn.Conv2d(n_in, n_out, 3, padding=1)
        self.norm2, self.conv2 = _norm(n_out), nn.Conv2d(n_out, n_out, 3, padding=1)
        self.shortcut = nn.Conv2d(n_in, n_out, 1) if n_in != n_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, n_in, H, W) to (n, n_out, H, W)."""
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        return self.shortcut(x) + hidden


class SpatialAttention(nn.Module):
    """Single-head self-attention over the positions of a feature map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, C, h, w) to (n, C, h, w)."""
        n, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).view(n, 3, c, h * w).transpose(2, 3).unbind(1)  # (n, h*w, C)
        attended = attend(q[:, None], k[:, None], v[:, None])[:, 0]
        return x + self.out(attended.transpose(1, 2).reshape(n, c, h, w))


class Downsample(nn.Module):
    """Stride-2 3x3 convolution, padded at the right and bottom only, as in VQGAN."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Halve height and width."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Nearest-neighbour doubling followed by a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Double height and width."""
        n, c, h, w = x.shape
        # F.interpolate is several times slower for bfloat16 on a CPU.
        doubled = x[:, :, :, None, :, None].expand(n, c, h, 2, w, 2).reshape(n, c, 2 * h, 2 * w)
        return self.conv(doubled)


def _middle(channels: int) -> list[nn.Module]:
    return [ResidualBlock(channels, channels), SpatialAttention(channels), ResidualBlock(channels, channels)]


def _encoder(
    n_inputs: int, widths: Sequence[int], n_res_blocks: int, code_dim: int, patch_size: int
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.PixelUnshuffle(patch_size),
        nn.Conv2d(n_inputs * patch_size**2, widths[0], 3, padding=1),
    ]
    current = widths[0]
    for level, width in enumerate(widths):
        if level > 0:
            layers.append(Downsample(current))
        for _ in range(n_res_blocks):
            layers.append(ResidualBlock(current, width))
            current = width
    layers += [*_middle(current), _norm(current), nn.SiLU(), nn.Conv2d(current, code_dim, 1)]
    return nn.Sequential(*layers)


def _decoder(widths: Sequence[int], n_res_blocks: int, code_dim: int) -> nn.Sequential:
    current = widths[-1]
    layers: list[nn.Module] = [nn.Conv2d(code_dim, current, 3, padding=1), *_middle(current)]
    for level in reversed(range(len(widths))):
        for _ in range(n_res_blocks + 1):
            layers.append(ResidualBlock(current, widths[level]))
            current = widths[level]
        if level > 0:
            layers.append(Upsample(current))
    layers += [_norm(current), nn.SiLU()]
    return nn.Sequential(*layers)


class VQVAE(nn.Module):
    """Images (n, C, H, W) to tokens (n, h, w) and back, with H = f h, W = f w, f = patch_size * 2**(n_levels - 1).

    C is ``image_channels``. Squares of ``patch_size`` pixels are folded into channels before the first convolution
    (1 in VQGAN). Each level has a multiple of ``channels``, and each but the first halves the resolution. The
    decoder has one residual block a level more than the encoder, as in VQGAN. The codes are those of an
    `EMAQuantizer`, of a `CosineQuantizer` with ``unit_codes``, or of a `FiniteScalarQuantizer` with ``levels``, of
    which there are ``code_dim``.
    """

    def __init__(
        self, *, patch_size: int, channels: int, channel_multipliers: Sequence[int], n_res_blocks: int, n_codes: int,
        code_dim: int, codebook_decay: float, restart_below: float, unit_codes: bool = False,
        levels: Sequence[int] | None = None, image_channels: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        widths = [channels * multiplier for multiplier in channel_multipliers]
        self.downsampling = patch_size * 2 ** (len(widths) - 1)
        self.encoder = _encoder(image_channels, widths, n_res_blocks, code_dim, patch_size)
        self.quantizer: Quantizer
        if levels is not None:
            self.quantizer = FiniteScalarQuantizer(levels)
        else:
            learnt = CosineQuantizer if unit_codes else EMAQuantizer
            self.quantizer = learnt(n_codes, code_dim, decay=codebook_decay, restart_below=restart_below)
        self.decoder = _decoder(widths, n_res_blocks, code_dim)
        self.to_image = nn.Sequential(
            nn.Conv2d(widths[0], image_channels * patch_size**2, 3, padding=1), nn.PixelShuffle(patch_size)
        )

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights; see `initialise_convolutions`."""
        self.quantizer.initialise()
        initialise_convolutions(self, generator)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Quantized]:
        """Reconstruct images (n, C, H, W); a ``generator`` means training and updates the codebook."""
        quantized = self.quantizer(self.encoder(images), generator)
        return in_float32(self.to_image, self.decoder(quantized.vectors)), quantized

    def encode(self, images: Tensor) -> Tensor:
        """Return the tokens (n, h, w) of images (n, C, H, W)."""
        return self.quantizer(self.encoder(images)).tokens

    def decode(self, tokens: Tensor) -> Tensor:
        """Return the images (n, C, H, W) of tokens (n, h, w)."""
        return in_float32(self.to_image, self.decoder(self.quantizer.look_up(tokens)))
