"""Detection by features: a plain student regresses a normalizing flow, and cannot where features are not healthy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from skmimood.detectors.backbone import BaseFeatureDetector, Weights, freeze_encoder
from skmimood.exceptions import InputError
from skmimood.networks.flow import FlowAndStudent
from skmimood.networks.weights import new_network
from skmimood.runtime.device import autocast, inference, resolve_device, resolve_precision
from skmimood.runtime.streams import Streams
from skmimood.training.augmentation import mirror_half
from skmimood.training.loop import Runtime, split_validation, train
from skmimood.training.parameters import Training
from skmimood.validation.estimator import ParameterGroup
from skmimood.validation.rules import COUNT, COUNT_OR_ZERO

_LEAST_SCALE = 0.1  # of a feature, as a share of the mean scale: what hardly varies is not blown up


class AsymmetricStudentTeacher(BaseFeatureDetector):
    """Student that regresses a normalizing flow over the features of a frozen backbone (AST, Rudolph et al. 2023).

    The teacher is a normalizing flow of coupling blocks (Dinh et al. 2017), trained by maximum likelihood to make a
    normal distribution of the features of healthy slices. The student is a plain convolutional network, trained on the
    same slices to return what the teacher returns. A flow is bijective and need not generalise as the student does, so
    that off the healthy features both part: the squared distance between them, averaged over channels and interpolated
    to pixels, is the anomaly map. It heals nothing: `transform` returns the slices. Unless stated otherwise, a change
    of a parameter needs a refit.

    The backbone of the paper is an EfficientNet-B5 trained on ImageNet, from which it takes one feature map; such a
    network as ``backbone`` gives that. Without one, the features are learnt on the healthy slices themselves, by
    denoising: they have seen no anomaly and no other picture, know less, and the figures are not those of the paper.
    Its depth images, and the mask of the foreground in training that they give, are left out. Features are standardised
    by channel over the training slices; halves of the channels swap where the paper permutes channels at random; group
    norms stand for batch norms; widths are smaller. Scores are 0 outside the head or brain.

    Parameters
    ----------
    backbone : None, torch module or path, default=None
        The frozen network that features come from. None: the encoder of a denoising U-Net that is trained before, on
        the healthy slices. A path: a safetensors file with the weights of a ResNet, named as by torchvision and timm,
        whose first three stages are taken. A module returns feature maps (n, C, h, w) in a sequence or mapping, as
        those of timm with ``features_only=True``. See `BaseFeatureDetector`.
    backbone_max_iter : int, default=1200
        Training steps of the denoising U-Net; the rest of ``training`` is the same.
    channels : int, default=16
        Width of the first level of that U-Net; every further level doubles it.
    depth : int from 2 to 10, default=4
        Its levels, each but the first at half the resolution; all but the first are feature maps.
    level : int >= 0, default=1
        Which feature map is taken; 0 is the finest. Of the default U-Net, 1 has cells of 4 x 4 pixels (paper: cells of
        32 pixels in images of 768).
    n_couplings : int, default=4
        Blocks of the flow (paper: 4).
    flow_width : int, default=64
        Hidden channels within them.
    n_blocks : int, default=4
        Residual blocks of the student (paper: 4).
    student_width : int, default=64
        Its hidden channels (paper: 1024).
    flip : bool, default=True
        Mirror half of the slices along the last axis in training (paper: no); turn it off for sagittal slices.
    smoothing : float in [0, 1000], default=1.0
        Standard deviation in pixels of a Gaussian filter of the maps (paper: none). No refit needed.
    erosion : int >= 0, default=0
        Scores are 0 outside the head or brain and within this many pixels of its surface (paper: outside the
        foreground). No refit needed.
    fpr : float in (0, 1), default=0.01
        See `BasePixelDetector`.
    training : Training, default=Training(max_iter=400)
        Of the teacher, and then of the student (paper: 240 epochs of each, Adam); see `Training`.
    random_state, device, memory, verbose
        See `VQTokenizer`.

    Attributes
    ----------
    history_ : dict of str to ndarray
        Of the student (mean squared distance), of the teacher under ``teacher_loss`` and so on (negative
        log-likelihood in nats a feature, up to a constant), and of the denoising U-Net under ``backbone_loss``.
    n_iter_ : int
        Training steps made for all of them.
    backbone_ : torch module
        The frozen copy, if ``backbone`` is a module.
    image_shape_, threshold_, calibrated_with_, state_, config_, seed_
        See `BasePixelDetector` and `TrainedStep`.

    References
    ----------
    Rudolph, Wehrbein, Rosenhahn & Wandt, Asymmetric student-teacher networks for industrial anomaly detection, WACV
    2023 (arXiv 2210.07829), section 3, with the authors' code. Dinh, Sohl-Dickstein & Bengio, Density estimation using
    Real NVP, ICLR 2017.

    Examples
    --------
    >>> from skmimood.baselines import AsymmetricStudentTeacher
    >>> from skmimood.datasets import make_brain_phantom
    >>> healthy, _ = make_brain_phantom(200, size=64, random_state=0)
    >>> scans, masks = make_brain_phantom(8, size=64, lesions=True, random_state=1)
    >>> detector = AsymmetricStudentTeacher(random_state=0).fit(healthy)
    >>> maps = detector.decision_function(scans)  # (8, 64, 64)
    """

    level: Annotated[int, COUNT_OR_ZERO] = 1
    n_couplings: Annotated[int, COUNT] = 4
    flow_width: Annotated[int, COUNT] = 64
    n_blocks: Annotated[int, COUNT] = 4
    student_width: Annotated[int, COUNT] = 64

    _network_class = FlowAndStudent
    _defaults: ClassVar[Mapping[str, ParameterGroup]] = {"training": Training(max_iter=400)}

    def _fit_on_features(
        self, feature_widths: list[int], encoder: dict[str, Any], held_out: float, seed: int, **arguments: Any
    ) -> None:  # fmt: skip
        if self.level >= len(feature_widths):
            raise InputError(
                f"level={self.level}, but the backbone has {len(feature_widths)} feature maps. Lower level."
            )
        if feature_widths[self.level] == 1:
            raise InputError(
                f"The backbone's feature map level={self.level} has one channel, and couplings need two."
            )
        names = ("level", "n_couplings", "flow_width", "n_blocks", "student_width")
        config = {"feature_width": feature_widths[self.level]} | self._values(*names) | encoder
        taught = self._train(train_flow, config, held_out, seed, **arguments)
        self._fit_network(train_student, config, held_out, seed=seed, taught=taught["state"], **arguments)
        self.n_iter_ += len(taught["history"]["loss"])
        self.history_ |= {f"teacher_{name}": values for name, values in taught["history"].items()}


def train_flow(
    *, images: np.ndarray, backbone: Weights, config: dict[str, Any], flip: bool, recipe: Training, seed: int,
    runtime: Runtime,
) -> dict[str, dict[str, np.ndarray]]:  # fmt: skip
    """Train the teacher of a `FlowAndStudent` on slices (n, H, W); return its ``"state"`` and ``"history"``."""
    network = new_network(FlowAndStudent, config, Streams.at(seed, 2**41).torch)
    freeze_encoder(network, backbone)
    training, _ = split_validation(len(images), recipe.validation_fraction)
    _standardise(network, images[training], recipe, runtime)

    def loss(network: Any, indices: np.ndarray, streams: Streams, training: bool) -> Tensor:
        return network(_batch(images, indices, streams, training and flip), True).mean()

    return train(network, loss, len(images), recipe, runtime, seed=seed)


def train_student(
    *, images: np.ndarray, backbone: Weights, taught: dict[str, np.ndarray], config: dict[str, Any], flip: bool,
    recipe: Training, seed: int, runtime: Runtime,
) -> dict[str, dict[str, np.ndarray]]:  # fmt: skip
    """Train the student of what `train_flow` returned; return the state of both and its own history."""
    network = new_network(FlowAndStudent, config, Streams.at(seed, 2**41).torch)
    freeze_encoder(network, backbone)
    network.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in taught.items()})

    def loss(network: Any, indices: np.ndarray, streams: Streams, training: bool) -> Tensor:
        (distances,) = network(_batch(images, indices, streams, training and flip))
        return distances.mean()

    return train(network, loss, len(images), recipe, runtime, seed=seed)


def _batch(images: np.ndarray, indices: np.ndarray, streams: Streams, flip: bool) -> Tensor:
    """Return slices (n, 1, H, W) on the device of the streams, half of them mirrored if ``flip``."""
    chosen = mirror_half(images[indices], streams.numpy) if flip else images[indices]
    return torch.from_numpy(chosen)[:, None].to(streams.torch.device)


def _standardise(network: FlowAndStudent, images: np.ndarray, recipe: Training, runtime: Runtime) -> None:
    """Set the mean and scale of the features to those of slices (n, H, W)."""
    device = resolve_device(runtime.device)
    network.to(device)
    total, squares = (
        torch.zeros(network.feature_width, dtype=torch.float64, device=device) for _ in range(2)
    )
    for batch in torch.from_numpy(images)[:, None].split(recipe.batch_size):
        with inference(device), autocast(device, resolve_precision(recipe.precision, device)):
            features = network.features(batch.to(device)).double()
        total += features.mean((2, 3)).sum(0)
        squares += features.square().mean((2, 3)).sum(0)
    mean = total / len(images)
    scale = (squares / len(images) - mean.square()).clamp(min=0).sqrt()
    network.mean.copy_(mean)
    network.scale.copy_(scale.clamp(min=_LEAST_SCALE * scale.mean().item() + torch.finfo(torch.float32).tiny))
