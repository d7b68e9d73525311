"""Healing by denoising: an autoencoder that removes coarse noise from healthy slices (Kascenas et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skmimood.detectors.image_network import BaseImageDetector
from skmimood.maps.residuals import RESIDUALS, median_maps, residual_maps
from skmimood.networks.unet import UNet
from skmimood.networks.weights import new_network
from skmimood.preprocessing.heads import eroded, head_masks
from skmimood.runtime.streams import Streams, normal_draws
from skmimood.training.augmentation import vary_intensity
from skmimood.training.loop import Runtime, train
from skmimood.training.parameters import Training
from skmimood.validation.estimator import ParameterGroup
from skmimood.validation.rules import BOOLEAN, COUNT, COUNT_OR_ZERO, ODD, POSITIVE, one_of

_FOREGROUND = 0.01  # intensity above which the paper adds noise and counts errors


class DenoisingAutoencoder(BaseImageDetector):
    """U-Net that removes coarse noise from healthy slices, and takes a lesion for such noise (Kascenas et al. 2022).

    In training, Gaussian noise of low resolution is added to the foreground, and the network learns to return the
    slice. A slice to be scored gets no noise; the residual inside the eroded head or brain, filtered by a median, is
    the anomaly map. The paper has four MR sequences as channels; here there is one. Unless stated otherwise, a change
    of a parameter needs a refit.

    Parameters
    ----------
    noise_std : float > 0, default=0.2
        Standard deviation of the noise (paper: 0.2).
    noise_resolution : int, default=16
        Cells of the noise a side, which are interpolated to pixels (paper: 16 for 128 pixels).
    residual : {"absolute", "positive"}, default="absolute"
        See `ResidualMaps` (paper: absolute). No refit needed.
    erosion : int >= 0, default=2
        Scores are 0 outside the head or brain, and within this many pixels of its surface (paper: outside those pixels
        whose 5 x 5 neighbourhood is foreground by more than 95 %); take more for a scalp. No refit needed.
    median_filter : int, default=5
        Side in pixels, odd, of the median filter of the maps; 1 for none (paper: 5). No refit needed.
    fpr : float in (0, 1), default=0.01
        See `BasePixelDetector`.
    channels : int, default=16
        Width of the first level (paper: 64); every further level doubles it.
    depth : int, default=4
        Levels of the U-Net, each but the first at half the resolution (paper: 4).
    augment : bool, default=False
        Broad intensity augmentation in training, before the noise is added (paper: none); see `VQTokenizer`.
    flip : bool, default=True
        Mirror half of the slices along the last axis in training (paper: no); turn it off for sagittal slices.
    training : Training, default=Training(max_iter=1200)
        See `Training` (paper: 67,200 steps of 16 slices at 1e-4, Adam with AMSGrad, decay 1e-5, no warm-up).
    random_state, device, memory, verbose
        See `VQTokenizer`.

    Attributes
    ----------
    image_shape_, threshold_, calibrated_with_, state_, config_, history_, n_iter_, seed_
        See `BasePixelDetector` and `TrainedStep`.

    References
    ----------
    Kascenas, Pugeault & O'Neil, Denoising autoencoders for unsupervised anomaly detection in brain MRI, MIDL 2022, with
    the authors' code. Baur et al., Autoencoders for unsupervised anomaly segmentation in brain MR images, 2021
    (positive residual).
    """

    noise_std: Annotated[float, POSITIVE] = 0.2
    noise_resolution: Annotated[int, COUNT] = 16
    residual: Annotated[str, one_of(RESIDUALS)] = "absolute"
    erosion: Annotated[int, COUNT_OR_ZERO] = 2
    median_filter: Annotated[int, ODD] = 5
    channels: Annotated[int, COUNT] = 16
    depth: Annotated[int, COUNT] = 4
    augment: Annotated[bool, BOOLEAN] = False
    flip: Annotated[bool, BOOLEAN] = True

    _network_class = UNet
    _defaults: ClassVar[Mapping[str, ParameterGroup]] = {"training": Training(max_iter=1200)}

    def _fit(self, healthy: np.ndarray, held_out: float) -> None:
        self._fit_network(
            train_denoiser, {"widths": [self.channels * 2**level for level in range(self.depth)]}, held_out,
            images=healthy, noise_std=self.noise_std, noise_resolution=self.noise_resolution, augment=self.augment,
            flip=self.flip,
        )  # fmt: skip

    def _detect_batch(self, images: Tensor) -> tuple[Tensor, Tensor]:
        network = self._network()
        restored = self._in_batches(lambda batch: network(batch[:, None]).clamp(0, 1), images)  # (n, 1, H, W)
        maps, healed = residual_maps(images, restored, self.residual, "mean", 0.0)
        inside = torch.from_numpy(eroded(head_masks(images.cpu().numpy()), self.erosion))
        return median_maps(maps.cpu() * inside, self.median_filter), healed

    def _inference_parameters(self, X: Any) -> dict[str, Any]:
        return self._values("residual", "erosion", "median_filter", "fpr")


def coarse_noise(
    images: Tensor, noise_std: float, noise_resolution: int, generator: torch.Generator
) -> Tensor:
    """Draw noise for the foreground of images (n, 1, H, W): normal cells, interpolated and rolled by a random shift.

    As in the authors' code, the shift is one for the whole batch.
    """
    device, sides = generator.device, images.shape[-2:]
    cells = normal_draws(generator, len(images), 1, noise_resolution, noise_resolution)
    noise = F.interpolate(noise_std * cells, sides, mode="bilinear", align_corners=True)
    shifts = [int(torch.randint(side, (), generator=generator, device=device)) for side in sides]
    return torch.roll(noise, shifts, (2, 3)) * (images > _FOREGROUND)


def train_denoiser(
    *, images: np.ndarray, config: dict[str, Any], noise_std: float, noise_resolution: int, augment: bool, flip: bool,
    recipe: Training, seed: int, runtime: Runtime,
) -> dict[str, dict[str, np.ndarray]]:  # fmt: skip
    """Train a denoising `UNet` on slices (n, H, W) in [0, 1]; return its ``"state"`` and ``"history"``."""
    pixels = torch.from_numpy(images)

    def loss(network: Any, indices: np.ndarray, streams: Streams, training: bool) -> Tensor:
        batch = pixels[indices][:, None].to(streams.torch.device)
        if training and flip:
            mirrored = torch.from_numpy(streams.numpy.random(len(batch)) < 0.5).to(batch.device)
            batch = torch.where(mirrored[:, None, None, None], batch.flip(-1), batch)
        if training and augment:
            batch = vary_intensity(batch, streams.torch)
        noisy = batch + coarse_noise(batch, noise_std, noise_resolution, streams.torch)
        return ((network(noisy) - batch).square() * (batch > _FOREGROUND)).mean()

    network = new_network(UNet, config, Streams.at(seed, 2**41).torch)
    return train(network, loss, len(images), recipe, runtime, seed=seed)
