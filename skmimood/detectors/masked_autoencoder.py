"""Masked autoencoder, and a classifier of its residuals that trains on darkened boxes (Georgescu 2023)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skmimood.detectors.image_network import BaseImageDetector
from skmimood.detectors.pseudo_abnormal import (
    crop_and_mirror,
    train_residual_classifier,
    visible_patches,
)
from skmimood.exceptions import InputError
from skmimood.maps.residuals import RESIDUALS, clear_surface, filter_maps, median_maps, residual_maps
from skmimood.networks.mae import AutoencoderWithClassifier, MaskedAutoencoder, to_patches
from skmimood.networks.weights import new_network
from skmimood.preprocessing.heads import have_heads
from skmimood.runtime.streams import Streams, uniform_draws
from skmimood.training.loop import Runtime, train
from skmimood.training.parameters import Training
from skmimood.validation.estimator import ParameterGroup
from skmimood.validation.images import check_images
from skmimood.validation.rules import BOOLEAN, COUNT, COUNT_OR_ZERO, ODD, POSITIVE, RATE, SHARE, one_of

_MIN_PATCHES = 4


class MaskedAutoencoderDetector(BaseImageDetector):
    """Masked autoencoder with a classifier of its residuals (Georgescu 2023).

    A vision transformer learns to predict hidden patches of healthy slices from a few visible ones (He et al. 2022);
    reconstructions under several random masks are averaged. A second transformer, initialised from the encoder, learns
    to tell the residual of a healthy slice from that of its *pseudo-abnormal* version, in which boxes of the
    reconstruction are darkened. Its probability of "abnormal" is the paper's score of a slice: `score_samples`. The
    pixel maps are our extension: the residual of the autoencoder, averaged over the trials that hid a pixel.

    The paper's values, from the authors' code, are given with each parameter. Other than there, the masks of a
    reconstruction are the same for every slice, so that no result depends on a batch; a step of the classifier sees
    both versions of the same slices, with boxes drawn anew; residuals are divided by their root mean square over the
    training slices; there is no class token, no decay of the learning rate over layers and no random erasing; and the
    best weights of the classifier are chosen by its loss over held-out healthy slices, not by labelled abnormal ones.
    Unless stated otherwise, a change of a parameter needs a refit; one of those of the classifier takes the autoencoder
    from the cache.

    Parameters
    ----------
    patch_size : int, default=8
        Side of a patch in pixels (paper: 16 for images of 224 x 224). Slices are padded with 0 to whole patches.
    mask_ratio : float in (0, 1), default=0.75
        Share of the patches that are hidden, in training and when reconstructing (paper: 0.75).
    n_trials : int, default=4
        Reconstructions under different masks, which are averaged (paper: 4). For the maps no refit is needed;
        `score_samples` keeps the number that its classifier has learnt with.
    residual : {"absolute", "positive"}, default="absolute"
        Of the maps; see `ResidualMaps`. No refit needed.
    min_filter, mean_filter : int, default=3 and 7
        Of the maps; see `ResidualMaps`. No refit needed.
    erosion : int >= 0, default=0
        Of the maps; see `ResidualMaps`. No refit needed.
    median_filter : int, default=1
        Side in pixels, odd, of a median filter that follows; 1 for none. No refit needed.
    fpr : float in (0, 1), default=0.01
        See `BasePixelDetector`.
    augment : bool, default=True
        Train both networks on random resized crops of 70 to 100 % of the area, half of them mirrored along the last
        axis (paper: yes).
    depth, width, n_heads : int, default=6, 128 and 4
        Blocks, width and heads of the autoencoder's encoder and of the classifier (paper: 12, 768 and 12, ViT-B).
    mlp_ratio : float, default=4.0
        Width of the MLPs over that of the tokens (paper: 4).
    decoder_depth, decoder_width, decoder_n_heads : int, default=2, 64 and 4
        Of the autoencoder's decoder (paper: 8, 512 and 16).
    drop_path : float in [0, 1), default=0.1
        Stochastic depth of the classifier (paper: 0.1).
    classifier_max_iter : int, default=300
        Training steps of the classifier (paper: 100 epochs).
    classifier_learning_rate : float, default=5e-4
        Peak rate for the classifier (paper: 1e-3 for each 256 slices of a batch).
    training : Training, default=Training(max_iter=1000, batch_size=32, weight_decay=0.05, warmup_iter=50)
        Of the autoencoder, and but for steps and rate of the classifier, which sees both versions of half as many
        slices a step (paper: 1600 epochs in batches of 128 at 1.5e-4 for each 256 slices, decay 0.05, warm-up of 40
        epochs, no clipping); see `Training`.
    random_state, device, memory, verbose
        See `VQTokenizer`.

    Attributes
    ----------
    image_shape_, threshold_, calibrated_with_
        See `BasePixelDetector`.
    history_ : dict of str to ndarray
        Of the autoencoder (mean squared error of hidden pixels), and of the classifier under ``classifier_loss`` and so
        on (cross-entropy).
    n_iter_ : int
        Training steps made for both networks.
    state_, config_, fitted_with_, seed_
        See `TrainedStep`.

    References
    ----------
    Georgescu, Masked autoencoders for unsupervised anomaly detection in medical images, KES 2023
    (arXiv 2307.07534), and the authors' code. He et al., Masked autoencoders are scalable vision learners, CVPR 2022.
    """

    patch_size: Annotated[int, COUNT] = 8
    mask_ratio: Annotated[float, RATE] = 0.75
    n_trials: Annotated[int, COUNT] = 4
    residual: Annotated[str, one_of(RESIDUALS)] = "absolute"
    min_filter: Annotated[int, ODD] = 3
    mean_filter: Annotated[int, ODD] = 7
    erosion: Annotated[int, COUNT_OR_ZERO] = 0
    median_filter: Annotated[int, ODD] = 1
    augment: Annotated[bool, BOOLEAN] = True
    depth: Annotated[int, COUNT] = 6
    width: Annotated[int, COUNT] = 128
    n_heads: Annotated[int, COUNT] = 4
    mlp_ratio: Annotated[float, POSITIVE] = 4.0
    decoder_depth: Annotated[int, COUNT] = 2
    decoder_width: Annotated[int, COUNT] = 64
    decoder_n_heads: Annotated[int, COUNT] = 4
    drop_path: Annotated[float, SHARE] = 0.1
    classifier_max_iter: Annotated[int, COUNT] = 300
    classifier_learning_rate: Annotated[float, POSITIVE] = 5e-4

    _network_class = AutoencoderWithClassifier
    _kept = ("n_trials",)
    _defaults: ClassVar[Mapping[str, ParameterGroup]] = {
        "training": Training(max_iter=1000, batch_size=32, weight_decay=0.05, warmup_iter=50)
    }

    def _fit(self, healthy: np.ndarray, held_out: float) -> None:
        """Train the autoencoder, then the classifier of its residuals."""
        config = self._autoencoder_config(healthy.shape[1:])
        self._fit_network(train_autoencoder, config, held_out, images=healthy, augment=self.augment)
        history = self.history_
        self._fit_network(
            train_residual_classifier, config | {"drop_path": self.drop_path}, held_out, images=healthy,
            autoencoder=self.state_, n_trials=self.n_trials, max_iter=self.classifier_max_iter,
            learning_rate=self.classifier_learning_rate, augment=self.augment,
        )  # fmt: skip
        self.n_iter_ += len(history["loss"])
        self.history_ = history | {f"classifier_{name}": array for name, array in self.history_.items()}

    def score_samples(self, X: Any) -> np.ndarray:
        """Return the classifier's probability that a slice of ``X`` (n, H, W) is abnormal, the paper's score.

        The shape is (n,), float64; slices that show no head get 0.
        """
        check_is_fitted(self)
        self._check_parameters()
        slices = check_images(X, self.image_shape_)
        images = torch.from_numpy(slices).to(self._torch_device)
        network, visible = self._networks(self._as_fitted("n_trials"))

        def logits(rows: Tensor) -> Tensor:
            residuals = (rows - network.autoencoder.reconstruct(rows, visible).mean(1)).abs()
            return network.classifier(residuals).double()

        probabilities = self._in_batches(logits, images).softmax(1)[:, 1].cpu().numpy()
        return np.where(have_heads(slices), probabilities, 0.0)

    def _detect_batch(self, images: Tensor) -> tuple[Tensor, Tensor]:
        network, visible = self._networks()
        trials = self._in_batches(lambda rows: network.autoencoder.reconstruct(rows, visible), images)
        maps, restored = residual_maps(images, trials, self.residual, "mean", 0.0)
        # A pixel has no residual in the trials that see it; how many these are must not shape the map.
        maps = maps / network.autoencoder.hidden_share(visible, self.image_shape_).clamp(
            min=1 / self.n_trials
        )
        maps = filter_maps(maps, self.min_filter, self.mean_filter).cpu()
        maps = clear_surface(maps, images.cpu().numpy(), self.erosion)
        return median_maps(maps, self.median_filter), restored

    def _networks(self, n_trials: int | None = None) -> tuple[AutoencoderWithClassifier, Tensor]:
        """Return the fitted networks, and the visible patches of each trial (n_trials, K)."""
        network = cast(AutoencoderWithClassifier, self._network())
        visible = visible_patches(network.autoencoder, n_trials or self.n_trials, self.seed_)
        return network, visible.to(self._torch_device)

    def __sklearn_is_fitted__(self) -> bool:
        # A fit that was broken off between the two trainings leaves the autoencoder alone.
        return "drop_path" in getattr(self, "config_", {})

    def _autoencoder_config(self, image_shape: tuple[int, ...]) -> dict[str, Any]:
        """Return the arguments of the `MaskedAutoencoder` over images of this shape."""
        grid = [-(-side // self.patch_size) for side in image_shape]
        if np.prod(grid) < _MIN_PATCHES:
            raise InputError(
                f"Images of {image_shape[0]} x {image_shape[1]} pixels make {grid[0]} x {grid[1]} patches of "
                f"{self.patch_size} pixels; at least {_MIN_PATCHES} are needed. Lower patch_size."
            )
        sizes = self._values("patch_size", "mask_ratio", "depth", "width", "n_heads", "mlp_ratio")
        return {"grid": grid} | sizes | self._values("decoder_depth", "decoder_width", "decoder_n_heads")

    def _inference_parameters(self, X: Any) -> dict[str, Any]:
        names = ("n_trials", "residual", "min_filter", "mean_filter", "erosion", "median_filter", "fpr")
        return self._values(*names)

    def _parameter_faults(self) -> Iterator[str]:
        yield from super()._parameter_faults()
        yield from self._heads_fault()
        yield from self._heads_fault("decoder_")


def train_autoencoder(
    *, images: np.ndarray, config: dict[str, Any], augment: bool, recipe: Training, seed: int, runtime: Runtime
) -> dict[str, dict[str, np.ndarray]]:  # fmt: skip
    """Train a `MaskedAutoencoder` on slices (n, H, W) in [0, 1]; return its ``"state"`` and ``"history"``."""

    def loss(network: Any, indices: np.ndarray, streams: Streams, training: bool) -> Tensor:
        device = streams.torch.device
        batch = torch.from_numpy(images[indices]).to(device)
        if training and augment:
            batch = crop_and_mirror(batch, streams.torch)
        patches = to_patches(batch, network.patch_size)
        order = uniform_draws(streams.torch, *patches.shape[:2]).argsort(1)
        visible, hidden = order[:, : network.n_visible], order[:, network.n_visible :]
        hidden, predicted = hidden[..., None], network(patches, visible)
        return F.mse_loss(predicted.take_along_dim(hidden, 1), patches.take_along_dim(hidden, 1))

    network = new_network(MaskedAutoencoder, config, Streams.at(seed, 2**41).torch)
    return train(network, loss, len(images), recipe, runtime, seed=seed)
