"""Detection by features: a student decodes a teacher's features, and cannot where they are unlike healthy ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from skmimood.detectors.backbone import BaseFeatureDetector, Weights, freeze_encoder
from skmimood.networks.distillation import ReverseDistiller
from skmimood.networks.weights import new_network
from skmimood.runtime.streams import Streams
from skmimood.training.augmentation import mirror_half
from skmimood.training.loop import Runtime, train
from skmimood.training.parameters import Training
from skmimood.validation.estimator import ParameterGroup


class ReverseDistillation(BaseFeatureDetector):
    """Student that decodes the features of a frozen teacher from their one-class embedding (RD4AD, Deng & Li 2022).

    A bottleneck joins the teacher's feature maps of all scales and reduces them to a small embedding; the student makes
    them anew from there, the coarsest first. It learns to do so on healthy slices, by the cosine distance at each
    position. What is abnormal does not fit through the bottleneck, so that teacher and student differ there: the sum of
    the distances of all scales, interpolated to pixels and smoothed, is the anomaly map. It heals nothing: `transform`
    returns the slices. Unless stated otherwise, a change of a parameter needs a refit.

    The teacher of the paper is a WideResNet-50 trained on ImageNet; its file of weights as ``backbone`` gives that.
    Without one, the features are learnt on the healthy slices themselves, by denoising: they have seen no anomaly and
    no other picture, know less, and the figures are not those of the paper. The bottleneck joins the scales by pooling
    where the paper has strided convolutions, blocks are plain convolutions with group norms where it has those of a
    ResNet with batch norms, and the loss is the mean distance over positions, as in the paper's text (its code takes
    one angle between whole feature maps). Scores are 0 outside the head or brain.

    Parameters
    ----------
    backbone : None, torch module or path, default=None
        The frozen teacher. None: the encoder of a denoising U-Net that is trained before, on the healthy slices. A
        path: a safetensors file with the weights of a ResNet, named as by torchvision and timm, whose first three
        stages are taken (paper: those of ``wide_resnet50_2``). A module returns feature maps (n, C, h, w) in a sequence
        or mapping, as those of timm with ``features_only=True``. See `BaseFeatureDetector`.
    backbone_max_iter : int, default=1200
        Training steps of the denoising U-Net; the rest of ``training`` is the same.
    channels : int, default=16
        Width of the first level of that U-Net; every further level doubles it.
    depth : int from 2 to 10, default=4
        Its levels, each but the first at half the resolution; all but the first are feature maps.
    flip : bool, default=True
        Mirror half of the slices along the last axis in training (paper: no); turn it off for sagittal slices.
    smoothing : float in [0, 1000], default=1.0
        Standard deviation in pixels of a Gaussian filter of the maps (paper: 4 for 256 pixels). No refit needed.
    erosion : int >= 0, default=0
        Scores are 0 outside the head or brain and within this many pixels of its surface (paper: none). No refit
        needed.
    fpr : float in (0, 1), default=0.01
        See `BasePixelDetector`.
    training : Training, default=Training(max_iter=500)
        See `Training` (paper, from the authors' code: 200 epochs of batches of 16, Adam at 5e-3 with momenta .5 and
        .999).
    random_state, device, memory, verbose
        See `VQTokenizer`.

    Attributes
    ----------
    history_ : dict of str to ndarray
        Of the student (cosine distance, summed over scales), and of the denoising U-Net under ``backbone_loss`` and so
        on.
    n_iter_ : int
        Training steps made for both.
    backbone_ : torch module
        The frozen copy, if ``backbone`` is a module.
    image_shape_, threshold_, calibrated_with_, state_, config_, seed_
        See `BasePixelDetector` and `TrainedStep`.

    References
    ----------
    Deng & Li, Anomaly detection via reverse distillation from one-class embedding, CVPR 2022 (arXiv 2201.10703),
    section 3, with the authors' code.

    Examples
    --------
    >>> from skmimood.baselines import ReverseDistillation
    >>> from skmimood.datasets import make_brain_phantom
    >>> healthy, _ = make_brain_phantom(200, size=64, random_state=0)
    >>> scans, masks = make_brain_phantom(8, size=64, lesions=True, random_state=1)
    >>> detector = ReverseDistillation(random_state=0).fit(healthy)  # or backbone="wide_resnet50_2.safetensors"
    >>> maps = detector.decision_function(scans)  # (8, 64, 64)
    """

    _network_class = ReverseDistiller
    _defaults: ClassVar[Mapping[str, ParameterGroup]] = {"training": Training(max_iter=500)}

    def _fit_on_features(
        self, feature_widths: list[int], encoder: dict[str, Any], held_out: float, seed: int, **arguments: Any
    ) -> None:
        config = {"feature_widths": feature_widths} | encoder
        self._fit_network(train_distiller, config, held_out, seed=seed, **arguments)


def train_distiller(
    *, images: np.ndarray, backbone: Weights, config: dict[str, Any], flip: bool, recipe: Training, seed: int,
    runtime: Runtime,
) -> dict[str, dict[str, np.ndarray]]:  # fmt: skip
    """Train a `ReverseDistiller` of a backbone on slices (n, H, W); return its ``"state"`` and ``"history"``."""

    def loss(network: Any, indices: np.ndarray, streams: Streams, training: bool) -> Tensor:
        chosen = images[indices]
        if training and flip:
            chosen = mirror_half(chosen, streams.numpy)
        distances = network(torch.from_numpy(chosen)[:, None].to(streams.torch.device))
        return torch.stack([one.mean() for one in distances]).sum()

    network = new_network(ReverseDistiller, config, Streams.at(seed, 2**41).torch)
    freeze_encoder(network, backbone)
    return train(network, loss, len(images), recipe, runtime, seed=seed)
