"""Images to discrete tokens and back."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, cast

import numpy as np
import torch
from sklearn.base import TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skmimood.exceptions import CodebookCollapseWarning, InputError, ModelLoadError
from skmimood.networks.marks import unmarked_in_place
from skmimood.networks.quantizer import levels_for
from skmimood.networks.vqvae import VQVAE
from skmimood.networks.weights import new_network
from skmimood.preprocessing.channels import n_channels, with_channels
from skmimood.preprocessing.heads import head_masks, standardise, undo_standardise
from skmimood.runtime.cache import run_cached
from skmimood.runtime.streams import Streams
from skmimood.tokens.container import TokenizedScans
from skmimood.tokens.copies import encode_images, pad, tokenize_copies
from skmimood.training.augmentation import vary_intensity
from skmimood.training.estimator import TrainedStep
from skmimood.training.loop import Runtime, train
from skmimood.training.parameters import Training
from skmimood.validation.estimator import ParameterGroup
from skmimood.validation.images import as_array, check_images
from skmimood.validation.rules import (
    BOOLEAN,
    COUNT,
    COUNT_OR_ZERO,
    MAX_LEVELS,
    NOT_NEGATIVE,
    PROBABILITY,
    RATE,
    Rule,
    is_count,
    one_of,
)  # fmt: skip

QUANTIZERS = ("ema", "cosine", "fsq")
_WIDTHS: Rule = (
    lambda widths: 0 < len(widths) <= MAX_LEVELS and all(map(is_count, widths)),
    f"a sequence of 1 to {MAX_LEVELS} positive integers, one a level",
)
_MIN_TOKENS = 4
_MAX_USAGE_IMAGES = 512
_COLLAPSED_SHARE = 0.03


class VQTokenizer(TransformerMixin, TrainedStep):
    """VQ-VAE that turns slices into a grid of discrete tokens, and tokens into slices.

    Encoder and decoder of VQGAN (Esser et al. 2021) trained by mean absolute error alone, without adversary or
    perceptual loss, as in MIM-OOD (Naval Marimont et al. 2023, section 4). Slices (n, C, H, W) of several channels,
    registered modalities for instance, have one token for all channels of a place. Unless stated otherwise, a change of
    a parameter needs a refit.

    Parameters
    ----------
    n_codes : int, default=256
        Size K of the codebook (paper: 256).
    code_dim : int, default=32
        Dimension D of a code (paper: 256). ``quantizer="fsq"`` has its own.
    quantizer : {"ema", "cosine", "fsq"}, default="ema"
        Kind of codes (paper silent). ``"ema"``: a codebook that follows the encoder by moving averages (van den Oord et
        al. 2017). ``"cosine"``: the same with unit norm (Yu et al. 2022). ``"fsq"``: 2 to 6 numbers, each rounded to
        one of a few levels (Mentzer et al. 2024); the number of codes is the nearest to ``n_codes`` that levels make
        (240 = 8 x 6 x 5 for 256; from 16 to 64,000), and ``code_dim``, ``commitment``, ``codebook_decay`` and
        ``restart_below`` are ignored.
    patch_size : int, default=2
        Side of the pixel squares that become channels before the first convolution (VQGAN: 1). 2 quarters the cost of
        the widest layers.
    channels : int, default=32
        Width of the first level (VQGAN: 128; the paper is silent).
    channel_multipliers : sequence of 1 to 10 int, default=(1, 2)
        Width of each level; L levels give tokens of f = patch_size * 2**(L - 1) pixels a side (paper: f = 8;
        we read VQGAN's (1, 1, 2, 4) there).
    n_res_blocks : int, default=1
        Residual blocks a level (VQGAN: 2).
    commitment : float, default=0.25
        Weight of the commitment loss (paper silent; van den Oord et al. 2017).
    codebook_decay : float in (0, 1), default=0.99
        Decay of the codebook's moving averages (paper silent on how codes are learnt).
    restart_below : float, default=1.0
        A code used less often a batch than this restarts at an encoder output.
    standardize : bool, default=False
        Standardise each slice first, as `SliceStandardizer` does (paper: no; presets ``"tiny"`` and ``"small"``: yes).
    background_weight : float in [0, 1], default=1.0
        Weight in the loss of a pixel off the head or brain over one inside (paper: 1). Less keeps more of the anatomy:
        half of a slice or more may be air.
    augment : bool, default=True
        Broad intensity augmentation in training (paper: yes, unspecified; see `skmimood.training.augmentation`).
    n_augmentations : int, default=2
        Flipped and rotated copies of each healthy slice that the token models see in training besides the slice
        (paper: random flips and rotations). Read when these are fitted: no refit needed here.
    flip : bool, default=True
        Whether these copies may be mirrored along the last axis: left and right in axial and coronal slices. Turn it
        off for sagittal ones. Read as ``n_augmentations`` is.
    training : Training, default=Training(max_iter=700)
        See `Training`.
    random_state : int, RandomState instance or None, default=None
        Seeds weights, batches and augmentation. The same integer and number of threads give the same bytes.
    device : str, default="auto"
        ``"auto"`` (CUDA if there is one, else the CPU), ``"cpu"``, ``"cuda"`` or ``"cuda:1"``. No refit needed.
    memory : str, joblib.Memory or None, default=None
        Cache of trainings: an equal fit by the same code is read from it. No refit needed.
    verbose : bool, default=False
        Show the progress of the training: a bar on a terminal, lines elsewhere. No refit needed.

    Attributes
    ----------
    image_shape_ : tuple of int
        Height and width seen in fit, after the number of channels where slices have them.
    grid_ : tuple of int
        Height h and width w of the token grid: image size over f, rounded up.
    n_codes_ : int
        Number of codes K: ``n_codes``, or of ``quantizer="fsq"`` the number nearest to it that levels make.
    perplexity_ : float
        exp of the entropy of code usage over healthy slices, between 1 and K.
    n_active_codes_ : int
        Codes used at least once there.
    state_, config_, fitted_with_, history_, n_iter_, seed_
        See `TrainedStep`.

    References
    ----------
    Naval Marimont et al., MIM-OOD, DGM4MICCAI 2023, sections 3.1 and 4. Esser et al., VQGAN, CVPR 2021. van den Oord
    et al., VQ-VAE, NeurIPS 2017. Yu et al., improved VQGAN, ICLR 2022, section 3.2. Mentzer et al., FSQ, ICLR 2024.
    """

    n_codes: Annotated[int, COUNT] = 256
    code_dim: Annotated[int, COUNT] = 32
    quantizer: Annotated[str, one_of(QUANTIZERS)] = "ema"
    patch_size: Annotated[int, COUNT] = 2
    channels: Annotated[int, COUNT] = 32
    channel_multipliers: Annotated[Sequence[int], _WIDTHS] = (1, 2)
    n_res_blocks: Annotated[int, COUNT] = 1
    commitment: Annotated[float, NOT_NEGATIVE] = 0.25
    codebook_decay: Annotated[float, RATE] = 0.99
    restart_below: Annotated[float, NOT_NEGATIVE] = 1.0
    standardize: Annotated[bool, BOOLEAN] = False
    background_weight: Annotated[float, PROBABILITY] = 1.0
    augment: Annotated[bool, BOOLEAN] = True
    n_augmentations: Annotated[int, COUNT_OR_ZERO] = 2
    flip: Annotated[bool, BOOLEAN] = True

    _check_input = staticmethod(check_images)
    _network_class = VQVAE
    _learnt = ("image_shape_", "grid_", "perplexity_", "n_active_codes_")
    _kept = ("standardize",)
    _defaults: ClassVar[Mapping[str, ParameterGroup]] = {"training": Training(max_iter=700)}

    def _fit(self, healthy: np.ndarray, held_out: float) -> None:
        seen = standardise(healthy) if self.standardize else healthy
        config = self._config()
        if (n := n_channels(healthy)) > 1:
            config["image_channels"] = n
        grid = token_grid(healthy.shape[-2:], pixels_a_side(config))
        self._fit_network(
            train_vqvae, config, held_out, images=seen, heads=head_masks(healthy),
            **self._values("commitment", "background_weight", "augment"),
        )  # fmt: skip
        self.image_shape_, self.grid_ = healthy.shape[1:], grid
        self._measure_usage(seen)

    def __skmimood_restore__(self, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> None:
        """Set what was learnt; refuse slices of another number of tokens or channels than the network has."""
        super().__skmimood_restore__(arrays, values)
        shape, channels = self.image_shape_, self.config_.get("image_channels", 1)
        fits = shape[:-2] == ((channels,) if channels > 1 else ())
        if not fits or token_grid(shape[-2:], self.downsampling) != self.grid_:
            raise ModelLoadError(
                f"the slices {shape} of {type(self).__name__} do not fit its tokens {self.grid_}."
            )

    def transform(self, X: Any) -> TokenizedScans:
        """Return slices ``X`` in [0, 1], of the shape seen in fit, with their tokens (n, h, w)."""
        check_is_fitted(self)
        self._check_parameters()
        images = check_images(X, self.image_shape_)
        return TokenizedScans(images, self._encode(self.seen(images)), self)

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Decode `TokenizedScans` to slices of their shape, or tokens (n, h, w) to slices as the network sees them."""
        check_is_fitted(self)
        tokens = as_array("Tokens", X.tokens if isinstance(X, TokenizedScans) else X)
        if tokens.ndim != 3 or tokens.shape[1:] != self.grid_ or tokens.dtype.kind not in "iu":
            raise InputError(
                f"Tokens must be integers of shape (n, {self.grid_[0]}, {self.grid_[1]}); got {tokens.dtype} "
                f"{tokens.shape}."
            )
        if tokens.size and (tokens.min() < 0 or tokens.max() >= self.n_codes_):
            raise InputError(
                f"Tokens must lie in [0, {self.n_codes_ - 1}]; got {tokens.min()} to {tokens.max()}."
            )
        decoded = self.decode_tensor(torch.from_numpy(tokens.astype(np.int64))).cpu().numpy()
        return self.unseen(decoded, X.images) if isinstance(X, TokenizedScans) else decoded

    def score(self, X: Any, y: Any = None) -> float:
        """Return the negative mean absolute error of reconstructing the slices ``X``; ``y`` is ignored."""
        scans = self.transform(X)
        return -float(np.abs(scans.images - self.inverse_transform(scans)).mean())

    def seen(self, images: np.ndarray) -> np.ndarray:
        """Return slices in the intensities that the network sees: standardised, or as they are."""
        return standardise(images) if self._as_fitted("standardize") else images

    def unseen(self, seen: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Return slices of the network in the intensities of ``images``, the slices they belong to."""
        return undo_standardise(seen, images) if self._as_fitted("standardize") else seen

    @property
    def codes(self) -> np.ndarray:
        """Codebook of shape (K, D), float32."""
        return self.state_["quantizer.codes"]

    @property
    def n_codes_(self) -> int:
        """Number of codes K."""
        return len(self.codes)

    @property
    def downsampling(self) -> int:
        """Pixels a side of a token, f."""
        return pixels_a_side(self.config_)

    def decode_tensor(self, tokens: Tensor) -> Tensor:
        """Decode tokens (n, h, w) on any device to slices as the network sees them, on this one's device."""
        height, width = self.image_shape_[-2:]
        network = cast(VQVAE, self._network())
        return self._in_batches(
            lambda batch: (
                network.decode(batch)[..., :height, :width].clamp(0, 1).reshape(-1, *self.image_shape_)
            ),
            tokens.to(self._torch_device),
        )

    def training_tokens(self, X: TokenizedScans, *, marked: bool = False) -> np.ndarray:
        """Return the tokens that a token model trains on, shape (n, 1 + n_augmentations, h, w).

        Of each slice its own tokens, then those of its flipped and rotated copies, cached, as the smallest integers
        that hold them. With ``marked``, those off the head are marked (see `skmimood.tokens.background`).
        """
        return self._tokens_of_copies(
            "moved copies", X, marked, n_copies=1 + self.n_augmentations, paint=False
        )[0]

    def painted_tokens(
        self, X: TokenizedScans, n_copies: int, *, marked: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the tokens (n, n_copies, h, w) of moved copies of the slices with painted anomalies.

        With them, of the same shape, the share of each token's pixels that an anomaly has visibly changed, exact.
        """
        return self._tokens_of_copies("painted copies", X, marked, n_copies=n_copies, paint=True)

    def _tokens_of_copies(self, title: str, X: TokenizedScans, marked: bool, **arguments: Any) -> Any:
        tokens, shares = run_cached(
            tokenize_copies, self.memory, runtime=Runtime(title, self.device, bool(self.verbose)),
            images=self.seen(X.images), heads=head_masks(X.images), config=self.config_, state=self.state_,
            flip=self.flip, seed=self.seed_, precision=self._precision(), **arguments,
        )  # fmt: skip
        return tokens if marked else unmarked_in_place(tokens), shares

    def _encode(self, images: np.ndarray) -> np.ndarray:
        network = cast(VQVAE, self._network())
        return encode_images(network, images, self._torch_device, self._autocast(), self._training.batch_size)

    def _config(self) -> dict[str, Any]:
        """Return the arguments of `VQVAE`."""
        names = ("patch_size", "channels", "channel_multipliers", "n_res_blocks", "n_codes", "code_dim")
        config = self._values(*names, "codebook_decay", "restart_below")
        config["channel_multipliers"] = list(self.channel_multipliers)
        if self.quantizer == "fsq":
            levels = levels_for(self.n_codes)
            return config | {"n_codes": math.prod(levels), "code_dim": len(levels), "levels": list(levels)}
        return config | {"unit_codes": True} if self.quantizer == "cosine" else config

    def _measure_usage(self, images: np.ndarray) -> None:
        chosen = np.linspace(0, len(images) - 1, min(len(images), _MAX_USAGE_IMAGES)).astype(int)
        usage = np.bincount(self._encode(images[chosen]).ravel(), minlength=self.n_codes_)
        share = usage[usage > 0] / usage.sum()
        self.n_active_codes_ = len(share)
        self.perplexity_ = float(np.exp(-(share * np.log(share)).sum()))
        if self.perplexity_ < max(1.5, _COLLAPSED_SHARE * self.n_codes_):
            warnings.warn(
                f"The codebook has collapsed: perplexity {self.perplexity_:.1f}, {self.n_active_codes_} of "
                f"{self.n_codes_} codes in use. Train longer, lower code_dim, or pass more varied slices.",
                CodebookCollapseWarning, stacklevel=4,
            )  # fmt: skip


def pixels_a_side(config: Mapping[str, Any]) -> int:
    """Return the pixels a side of a token of the `VQVAE` that ``config`` builds, f."""
    return config["patch_size"] * 2 ** (len(config["channel_multipliers"]) - 1)


def token_grid(image_shape: tuple[int, ...], factor: int) -> tuple[int, ...]:
    """Return height and width of the grid of tokens, ``factor`` pixels a side, of images of this shape."""
    grid = tuple(-(-side // factor) for side in image_shape)
    if np.prod(grid) < _MIN_TOKENS:
        raise InputError(
            f"Images of {image_shape[0]} x {image_shape[1]} pixels make {grid[0]} x {grid[1]} tokens of {factor} "
            f"pixels; at least {_MIN_TOKENS} are needed. Use larger images, or fewer levels in channel_multipliers."
        )
    return grid


def train_vqvae(
    *, images: np.ndarray, heads: np.ndarray, config: dict[str, Any], commitment: float, background_weight: float,
    augment: bool, recipe: Training, seed: int, runtime: Runtime,
) -> dict[str, dict[str, np.ndarray]]:  # fmt: skip
    """Train a VQ-VAE on slices (n, H, W) or (n, C, H, W) in [0, 1] with their heads (n, H, W).

    Return its ``"state"`` and ``"history"``.
    """
    pixels, inside = with_channels(torch.from_numpy(images)), torch.from_numpy(heads)

    def loss(network: Any, indices: np.ndarray, streams: Streams, training: bool) -> Tensor:
        batch = pad(pixels[indices].to(streams.torch.device), network.downsampling)
        if training and augment:
            batch = vary_intensity(batch, streams.torch)
        reconstruction, quantized = network(batch, streams.torch if training else None)
        difference = (reconstruction - batch).abs()
        if background_weight < 1:
            weight = pad(inside[indices][:, None].to(batch), network.downsampling).clamp(
                min=background_weight
            )
            difference = difference * weight / weight.mean().clamp(min=1e-6)
        error = difference.mean()
        return error + commitment * quantized.commitment if training else error

    network = new_network(VQVAE, config, Streams.at(seed, 2**41).torch)
    return train(network, loss, len(images), recipe, runtime, seed=seed)
