"""Healing by a variational autoencoder whose reconstructions must look real (Baur et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from skmimood.detectors.image_network import BaseImageDetector
from skmimood.maps.residuals import MedianResiduals
from skmimood.networks.adversarial import AdversarialVAE
from skmimood.networks.weights import new_network
from skmimood.preprocessing.heads import head_masks
from skmimood.runtime.streams import Streams, normal_draws, uniform_draws
from skmimood.training.augmentation import mirror_half
from skmimood.training.loop import Runtime, train
from skmimood.training.parameters import Training
from skmimood.validation.estimator import ParameterGroup
from skmimood.validation.rules import BOOLEAN, COUNT, LEVELS, NOT_NEGATIVE, one_of

LATENTS = ("spatial", "dense")


class AnoVAEGAN(MedianResiduals, BaseImageDetector):
    """Variational autoencoder with an adversary, against which its reconstructions must look real (Baur et al. 2018).

    A VAE whose code keeps its place in the slice learns healthy slices. What it returns of them is judged by a critic
    that tells reconstructions from slices, so that they are not as blurred as those of a plain VAE. The slice is healed
    by its reconstruction; the residual inside the eroded head or brain, filtered by a median, is the anomaly map.
    Unless stated otherwise, a change of a parameter needs a refit.

    As in the paper, the loss is the absolute residual, the divergence of the code from a normal distribution, and what
    the critic says. The paper has a discriminator that classifies; here, as in the authors' later comparison, it is a
    Wasserstein critic with gradient penalty (Gulrajani et al. 2017). Two optimisers take turns there, with several
    steps of the critic to one of the VAE. Here both learn in the same step of one optimiser, from one sum of two losses
    that do not reach the other's weights; so rates and momenta are the same for both. The weights that are kept are
    those of the least residual and divergence on held-out slices. Sizes are those of `VAERestoration`.

    Parameters
    ----------
    latent : {"spatial", "dense"}, default="spatial"
        Whether the code is a grid of the coarsest level (paper) or one vector (Baur et al. 2021).
    latent_dim : int, default=16
        Channels of the grid, or length of the vector (Baur et al. 2021: 128).
    divergence_weight : float >= 0, default=0.1
        Of the divergence of the code from a normal distribution, in nats, beside the absolute residual, summed over
        pixels (Baur et al. 2021, code: 1).
    adversarial_weight : float >= 0, default=0.005
        Of the critic's score beside the absolute residual, averaged over pixels.
    channels : int, default=16
        Width of the first level of the VAE and the critic; every further level doubles it.
    depth : int from 1 to 10, default=3
        Levels, each at half the resolution of the one before.
    flip : bool, default=True
        Mirror half of the slices along the last axis in training; turn it off for sagittal slices.
    residual : {"absolute", "positive"}, default="absolute"
        See `ResidualMaps` (paper: absolute; Baur et al. 2021: positive). No refit needed.
    erosion : int >= 0, default=2
        Scores are 0 outside the head or brain and within this many pixels of its surface. No refit needed.
    median_filter : int, default=5
        Side in pixels, odd, of the median filter of the maps; 1 for none (Baur et al. 2021: 5). No refit needed.
    fpr : float in (0, 1), default=0.01
        See `BasePixelDetector`.
    training : Training, default=Training(max_iter=2000, gradient_clip=10.0)
        See `Training`.
    random_state, device, memory, verbose
        See `VQTokenizer`.

    Attributes
    ----------
    history_ : dict of str to ndarray
        ``loss`` is the sum of all, the critic's included; ``validation_loss`` the residual and divergence alone.
    image_shape_, threshold_, calibrated_with_, state_, config_, n_iter_, seed_
        See `BasePixelDetector` and `TrainedStep`.

    References
    ----------
    Baur, Wiestler, Albarqouni & Navab, Deep autoencoding models for unsupervised anomaly segmentation in brain MR
    images, BrainLes 2018 (arXiv 1804.04488). Baur, Denner, Wiestler, Navab & Albarqouni, Autoencoders for unsupervised
    anomaly segmentation in brain MR images: a comparative study, Medical Image Analysis 69, 2021, with the authors'
    code. Gulrajani, Ahmed, Arjovsky, Dumoulin & Courville, Improved training of Wasserstein GANs, NeurIPS 2017.

    Examples
    --------
    >>> from skmimood.baselines import AnoVAEGAN
    >>> from skmimood.datasets import make_brain_phantom
    >>> healthy, _ = make_brain_phantom(200, size=64, random_state=0)
    >>> scans, masks = make_brain_phantom(8, size=64, lesions=True, random_state=1)
    >>> detector = AnoVAEGAN(random_state=0).fit(healthy)
    >>> maps, healed = detector.detect(scans)  # both (8, 64, 64)
    """

    latent: Annotated[str, one_of(LATENTS)] = "spatial"
    latent_dim: Annotated[int, COUNT] = 16
    divergence_weight: Annotated[float, NOT_NEGATIVE] = 0.1
    adversarial_weight: Annotated[float, NOT_NEGATIVE] = 0.005
    channels: Annotated[int, COUNT] = 16
    depth: Annotated[int, LEVELS] = 3
    flip: Annotated[bool, BOOLEAN] = True

    _network_class = AdversarialVAE
    _defaults: ClassVar[Mapping[str, ParameterGroup]] = {
        "training": Training(max_iter=2000, gradient_clip=10.0)
    }

    def _fit(self, healthy: np.ndarray, held_out: float) -> None:
        config = {
            "image_shape": list(healthy.shape[1:]), "latent_dim": self.latent_dim,
            "widths": [self.channels * 2**level for level in range(self.depth)],
            "is_spatial": self.latent == "spatial",
        }  # fmt: skip
        weights = self._values("divergence_weight", "adversarial_weight", "flip")
        self._fit_network(train_vae_gan, config, held_out, images=healthy, **weights)

    def _detect_batch(self, images: Tensor) -> tuple[Tensor, Tensor]:
        network = cast(AdversarialVAE, self._network())
        restored = self._in_batches(
            lambda batch: network.reconstruct(batch[:, None])[:, 0].clamp(0, 1), images
        )
        return self._residuals(images, restored, head_masks(images.cpu().numpy())), restored

    def _inference_parameters(self, X: Any) -> dict[str, Any]:
        return self._values("residual", "erosion", "median_filter", "fpr")


def train_vae_gan(
    *, images: np.ndarray, config: dict[str, Any], divergence_weight: float, adversarial_weight: float, flip: bool,
    recipe: Training, seed: int, runtime: Runtime,
) -> dict[str, dict[str, np.ndarray]]:  # fmt: skip
    """Train an `AdversarialVAE` on slices (n, H, W) in [0, 1]; return its ``"state"`` and ``"history"``."""

    def loss(network: Any, indices: np.ndarray, streams: Streams, training: bool) -> Tensor:
        chosen = images[indices]
        if training and flip:
            chosen = mirror_half(chosen, streams.numpy)
        batch, drawn = torch.from_numpy(chosen)[:, None].to(streams.torch.device), []
        if training:
            noise = normal_draws(streams.torch, len(batch), *network.code_shape)
            drawn = [noise, uniform_draws(streams.torch, len(batch))]
        residual, divergence, disbelief, of_critic = network(batch, *drawn)
        of_vae = (residual + divergence_weight * divergence).mean() / batch[0].numel()
        return of_vae + adversarial_weight * disbelief + of_critic

    network = new_network(AdversarialVAE, config, Streams.at(seed, 2**41).torch)
    return train(network, loss, len(images), recipe, runtime, seed=seed)
