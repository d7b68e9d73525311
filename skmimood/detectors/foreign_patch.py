"""Detection without restoring: how much of a pixel comes from another slice (Tan et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from skmimood.detectors.image_network import BaseImageDetector
from skmimood.maps.residuals import clear_surface, filter_maps
from skmimood.networks.unet import UNet
from skmimood.networks.weights import new_network
from skmimood.preprocessing.thumbnails import thumbnails
from skmimood.runtime.streams import Streams
from skmimood.training.augmentation import mirror_half
from skmimood.training.loop import Runtime, train
from skmimood.training.parameters import Training
from skmimood.validation.estimator import ParameterGroup
from skmimood.validation.rules import BOOLEAN, COUNT, COUNT_OR_ZERO, LEVELS, ODD

_HALF_SIDES = (0.05, 0.2)  # of a patch, as shares of the slice's width
_FACTORS = (0.05, 0.95)
_CORE = 0.8  # share of each side of the slice in which centres of patches lie
_VISIBLE = 1e-3  # least change of intensity that counts
_LOG_ODDS = -3.5  # of a pixel's being foreign, which a new network starts from


class ForeignPatchInterpolation(BaseImageDetector):
    """U-Net that tells how much of each pixel was mixed in from another subject (Tan et al. 2020 and 2022).

    In training, a square of a healthy slice is mixed with the same square of another one, and the network learns the
    factor of the mixture at each pixel. What it answers for a slice as it is, is the anomaly map. It heals nothing:
    `transform` returns the slices. Unless stated otherwise, a change of a parameter needs a refit.

    The paper mixes slices of the same position in registered volumes. Slices here carry no position, so that the other
    one is drawn from those most alike. The paper has a wide residual encoder and decoder; here it is the U-Net of
    `DenoisingAutoencoder`. The filter and the cut at the surface are ours.

    Parameters
    ----------
    n_neighbors : int, default=32
        The other slice is one of so many that are most alike, by their means over 16 x 16 areas (paper: the slice of
        the same position in another subject).
    channels : int, default=16
        Width of the first level of the U-Net; every further level doubles it.
    depth : int from 1 to 10, default=4
        Levels of the U-Net, each but the first at half the resolution.
    flip : bool, default=True
        Mirror half of the slices along the last axis in training (paper: no); turn it off for sagittal slices.
    mean_filter : int, default=1
        Side in pixels, odd, of the mean filter of the maps; 1 for none (paper: none). No refit needed.
    erosion : int >= 0, default=0
        Scores are 0 outside the head or brain and within this many pixels of its surface; 0 leaves them as they are
        (paper). No refit needed.
    fpr : float in (0, 1), default=0.01
        See `BasePixelDetector`.
    training : Training, default=Training(max_iter=1200)
        See `Training` (paper: 50 epochs of batches of 32, Adam at 1e-3).
    random_state, device, memory, verbose
        See `VQTokenizer`.

    Attributes
    ----------
    image_shape_, threshold_, calibrated_with_, state_, config_, history_, n_iter_, seed_
        See `BasePixelDetector` and `TrainedStep`.

    References
    ----------
    Tan, Hou, Batten, Qiu & Kainz, Detecting outliers with foreign patch interpolation, MELBA 2022 (arXiv 2011.04197),
    sections 2 and 3, with the authors' code.
    """

    n_neighbors: Annotated[int, COUNT] = 32
    channels: Annotated[int, COUNT] = 16
    depth: Annotated[int, LEVELS] = 4
    flip: Annotated[bool, BOOLEAN] = True
    mean_filter: Annotated[int, ODD] = 1
    erosion: Annotated[int, COUNT_OR_ZERO] = 0

    _network_class = UNet
    _defaults: ClassVar[Mapping[str, ParameterGroup]] = {"training": Training(max_iter=1200)}

    def _fit(self, healthy: np.ndarray, held_out: float) -> None:
        self._fit_network(
            train_interpolation, {"widths": [self.channels * 2**level for level in range(self.depth)]}, held_out,
            images=healthy, **self._values("n_neighbors", "flip"),
        )  # fmt: skip

    def _detect_batch(self, images: Tensor) -> tuple[Tensor, Tensor]:
        network = self._network()
        maps = self._in_batches(lambda batch: (network(batch[:, None])[:, 0] + _LOG_ODDS).sigmoid(), images)
        maps = filter_maps(maps, 1, self.mean_filter).cpu()
        return clear_surface(maps, images.cpu().numpy(), self.erosion), images.clamp(0, 1)

    def _inference_parameters(self, X: Any) -> dict[str, Any]:
        return self._values("mean_filter", "erosion", "fpr")


def most_alike(images: np.ndarray, n_neighbors: int) -> np.ndarray:
    """Return the numbers of the slices that are most like each of the slices (n, H, W), (n, <= n_neighbors)."""
    n_others = min(n_neighbors, len(images) - 1)
    if not n_others:
        return np.zeros((1, 1), np.int64)  # of one slice, itself
    return NearestNeighbors(n_neighbors=n_others).fit(thumbnails(images)).kneighbors(return_distance=False)


def mix_patches(
    images: np.ndarray, foreign: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Mix a square of each slice (n, H, W) with that of another; return the mixtures and the factor of each pixel.

    The factor is 0 where nothing has visibly changed.
    """
    n, *shape = images.shape
    half = rng.uniform(*_HALF_SIDES, n) * shape[1]
    inside = np.ones(images.shape, bool)
    for axis, side in enumerate(shape):
        centre = side * rng.uniform(0.5 - _CORE / 2, 0.5 + _CORE / 2, n)
        near = np.abs(np.arange(side) + 0.5 - centre[:, None]) < half[:, None]
        inside &= near[:, :, None] if axis == 0 else near[:, None]
    factors = inside * np.asarray(rng.uniform(*_FACTORS, (n, 1, 1)), np.float32)
    mixed = images + factors * (foreign - images)
    return mixed, factors * (np.abs(mixed - images) > _VISIBLE)


def train_interpolation(
    *, images: np.ndarray, config: dict[str, Any], n_neighbors: int, flip: bool, recipe: Training, seed: int,
    runtime: Runtime,
) -> dict[str, dict[str, np.ndarray]]:  # fmt: skip
    """Train a `UNet` to tell the factor of mixtures of slices (n, H, W); return its ``"state"`` and ``"history"``."""
    neighbours = most_alike(images, n_neighbors)

    def loss(network: Any, indices: np.ndarray, streams: Streams, training: bool) -> Tensor:
        rng = streams.numpy
        own = images[indices]
        foreign = images[neighbours[indices, rng.integers(neighbours.shape[1], size=len(indices))]]
        mixed = np.stack(mix_patches(own, foreign, rng), axis=1)  # and the factors
        if training and flip:
            mixed = mirror_half(mixed, rng)
        inputs, targets = torch.from_numpy(mixed).to(streams.torch.device).split(1, dim=1)
        return F.binary_cross_entropy_with_logits(network(inputs) + _LOG_ODDS, targets)

    network = new_network(UNet, config, Streams.at(seed, 2**41).torch)
    return train(network, loss, len(images), recipe, runtime, seed=seed)
