"""The tokens that token models train on: those of healthy slices, of moved copies, and of painted anomalies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skmimood._augmentation import flip_and_rotate
from skmimood._background import mark_background
from skmimood._device import autocast, resolve_device, resolve_precision
from skmimood._random import Streams
from skmimood._synthetic import paint_anomalies
from skmimood._trained_step import run_convolutions
from skmimood._training import Runtime
from skmimood.networks.vqvae import VQVAE
from skmimood.networks.weights import load_network

_BATCH = 64
_PAINTED = 2**40  # streams of the painted copies, apart from those of the moved ones


def encode_images(
    network: VQVAE, images: np.ndarray, device: torch.device, context: torch.autocast, batch_size: int
) -> np.ndarray:
    """Return the tokens (n, h, w), int64, of images (n, H, W), padded with 0 to whole tokens."""

    def encode(batch: Tensor) -> Tensor:
        with context:
            return network.encode(pad(batch[:, None], network.downsampling))

    return run_convolutions(encode, torch.from_numpy(images).to(device), batch_size).cpu().numpy()


def tokenize_augmented(
    *, images: np.ndarray, config: dict[str, Any], state: dict[str, np.ndarray], n_augmentations: int, flip: bool,
    marked: bool, seed: int, precision: str, runtime: Runtime,
) -> np.ndarray:  # fmt: skip
    """Tokenise each image and flipped and rotated copies of it; see `VQTokenizer.training_tokens`."""
    encode = _encoder(config, state, precision, runtime, marked)

    def tokens_of(copy: int, start: int) -> np.ndarray:
        part = images[start : start + _BATCH]
        return encode(part if copy == 0 else _moved(part, Streams.at(seed, copy * 2**32 + start), flip))

    starts = range(0, len(images), _BATCH)
    copies = [
        np.concatenate([tokens_of(copy, start) for start in starts]) for copy in range(1 + n_augmentations)
    ]
    return np.stack(copies, axis=1)


def tokenize_painted(
    *, images: np.ndarray, config: dict[str, Any], state: dict[str, np.ndarray], n_copies: int, flip: bool,
    marked: bool, seed: int, precision: str, runtime: Runtime,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Paint anomalies into flipped and rotated copies and tokenise these; see `VQTokenizer.painted_tokens`."""
    encode = _encoder(config, state, precision, runtime, marked)
    factor = config["patch_size"] * 2 ** (len(config["channel_multipliers"]) - 1)

    def tokens_of(copy: int, start: int) -> tuple[np.ndarray, np.ndarray]:
        streams = Streams.at(seed, _PAINTED + copy * 2**32 + start)
        part = _moved(images[start : start + _BATCH], streams, flip)
        painted, changed = paint_anomalies(part, streams.numpy)
        padded = pad(torch.from_numpy(changed[:, None].astype(np.float32)), factor)
        return encode(painted), F.avg_pool2d(padded, factor)[:, 0].numpy()

    starts = range(0, len(images), _BATCH)
    copies = [[tokens_of(copy, start) for start in starts] for copy in range(n_copies)]
    tokens, shares = (
        np.stack([np.concatenate([part[index] for part in copy]) for copy in copies], axis=1)
        for index in (0, 1)
    )
    return tokens, shares


def pad(images: Tensor, factor: int) -> Tensor:
    """Pad images (n, 1, H, W) with 0 at the right and bottom to multiples of ``factor``."""
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % factor, 0, -height % factor))


def _encoder(
    config: dict[str, Any], state: dict[str, np.ndarray], precision: str, runtime: Runtime, marked: bool
) -> Callable[[np.ndarray], np.ndarray]:
    device = resolve_device(runtime.device)
    network = load_network(VQVAE, config, state).to(device)
    context = autocast(device, resolve_precision(precision, device))

    def encode(images: np.ndarray) -> np.ndarray:
        tokens = encode_images(network, images, device, context, _BATCH)
        if not marked:
            return tokens
        return mark_background(torch.from_numpy(tokens), images, network.downsampling).numpy()

    return encode


def _moved(images: np.ndarray, streams: Streams, flip: bool) -> np.ndarray:
    return flip_and_rotate(torch.from_numpy(images)[:, None], streams.torch, flip=flip)[:, 0].numpy()
