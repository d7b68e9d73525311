"""The pseudo-abnormal module of Georgescu 2023, and the training of the classifier that learns from it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.base import clone
from torch import Tensor

from skmimood.networks.batches import run_in_batches
from skmimood.networks.mae import AutoencoderWithClassifier, MaskedAutoencoder
from skmimood.networks.weights import network_state, new_network
from skmimood.runtime.device import autocast, resolve_device, resolve_precision
from skmimood.runtime.streams import Streams, uniform_draws
from skmimood.training.loop import Runtime, split_validation, train
from skmimood.training.parameters import Training

_MAX_BOXES = 9
_BOX_SIDES = (10 / 224, 39 / 224)  # of the image's side: 10 to 39 pixels of the 224 of BraTS
_LABEL_SMOOTHING = 0.1
_MIN_SCALE = 1e-6
_MASK_STEP = 2**42  # streams of the masks of a reconstruction


def darken_boxes(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Multiply 1 to 9 boxes of each image (n, H, W) by a number in [0, 1) each, as Georgescu 2023 does."""
    images = images.copy()
    smallest, largest = ([max(1, round(share * side)) for side in images.shape[1:]] for share in _BOX_SIDES)
    for image in images:
        for _ in range(rng.integers(1, _MAX_BOXES + 1)):
            extent = rng.integers(smallest, largest, endpoint=True)
            top, left = rng.integers(0, np.array(image.shape) - extent, endpoint=True)
            image[top : top + extent[0], left : left + extent[1]] *= rng.random()
    return images


def crop_and_mirror(images: Tensor, generator: torch.Generator) -> Tensor:
    """Enlarge a random crop of each image (n, H, W) to the whole, and mirror half of them along the last axis.

    The random resized crop of the masked autoencoder: 70 to 100 % of the area, sides in a ratio of 3/4 to 4/3.
    """

    def uniform() -> Tensor:
        return uniform_draws(generator, len(images))

    area, ratio = 0.7 + 0.3 * uniform(), torch.exp((2 * uniform() - 1) * math.log(4 / 3))
    height, width = ((area / ratio).sqrt().clamp(max=1), (area * ratio).sqrt().clamp(max=1))
    top, left = ((2 * uniform() - 1) * (1 - side) for side in (height, width))
    sign, zero = 1 - 2 * (uniform() < 0.5).to(area.dtype), torch.zeros_like(area)
    rows = (torch.stack([sign * width, zero, left], 1), torch.stack([zero, height, top], 1))
    grid = F.affine_grid(torch.stack(rows, 1), [len(images), 1, *images.shape[1:]], align_corners=False)
    return F.grid_sample(images[:, None], grid, padding_mode="border", align_corners=False)[:, 0]


def visible_patches(autoencoder: MaskedAutoencoder, n_trials: int, seed: int) -> Tensor:
    """Draw the patches that are visible in each trial of a reconstruction, (n_trials, K) int64.

    They are the same for every slice, and those of fewer trials are a prefix of those of more.
    """
    height, width = autoencoder.grid
    order = Streams.at(seed, _MASK_STEP).numpy.random((n_trials, height * width)).argsort(1)
    return torch.from_numpy(order[:, : autoencoder.n_visible])


def train_residual_classifier(
    *, images: np.ndarray, autoencoder: dict[str, np.ndarray], n_trials: int,
    max_iter: int, learning_rate: float, augment: bool, config: dict[str, Any], recipe: Training, seed: int,
    runtime: Runtime,
) -> dict[str, dict[str, np.ndarray]]:  # fmt: skip
    """Train the classifier of a trained autoencoder's residuals; return the state of both and its own history."""
    network = new_network(AutoencoderWithClassifier, config, Streams.at(seed, 2**41).torch)
    network.autoencoder.load_state_dict({k: torch.from_numpy(v) for k, v in autoencoder.items()})
    network.classifier.encoder.load_state_dict(network.autoencoder.encoder.state_dict())
    training, _ = split_validation(len(images), recipe.validation_fraction)
    healed = _average_reconstructions(network.autoencoder, images, n_trials, seed, recipe, runtime)
    residuals = np.abs(images - healed)
    network.classifier.scale.fill_(float(np.square(residuals[training]).mean() ** 0.5) + _MIN_SCALE)

    def loss(classifier: Any, indices: np.ndarray, streams: Streams, training: bool) -> Tensor:
        return _pseudo_abnormal_loss(classifier, images[indices], healed[indices], streams, training, augment)

    recipe = clone(recipe).set_params(
        max_iter=max_iter, batch_size=math.ceil(recipe.batch_size / 2), learning_rate=learning_rate,
    )  # fmt: skip
    trained = train(network.classifier, loss, len(images), recipe, runtime, seed=seed)
    return {"state": network_state(network), "history": trained["history"]}


def _average_reconstructions(
    autoencoder: MaskedAutoencoder, images: np.ndarray, n_trials: int, seed: int, recipe: Training, runtime: Runtime
) -> np.ndarray:  # fmt: skip
    """Reconstruct images (n, H, W) as the fitted detector will."""
    device = resolve_device(runtime.device)
    autoencoder, visible = autoencoder.to(device), visible_patches(autoencoder, n_trials, seed).to(device)

    def reconstruct(rows: Tensor) -> Tensor:
        with autocast(device, resolve_precision(recipe.precision, device)):
            return autoencoder.reconstruct(rows, visible).mean(1)

    return run_in_batches(reconstruct, torch.from_numpy(images).to(device), recipe.batch_size).cpu().numpy()


def _pseudo_abnormal_loss(
    classifier: Any, images: np.ndarray, healed: np.ndarray, streams: Streams, training: bool, augment: bool
) -> Tensor:
    """Return the cross-entropy over the residuals of slices (n, H, W), each of which is seen in both versions.

    Half a batch of either version, of the same slices: what slices have in common cancels in the gradient.
    """
    abnormal = np.repeat([0, 1], len(images))
    images, healed = np.tile(images, (2, 1, 1)), np.concatenate([healed, darken_boxes(healed, streams.numpy)])
    residuals = torch.from_numpy(np.abs(images - healed)).to(streams.torch.device)
    if training and augment:
        residuals = crop_and_mirror(residuals, streams.torch)
    logits = classifier(residuals, streams.torch if training else None)
    target = torch.from_numpy(abnormal).to(logits.device)
    return F.cross_entropy(logits, target, label_smoothing=_LABEL_SMOOTHING)
