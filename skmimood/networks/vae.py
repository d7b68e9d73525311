"""A variational autoencoder of slices (Kingma & Welling 2014), of the sizes of Baur et al. (2021)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skmimood.networks.weights import in_float32, initialise_convolutions, initialise_matrices

_BOTTLENECK = 16  # channels that become one vector


def _block(convolution: nn.Module, width: int) -> list[nn.Module]:
    return [convolution, nn.GroupNorm(math.gcd(8, width), width), nn.SiLU()]


def _doubling(n_in: int, n_out: int) -> nn.Module:
    # A transposed convolution leaves a chequered pattern behind (Odena et al. 2016), which adversaries amplify.
    return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(n_in, n_out, 3, padding=1))


class VAE(nn.Module):
    """Images (n, 1, H, W) to the mean and log-variance (n, latent_dim) of a code, and codes to images.

    ``image_shape`` is (H, W). Each of the ``widths`` halves the image once.
    """

    def __init__(self, *, image_shape: Sequence[int], widths: Sequence[int], latent_dim: int) -> None:
        super().__init__()
        self.image_shape, factor = (image_shape[0], image_shape[1]), 2 ** len(widths)
        self.padded = tuple(-(-side // factor) * factor for side in image_shape)
        self.coarse = (_BOTTLENECK, *(side // factor for side in self.padded))
        n_values = math.prod(self.coarse)
        down: list[nn.Module] = []
        for n_in, n_out in zip((1, *widths), widths, strict=False):
            down += _block(nn.Conv2d(n_in, n_out, 5, stride=2, padding=2), n_out)
        self.encoder = nn.Sequential(*down, nn.Conv2d(widths[-1], _BOTTLENECK, 1), nn.Flatten())
        self.to_code = nn.Linear(n_values, 2 * latent_dim)
        self.from_code = nn.Linear(latent_dim, n_values)
        up = _block(nn.Conv2d(_BOTTLENECK, widths[-1], 1), widths[-1])
        for n_in, n_out in zip(widths[::-1], (*widths[-2::-1], widths[0]), strict=True):
            up += _block(_doubling(n_in, n_out), n_out)
        self.decoder = nn.Sequential(*up)
        self.to_image = nn.Conv2d(widths[0], 1, 1)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights; see `initialise_convolutions` and `initialise_matrices`."""
        initialise_convolutions(self, generator)
        initialise_matrices(self, generator)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance (n, latent_dim) of the codes of images (n, 1, H, W)."""
        height, width = images.shape[-2:]
        padded = F.pad(images, (0, self.padded[1] - width, 0, self.padded[0] - height))
        mean, log_variance = in_float32(self.to_code, self.encoder(padded)).chunk(2, dim=1)
        return mean, log_variance.clamp(-20, 20)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the images (n, 1, H, W) of codes (n, latent_dim)."""
        height, width = self.image_shape
        coarse = self.from_code(codes).unflatten(1, self.coarse)
        return in_float32(self.to_image, self.decoder(coarse))[..., :height, :width]

    def forward(self, images: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return reconstructions, means and log-variances of images (n, 1, H, W).

        Reconstructions are of the means or, with normal ``noise`` (n, latent_dim), of codes that it draws.
        """
        mean, log_variance = self.encode(images)
        codes = mean if noise is None else mean + (log_variance / 2).exp() * noise
        return self.decode(codes), mean, log_variance


def negative_elbo(
    images: Tensor, restored: Tensor, mean: Tensor, log_variance: Tensor, *, noise_std: float
) -> Tensor:
    """Return the negative evidence lower bound (n,) in nats, up to a constant, of images (n, 1, H, W).

    The pixels are Gaussian around their reconstruction with standard deviation ``noise_std``.
    """
    misfit = (restored.float() - images).square().sum((1, 2, 3)) / (2 * noise_std**2)
    divergence = (mean.square() + log_variance.exp() - log_variance - 1).sum(1) / 2
    return misfit + divergence
