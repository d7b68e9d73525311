"""Training of networks that remove coarse noise from healthy slices (Kascenas et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skmimood.networks.unet import UNet
from skmimood.networks.weights import new_network
from skmimood.preprocessing.channels import n_channels, with_channels
from skmimood.runtime.streams import Streams, normal_draws
from skmimood.training.augmentation import mirror_half, vary_intensity
from skmimood.training.estimator import TrainedStep
from skmimood.training.loop import Runtime, train
from skmimood.training.parameters import Training
from skmimood.validation.estimator import ParameterGroup
from skmimood.validation.rules import BOOLEAN, COUNT, LEVELS, POSITIVE

_FOREGROUND = 0.01  # intensity above which the paper adds noise and counts errors


class DenoisingStep(TrainedStep):
    """Base of the estimators that train a denoising `UNet`; for the parameters see `DenoisingAutoencoder`."""

    noise_std: Annotated[float, POSITIVE] = 0.2
    noise_resolution: Annotated[int, COUNT] = 16
    channels: Annotated[int, COUNT] = 16
    depth: Annotated[int, LEVELS] = 4
    augment: Annotated[bool, BOOLEAN] = False
    flip: Annotated[bool, BOOLEAN] = True

    _network_class = UNet
    _defaults: ClassVar[Mapping[str, ParameterGroup]] = {"training": Training(max_iter=1200)}

    def _fit_denoiser(self, images: np.ndarray, held_out: float) -> None:
        """Train on slices (n, H, W) or (n, C, H, W), of which the share ``held_out`` at the end validates."""
        config: dict[str, Any] = {"widths": [self.channels * 2**level for level in range(self.depth)]}
        if (n := n_channels(images)) > 1:
            config |= {"n_inputs": n, "n_outputs": n}
        self._fit_network(
            train_denoiser, config, held_out, images=images,
            **self._values("noise_std", "noise_resolution", "augment", "flip"),
        )  # fmt: skip

    def _denoise(self, images: Tensor) -> Tensor:
        """Return restored slices of the shape of ``images`` in [0, 1], on the network's device."""
        network = self._network()
        return self._in_batches(
            lambda batch: network(with_channels(batch)).clamp(0, 1).reshape(batch.shape), images
        )


def coarse_noise(
    images: Tensor, noise_std: float, noise_resolution: int, generator: torch.Generator
) -> Tensor:
    """Draw noise for the foreground of images (n, C, H, W): normal cells, interpolated and rolled by a random shift.

    As in the authors' code, each channel has its own noise, the foreground is what any of them shows, and the shift is
    one for the whole batch.
    """
    device, sides = generator.device, images.shape[-2:]
    cells = normal_draws(generator, *images.shape[:2], noise_resolution, noise_resolution)
    noise = F.interpolate(noise_std * cells, sides, mode="bilinear", align_corners=True)
    shifts = [int(torch.randint(side, (), generator=generator, device=device)) for side in sides]
    return torch.roll(noise, shifts, (2, 3)) * _foreground(images)


def _foreground(images: Tensor) -> Tensor:
    """Return where any channel of images (n, C, H, W) shows something, (n, 1, H, W), bool."""
    return (images > _FOREGROUND).any(1, keepdim=True)


def train_denoiser(
    *, images: np.ndarray, config: dict[str, Any], noise_std: float, noise_resolution: int, augment: bool, flip: bool,
    recipe: Training, seed: int, runtime: Runtime,
) -> dict[str, dict[str, np.ndarray]]:  # fmt: skip
    """Train a denoising `UNet` on slices (n, H, W) or (n, C, H, W) in [0, 1]; return ``"state"`` and ``"history"``."""

    def loss(network: Any, indices: np.ndarray, streams: Streams, training: bool) -> Tensor:
        chosen = images[indices]
        if training and flip:
            chosen = mirror_half(chosen, streams.numpy)
        batch = with_channels(torch.from_numpy(chosen)).to(streams.torch.device)
        if training and augment:
            batch = vary_intensity(batch, streams.torch)
        noisy = batch + coarse_noise(batch, noise_std, noise_resolution, streams.torch)
        return ((network(noisy) - batch).square() * _foreground(batch)).mean()

    network = new_network(UNet, config, Streams.at(seed, 2**41).torch)
    return train(network, loss, len(images), recipe, runtime, seed=seed)
