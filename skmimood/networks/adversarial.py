"""Autoencoders of slices beside a Wasserstein critic with gradient penalty (Gulrajani et al. 2017)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from skmimood.networks.vae import VAE
from skmimood.networks.weights import in_float32, initialise_convolutions, initialise_matrices

_PENALTY = 10.0
_LEAST_SQUARE = 1e-12  # of the length of a gradient, whose root has a derivative then


class Critic(nn.Module):
    """Images (n, 1, H, W) to one number each (n,), high for real ones; each of the ``widths`` halves the image once."""

    def __init__(self, *, image_shape: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        self.factor = 2 ** len(widths)
        layers: list[nn.Module] = []
        for n_in, n_out in zip((1, *widths), widths, strict=False):
            layers += [
                nn.Conv2d(n_in, n_out, 5, stride=2, padding=2),
                nn.GroupNorm(1, n_out),
                nn.LeakyReLU(0.2),
            ]
        self.layers = nn.Sequential(*layers)
        cells = math.prod(-(-side // self.factor) for side in image_shape)
        self.to_score = nn.Linear(widths[-1] * cells, 1)

    def features(self, images: Tensor) -> Tensor:
        """Return what the last layer sees, (n, n_features)."""
        height, width = images.shape[-2:]
        padded = F.pad(images, (0, -width % self.factor, 0, -height % self.factor))
        return self.layers(padded).flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores."""
        return in_float32(self.to_score, self.features(images))[:, 0]

    def loss(self, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
        """Return what the critic minimises, a scalar.

        The mean score of fake images less that of real ones, and the penalty of gradients at mixtures of both, of
        shares ``mix`` (n,), whose length is not 1.
        """
        between = torch.lerp(real, fake, mix.view(-1, 1, 1, 1)).requires_grad_()
        (gradient,) = torch.autograd.grad(self(between).sum(), between, create_graph=True)
        lengths = (gradient.square().sum((1, 2, 3)) + _LEAST_SQUARE).sqrt()
        return self(fake).mean() - self(real).mean() + _PENALTY * (lengths - 1).square().mean()

    def disbelief(self, images: Tensor) -> Tensor:
        """Return minus the mean score, a scalar, whose gradient reaches the images and not the critic."""
        frozen = {name: weight.detach() for name, weight in self.named_parameters()}
        return -functional_call(self, frozen, (images,)).mean()


class SpatialVAE(VAE):
    """A `VAE` whose code keeps its place: ``latent_dim`` channels at the coarsest grid, (n, latent_dim, h, w)."""

    def __init__(self, *, image_shape: Sequence[int], widths: Sequence[int], latent_dim: int) -> None:
        super().__init__(image_shape=image_shape, widths=widths, latent_dim=latent_dim)
        self.encoder = nn.Sequential(*list(self.encoder.children())[:-1])  # it ends in flattening
        self.to_code = nn.Conv2d(self.coarse[0], 2 * latent_dim, 1)  # type: ignore[assignment]
        self.from_code = nn.Conv2d(latent_dim, self.coarse[0], 1)  # type: ignore[assignment]

    def decode(self, codes: Tensor) -> Tensor:
        """Return the images (n, 1, H, W) of codes (n, latent_dim, h, w)."""
        height, width = self.image_shape
        return in_float32(self.to_image, self.decoder(self.from_code(codes)))[..., :height, :width]


class AutoencoderWithCritic(nn.Module):
    """A `VAE` or `SpatialVAE` and a `Critic` of the same ``widths``; subclasses say what a training computes."""

    def __init__(
        self, *, image_shape: Sequence[int], widths: Sequence[int], latent_dim: int, is_spatial: bool = False
    ) -> None:
        super().__init__()
        kind = SpatialVAE if is_spatial else VAE
        self.autoencoder = kind(image_shape=image_shape, widths=widths, latent_dim=latent_dim)
        self.critic = Critic(image_shape=image_shape, widths=widths)
        coarse = self.autoencoder.coarse[1:] if is_spatial else ()
        self.code_shape = (latent_dim, *coarse)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights; see `initialise_convolutions` and `initialise_matrices`."""
        initialise_convolutions(self, generator)
        initialise_matrices(self, generator)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Return the images (n, 1, H, W) of the codes of images (n, 1, H, W)."""
        return self.autoencoder.decode(self.autoencoder.encode(images)[0])


class AdversarialVAE(AutoencoderWithCritic):
    """A variational autoencoder whose reconstructions a critic must take for real (Baur et al. 2018)."""

    def forward(
        self, images: Tensor, noise: Tensor | None = None, mix: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the absolute residual and the divergence from the prior, (n,), and two scalars of the critic.

        These are its disbelief in the reconstructions and its own loss, 0 without normal ``noise`` (n, *code_shape) of
        the codes and shares ``mix`` (n,) of the gradient penalty.
        """
        restored, mean, log_variance = self.autoencoder(images, noise)
        residual = (restored - images).abs().sum((1, 2, 3))
        divergence = (mean.square() + log_variance.exp() - log_variance - 1).flatten(1).sum(1) / 2
        if mix is None:
            return residual, divergence, residual.new_zeros(()), residual.new_zeros(())
        with torch.autocast(images.device.type, enabled=False):
            disbelief = self.critic.disbelief(restored)
            return residual, divergence, disbelief, self.critic.loss(images, restored.detach(), mix)


class GeneratorWithEncoder(AutoencoderWithCritic):
    """A generator, the decoder of a `VAE`, trained against its critic, and then its encoder (Schlegl et al. 2019)."""

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights as `AutoencoderWithCritic`, but those of the codes so large that codes make a difference."""
        super().initialise(generator)
        from_code = self.autoencoder.from_code
        nn.init.normal_(from_code.weight, std=from_code.in_features**-0.5, generator=generator)

    def forward(
        self, images: Tensor, codes: Tensor | None = None, mix: Tensor | None = None, generates: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Return two losses, of the generator and the critic or of the encoder.

        With normal ``codes`` (n, latent_dim) and shares ``mix`` (n,) of the gradient penalty: the critic's disbelief in
        what the generator makes of them, 0 unless it ``generates`` in this step, and the critic's loss, both scalars.
        Without: the mean squared residuals of pixels and of the critic's features, (n,).
        """
        if codes is None or mix is None:
            restored = self.reconstruct(images)
            residual = (restored - images).square().mean((1, 2, 3))
            features = (self.critic.features(one).float() for one in (restored, images))
            return residual, torch.sub(*features).square().mean(1)
        with torch.set_grad_enabled(generates):
            fake = self.autoencoder.decode(codes)
        with torch.autocast(images.device.type, enabled=False):
            disbelief = self.critic.disbelief(fake) if generates else fake.new_zeros(())
            return disbelief, self.critic.loss(images, fake.detach(), mix)
