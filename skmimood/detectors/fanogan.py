"""Healing by a generative adversarial network, and an encoder that finds codes for it (Schlegl et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, cast

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skmimood.detectors.image_network import BaseImageDetector
from skmimood.maps.residuals import MedianResiduals
from skmimood.networks.adversarial import GeneratorWithEncoder
from skmimood.networks.weights import new_network
from skmimood.preprocessing.heads import have_heads, head_masks
from skmimood.runtime.streams import Streams, normal_draws, shared_seed, uniform_draws
from skmimood.training.augmentation import mirror_half
from skmimood.training.loop import Runtime, split_validation, train
from skmimood.training.parameters import Training
from skmimood.validation.estimator import ParameterGroup
from skmimood.validation.images import check_images
from skmimood.validation.rules import BOOLEAN, COUNT, LEVELS, NOT_NEGATIVE


class FAnoGAN(MedianResiduals, BaseImageDetector):
    """Generative adversarial network of healthy slices, and an encoder that inverts its generator (f-AnoGAN).

    A generator learns to make healthy slices of random codes, against a Wasserstein critic with gradient penalty. Then,
    with both frozen, an encoder learns the code from which the generator makes a slice again: the paper's ``izi_f``
    training, whose loss is the mean squared residual of the pixels plus ``kappa`` times that of the critic's features.
    What is made from the code of a scan is a healthy slice like it, from which it is healed; the residual inside the
    eroded head or brain, filtered by a median, is the anomaly map. `score_samples` gives the paper's score of a slice,
    the loss of the encoder. Unless stated otherwise, a change of a parameter needs a refit.

    In the paper, each step of the generator follows five of the critic, with an optimiser for each (Adam, without
    momentum). Here one optimiser (AdamW, with momentum) trains both, from the sum of two losses that do not reach the
    other's weights, and the generator learns in a share ``1 / n_critic`` of the steps, drawn at random. Generator,
    encoder and critic are plain convolutional networks, those of `VAERestoration`, where the paper has residual blocks;
    outputs are not squashed, and intensities are in [0, 1]. The last weights of generator and critic are kept, since no
    loss tells which are best; held-out slices choose the encoder's alone.

    Parameters
    ----------
    n_critic : int, default=2
        Steps of the critic for one of the generator, on average (paper: 5, in a far longer training).
    kappa : float >= 0, default=1.0
        Weight of the critic's features in the training of the encoder and in `score_samples` (paper: 1).
    encoder_max_iter : int, default=1500
        Training steps of the encoder (paper, from the authors' code: 50,000).
    latent_dim : int, default=128
        Length of the code (paper: 128).
    channels : int, default=16
        Width of the first level of the three networks (paper: 64); every further level doubles it.
    depth : int from 1 to 10, default=3
        Levels, each at half the resolution of the one before (paper: 4 for 64 pixels).
    flip : bool, default=True
        Mirror half of the slices along the last axis in training (paper: no); turn it off for sagittal slices.
    residual : {"absolute", "positive"}, default="absolute"
        See `ResidualMaps` (paper: absolute). No refit needed.
    erosion : int >= 0, default=2
        Scores are 0 outside the head or brain and within this many pixels of its surface (paper: none). No refit
        needed.
    median_filter : int, default=5
        Side in pixels, odd, of the median filter of the maps; 1 for none (paper: none). No refit needed.
    fpr : float in (0, 1), default=0.01
        See `BasePixelDetector`.
    training : Training, default=Training(max_iter=4000, learning_rate=5e-4, gradient_clip=10.0)
        Of generator and critic, and but for the steps of the encoder; see `Training` (paper: batches of 64, 1e-4 for
        generator and critic and 5e-5 for the encoder).
    random_state, device, memory, verbose
        See `VQTokenizer`.

    Attributes
    ----------
    history_ : dict of str to ndarray
        Of the encoder, and of generator and critic under ``generator_loss`` (the sum of both their losses).
    n_iter_ : int
        Training steps made for both.
    image_shape_, threshold_, calibrated_with_, state_, config_, fitted_with_, seed_
        See `BasePixelDetector` and `TrainedStep`.

    References
    ----------
    Schlegl, Seeböck, Waldstein, Langs & Schmidt-Erfurth, f-AnoGAN: fast unsupervised anomaly detection with generative
    adversarial networks, Medical Image Analysis 54, 2019, with the authors' code. Gulrajani, Ahmed, Arjovsky, Dumoulin
    & Courville, Improved training of Wasserstein GANs, NeurIPS 2017.

    Examples
    --------
    >>> from skmimood.baselines import FAnoGAN
    >>> from skmimood.datasets import make_brain_phantom
    >>> healthy, _ = make_brain_phantom(200, size=64, random_state=0)
    >>> scans, masks = make_brain_phantom(8, size=64, lesions=True, random_state=1)
    >>> detector = FAnoGAN(random_state=0).fit(healthy)
    >>> maps, healed = detector.detect(scans)  # both (8, 64, 64)
    >>> scores = detector.score_samples(scans)  # (8,)
    """

    n_critic: Annotated[int, COUNT] = 2
    kappa: Annotated[float, NOT_NEGATIVE] = 1.0
    encoder_max_iter: Annotated[int, COUNT] = 1500
    latent_dim: Annotated[int, COUNT] = 128
    channels: Annotated[int, COUNT] = 16
    depth: Annotated[int, LEVELS] = 3
    flip: Annotated[bool, BOOLEAN] = True

    _network_class = GeneratorWithEncoder
    _kept = ("kappa",)
    _defaults: ClassVar[Mapping[str, ParameterGroup]] = {
        "training": Training(max_iter=4000, learning_rate=5e-4, gradient_clip=10.0)
    }

    def _fit(self, healthy: np.ndarray, held_out: float) -> None:
        """Train generator and critic, then the encoder."""
        seed = shared_seed(self.random_state)
        config = {
            "image_shape": list(healthy.shape[1:]), "latent_dim": self.latent_dim,
            "widths": [self.channels * 2**level for level in range(self.depth)],
        }  # fmt: skip
        common = {"images": healthy, "flip": self.flip}
        generated = self._train(train_generator, config, held_out, seed, n_critic=self.n_critic, **common)
        self._fit_network(
            train_encoder, config, held_out, seed=seed, generator=generated["state"], kappa=self.kappa,
            max_iter=self.encoder_max_iter, **common,
        )  # fmt: skip
        self.n_iter_ += len(generated["history"]["loss"])
        self.history_ |= {"generator_loss": generated["history"]["loss"]}

    def score_samples(self, X: Any) -> np.ndarray:
        """Return the paper's anomaly score of each slice of ``X`` (n, H, W): higher is more anomalous.

        The mean squared residual of the pixels plus ``kappa``, as it was in fit, times that of the critic's features.
        The shape is (n,), float64; slices that show no head get 0.
        """
        check_is_fitted(self)
        self._check_parameters()
        slices = check_images(X, self.image_shape_)
        network, kappa = self._network(), self._as_fitted("kappa")

        def scores(batch: Tensor) -> Tensor:
            residual, features = network(batch[:, None])
            return residual.double() + kappa * features

        found = self._in_batches(scores, torch.from_numpy(slices).to(self._torch_device)).cpu().numpy()
        return np.where(have_heads(slices), found, 0.0)

    def _detect_batch(self, images: Tensor) -> tuple[Tensor, Tensor]:
        network = cast(GeneratorWithEncoder, self._network())
        restored = self._in_batches(
            lambda batch: network.reconstruct(batch[:, None])[:, 0].clamp(0, 1), images
        )
        return self._residuals(images, restored, head_masks(images.cpu().numpy())), restored

    def _inference_parameters(self, X: Any) -> dict[str, Any]:
        return self._values("residual", "erosion", "median_filter", "fpr")


def train_generator(
    *, images: np.ndarray, config: dict[str, Any], n_critic: int, flip: bool, recipe: Training, seed: int,
    runtime: Runtime,
) -> dict[str, dict[str, np.ndarray]]:  # fmt: skip
    """Train generator and critic of a `GeneratorWithEncoder` on slices (n, H, W) in [0, 1], to the last step.

    Returns its ``"state"`` and ``"history"``. The share of the slices that validates others is not seen.
    """

    def loss(network: Any, indices: np.ndarray, streams: Streams, training: bool) -> Tensor:
        generates = bool(streams.numpy.random() < 1 / n_critic)
        batch = _batch(images, indices, streams, flip)
        codes = normal_draws(streams.torch, len(batch), *network.code_shape)
        disbelief, of_critic = network(batch, codes, uniform_draws(streams.torch, len(batch)), generates)
        return disbelief + of_critic

    training, _ = split_validation(len(images), recipe.validation_fraction)
    network = new_network(GeneratorWithEncoder, config, Streams.at(seed, 2**41).torch)
    recipe = clone(recipe).set_params(validation_fraction=0.0)
    return train(network, loss, len(training), recipe, runtime, seed=seed)


def train_encoder(
    *, images: np.ndarray, generator: dict[str, np.ndarray], kappa: float, max_iter: int, config: dict[str, Any],
    flip: bool, recipe: Training, seed: int, runtime: Runtime,
) -> dict[str, dict[str, np.ndarray]]:  # fmt: skip
    """Train the encoder of what `train_generator` returned; return the state of all and its own history."""

    def loss(network: Any, indices: np.ndarray, streams: Streams, training: bool) -> Tensor:
        residual, features = network(_batch(images, indices, streams, training and flip))
        return (residual + kappa * features).mean()

    network = new_network(GeneratorWithEncoder, config, Streams.at(seed, 2**41).torch)
    network.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in generator.items()})
    network.requires_grad_(False)
    for part in (network.autoencoder.encoder, network.autoencoder.to_code):
        part.requires_grad_()
    recipe = clone(recipe).set_params(max_iter=max_iter)
    return train(network, loss, len(images), recipe, runtime, seed=seed)


def _batch(images: np.ndarray, indices: np.ndarray, streams: Streams, flip: bool) -> Tensor:
    """Return slices (n, 1, H, W) on the device of the streams, half of them mirrored if ``flip``."""
    chosen = mirror_half(images[indices], streams.numpy) if flip else images[indices]
    return torch.from_numpy(chosen)[:, None].to(streams.torch.device)
