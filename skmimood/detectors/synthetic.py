"""Healing learnt from synthetic anomalies: a network that restores what was painted over (DISYRE)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skmimood.detectors.image_network import BaseImageDetector
from skmimood.maps.residuals import MedianResiduals
from skmimood.networks.unet import UNet
from skmimood.networks.weights import new_network
from skmimood.preprocessing.heads import head_masks
from skmimood.runtime.streams import Streams
from skmimood.training.augmentation import mirror_half
from skmimood.training.loop import Runtime, train
from skmimood.training.painted_anomalies import paint_anomalies
from skmimood.training.parameters import Training
from skmimood.validation.estimator import ParameterGroup
from skmimood.validation.rules import BOOLEAN, COUNT, LEVELS, Rule

_SEVERITIES: Rule = (
    lambda severities: len(severities) > 0 and all(0 < one <= 1 for one in severities),
    "a sequence of severities, above 0 and at most 1",
)


class SyntheticAnomalyRestorer(MedianResiduals, BaseImageDetector):
    """U-Net that restores healthy slices over which anomalies were painted, told how severe they are (DISYRE).

    In training, general anomalies are painted into healthy slices (`skmimood.training.painted_anomalies`, as for
    `AnomalousTokenDetector`) and mixed with the slice by a random severity; from the mixture and the severity the
    network returns the slice. A scan to be scored is restored once for each of a few severities; the mean of these is
    the restored slice, and the mean residual inside the eroded head or brain, filtered by a median, the anomaly map.
    Unless stated otherwise, a change of a parameter needs a refit.

    The painter is ours, and simpler than the paper's (shapes of stored lesions, textures matched in range, shifts of
    single tissue classes); the paper works on patches of 128 pixels with a wider network.

    Parameters
    ----------
    severities : sequence of float in (0, 1], default=(0.25, 0.5, 0.75, 1.0)
        That the network is told of a scan (paper: 4 of 100). No refit needed.
    residual : {"absolute", "positive"}, default="absolute"
        See `ResidualMaps` (paper: absolute). No refit needed.
    erosion : int >= 0, default=2
        Scores are 0 outside the head or brain and within this many pixels of its surface (paper: none). No refit
        needed.
    median_filter : int, default=5
        Side in pixels, odd, of the median filter of the maps; 1 for none (paper: none). No refit needed.
    fpr : float in (0, 1), default=0.01
        See `BasePixelDetector`.
    channels : int, default=16
        Width of the first level of the U-Net (paper: 32); every further level doubles it.
    depth : int from 1 to 10, default=4
        Levels of the U-Net, each but the first at half the resolution (paper: 6).
    flip : bool, default=True
        Mirror half of the slices along the last axis in training; turn it off for sagittal slices.
    training : Training, default=Training(max_iter=1500)
        See `Training` (paper: 100,000 steps of 64 patches).
    random_state, device, memory, verbose
        See `VQTokenizer`.

    Attributes
    ----------
    image_shape_, threshold_, calibrated_with_, state_, config_, history_, n_iter_, seed_
        See `BasePixelDetector` and `TrainedStep`.

    References
    ----------
    Naval Marimont, Baugh, Siomos, Tzelepis, Kainz & Tarroni, DISYRE: diffusion-inspired synthetic restoration for
    unsupervised anomaly detection, ISBI 2024 (arXiv 2311.15453); Naval Marimont, Siomos, Baugh, Tzelepis, Kainz &
    Tarroni, Ensembled cold-diffusion restorations for unsupervised anomaly detection, MICCAI 2024 (arXiv 2407.06635).
    """

    severities: Annotated[Sequence[float], _SEVERITIES] = (0.25, 0.5, 0.75, 1.0)
    channels: Annotated[int, COUNT] = 16
    depth: Annotated[int, LEVELS] = 4
    flip: Annotated[bool, BOOLEAN] = True

    _network_class = UNet
    _defaults: ClassVar[Mapping[str, ParameterGroup]] = {"training": Training(max_iter=1500)}

    def _fit(self, healthy: np.ndarray, held_out: float) -> None:
        config = {"widths": [self.channels * 2**level for level in range(self.depth)], "n_inputs": 2}
        self._fit_network(train_restorer, config, held_out, images=healthy, flip=self.flip)

    def _detect_batch(self, images: Tensor) -> tuple[Tensor, Tensor]:
        heads = head_masks(images.cpu().numpy())
        restored = torch.stack(
            [self._restore(images, severity) for severity in images.new_tensor(self.severities)]
        )
        maps = torch.stack([self._residuals(images, one, heads) for one in restored])
        return maps.mean(0), restored.mean(0)

    def _restore(self, images: Tensor, severity: Tensor) -> Tensor:
        """Return slices (n, H, W) as the network restores them that is told one severity."""
        network = self._network()
        return self._in_batches(
            lambda batch: network(with_severity(batch, severity))[:, 0].clamp(0, 1), images
        )

    def _inference_parameters(self, X: Any) -> dict[str, Any]:
        own = self._values("residual", "erosion", "median_filter", "fpr")
        return own | {"severities": list(self.severities)}


def with_severity(images: Tensor, severity: Tensor) -> Tensor:
    """Return slices (n, H, W), with their severity, one or (n,), as a second channel, (n, 2, H, W)."""
    return torch.stack([images, severity.view(-1, 1, 1).expand_as(images)], 1)


def train_restorer(
    *, images: np.ndarray, config: dict[str, Any], flip: bool, recipe: Training, seed: int, runtime: Runtime
) -> dict[str, dict[str, np.ndarray]]:
    """Train a `UNet` to restore painted slices (n, H, W) in [0, 1]; return its ``"state"`` and ``"history"``."""

    def loss(network: Any, indices: np.ndarray, streams: Streams, training: bool) -> Tensor:
        rng = streams.numpy
        clean = images[indices]
        if training and flip:
            clean = mirror_half(clean, rng)
        painted, _ = paint_anomalies(clean, rng)
        severities = rng.uniform(0, 1, len(clean)).astype(np.float32)
        mixed = clean + severities[:, None, None] * (painted - clean)
        inputs, severity, wanted = (
            torch.from_numpy(part).to(streams.torch.device) for part in (mixed, severities, clean)
        )
        return F.mse_loss(network(with_severity(inputs, severity))[:, 0], wanted)

    network = new_network(UNet, config, Streams.at(seed, 2**41).torch)
    return train(network, loss, len(images), recipe, runtime, seed=seed)
