"""Healing by a prior over healthy slices: a variational autoencoder, and the search for the likeliest slice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from skmimood.detectors.image_network import BaseImageDetector
from skmimood.maps.residuals import MedianResiduals
from skmimood.networks.vae import VAE, negative_elbo
from skmimood.networks.weights import new_network
from skmimood.preprocessing.heads import head_masks
from skmimood.runtime.streams import Streams, normal_draws
from skmimood.training.augmentation import mirror_half
from skmimood.training.loop import Runtime, train
from skmimood.training.parameters import Training
from skmimood.validation.estimator import ParameterGroup
from skmimood.validation.rules import BOOLEAN, COUNT, COUNT_OR_ZERO, LEVELS, NOT_NEGATIVE, POSITIVE


class VAERestoration(MedianResiduals, BaseImageDetector):
    """Variational autoencoder, and the healthy slice that is nearest to a scan under its prior (Chen et al. 2020).

    A VAE learns healthy slices. To heal a slice, one starts from it and descends along the gradient of the negative
    evidence lower bound plus the total variation of what has changed: the result is likely among healthy slices, and
    departs from the scan in few, compact places. The residual inside the eroded head or brain, filtered by a median, is
    the anomaly map. With ``n_steps=0`` it is the plain VAE: the slice against its reconstruction. Unless stated
    otherwise, a change of a parameter needs a refit.

    The paper evaluates the bound by sampled codes, tunes ``tv_weight`` on healthy subjects, and has another network
    besides (a mixture of Gaussians as the prior); here the bound is taken at the mean of the code, the weight is
    given, and the network has the sizes of Baur et al. (2021).

    Parameters
    ----------
    n_steps : int, default=50
        Steps of the descent; 0 is the plain VAE (paper: 500). No refit needed.
    step_size : float > 0, default=1e-3
        Of the first step, in intensities per unit of the gradient; it shrinks to 0 in equal parts, so that the total
        variation, whose gradient does not vanish, comes to rest (paper: constant). No refit needed.
    tv_weight : float >= 0, default=2.0
        Weight of the total variation of the change, in nats per unit of intensity: more keeps nearer to the scan, and
        what is changed more compact. No refit needed.
    noise_std : float > 0, default=0.1
        Standard deviation of the pixels around their reconstruction: less lets the code hold more.
    latent_dim : int, default=128
        Length of the code (Baur et al.: 128).
    channels : int, default=16
        Width of the first level (Baur et al.: 32); every further level doubles it.
    depth : int from 1 to 10, default=3
        Levels, each at half the resolution of the one before: 3 leave 8 x 8 of 64 x 64 pixels (Baur et al.: 8 x 8).
    flip : bool, default=True
        Mirror half of the slices along the last axis in training; turn it off for sagittal slices.
    residual : {"absolute", "positive"}, default="absolute"
        See `ResidualMaps` (paper: absolute; Baur et al.: positive). No refit needed.
    erosion : int >= 0, default=2
        Scores are 0 outside the head or brain and within this many pixels of its surface. No refit needed.
    median_filter : int, default=5
        Side in pixels, odd, of the median filter of the maps; 1 for none (Baur et al.: 5). No refit needed.
    fpr : float in (0, 1), default=0.01
        See `BasePixelDetector`.
    training : Training, default=Training(max_iter=2000)
        See `Training`.
    random_state, device, memory, verbose
        See `VQTokenizer`.

    Attributes
    ----------
    image_shape_, threshold_, calibrated_with_, state_, config_, history_, n_iter_, seed_
        See `BasePixelDetector` and `TrainedStep`.

    References
    ----------
    Chen, You, Tezcan & Konukoglu, Unsupervised lesion detection via image restoration with a normative prior, Medical
    Image Analysis 64, 2020, section 3. Baur, Denner, Wiestler, Navab & Albarqouni, Autoencoders for unsupervised
    anomaly segmentation in brain MR images: a comparative study, Medical Image Analysis 69, 2021.
    """

    n_steps: Annotated[int, COUNT_OR_ZERO] = 50
    step_size: Annotated[float, POSITIVE] = 1e-3
    tv_weight: Annotated[float, NOT_NEGATIVE] = 2.0
    noise_std: Annotated[float, POSITIVE] = 0.1
    latent_dim: Annotated[int, COUNT] = 128
    channels: Annotated[int, COUNT] = 16
    depth: Annotated[int, LEVELS] = 3
    flip: Annotated[bool, BOOLEAN] = True

    _network_class = VAE
    _kept = ("noise_std",)
    _defaults: ClassVar[Mapping[str, ParameterGroup]] = {"training": Training(max_iter=2000)}

    def _fit(self, healthy: np.ndarray, held_out: float) -> None:
        config = {
            "image_shape": list(healthy.shape[1:]), "latent_dim": self.latent_dim,
            "widths": [self.channels * 2**level for level in range(self.depth)],
        }  # fmt: skip
        self._fit_network(train_vae, config, held_out, images=healthy, **self._values("noise_std", "flip"))

    def _detect_batch(self, images: Tensor) -> tuple[Tensor, Tensor]:
        restored = self._restore(images)
        return self._residuals(images, restored, head_masks(images.cpu().numpy())), restored

    def _restore(self, images: Tensor) -> Tensor:
        """Return restored slices (n, H, W) in [0, 1]: reconstructions, or the ends of the descents."""
        with torch.inference_mode(False), torch.enable_grad():  # the caller computes without gradients
            network, scans = cast(VAE, self._network()), images.clone()[:, None]
            if not self.n_steps:
                return self._in_batches(lambda batch: network(batch)[0][:, 0].clamp(0, 1), scans)
            restored, noise_std = scans.clone(), self._as_fitted("noise_std")
            for step_size in np.linspace(self.step_size, 0, self.n_steps, endpoint=False):
                restored.requires_grad_()
                with self._autocast():
                    unlikely = negative_elbo(restored, *network(restored), noise_std=noise_std)
                changed = self.tv_weight * _total_variation(restored - scans)
                (gradient,) = torch.autograd.grad((unlikely + changed).sum(), restored)
                restored = (restored.detach() - step_size * gradient).clamp(0, 1)
        return restored[:, 0]

    def _inference_parameters(self, X: Any) -> dict[str, Any]:
        return self._values(
            "n_steps", "step_size", "tv_weight", "residual", "erosion", "median_filter", "fpr"
        )


def _total_variation(images: Tensor) -> Tensor:
    """Return the anisotropic total variation (n,) of images (n, 1, H, W)."""
    return images.diff(dim=2).abs().sum((1, 2, 3)) + images.diff(dim=3).abs().sum((1, 2, 3))


def train_vae(
    *, images: np.ndarray, config: dict[str, Any], noise_std: float, flip: bool, recipe: Training, seed: int,
    runtime: Runtime,
) -> dict[str, dict[str, np.ndarray]]:  # fmt: skip
    """Train a `VAE` on slices (n, H, W) in [0, 1]; return its ``"state"`` and ``"history"``."""

    def loss(network: Any, indices: np.ndarray, streams: Streams, training: bool) -> Tensor:
        chosen = images[indices]
        if training and flip:
            chosen = mirror_half(chosen, streams.numpy)
        batch = torch.from_numpy(chosen)[:, None].to(streams.torch.device)
        noise = normal_draws(streams.torch, len(batch), config["latent_dim"]) if training else None
        parts = network(batch, noise)
        return negative_elbo(batch, *parts, noise_std=noise_std).mean() / batch[0].numel()

    network = new_network(VAE, config, Streams.at(seed, 2**41).torch)
    return train(network, loss, len(images), recipe, runtime, seed=seed)
