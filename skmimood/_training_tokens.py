"""The tokens that token models train on: those of healthy slices, of moved copies, and of painted anomalies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skmimood._augmentation import flip_and_rotate
from skmimood._background import off_head
from skmimood._device import autocast, resolve_device, resolve_precision
from skmimood._progress import each
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
    *, images: np.ndarray, heads: np.ndarray, config: dict[str, Any], state: dict[str, np.ndarray],
    n_augmentations: int, flip: bool, seed: int, precision: str, runtime: Runtime,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Tokenise each image and flipped and rotated copies of it; see `VQTokenizer.training_tokens`.

    Returns
    -------
    tokens : ndarray of shape (n, 1 + n_augmentations, h, w), int64
    off : ndarray of that shape, bool
        Which of them lie off the head, given by ``heads`` (n, H, W).
    """
    network, encode = _encoder(config, state, precision, runtime)

    def tokens_of(copy: int, start: int) -> tuple[np.ndarray, np.ndarray]:
        part, inside = images[start : start + _BATCH], heads[start : start + _BATCH]
        if copy:
            part, inside = _moved(part, inside, Streams.at(seed, copy * 2**32 + start), flip)
        return encode(part), off_head(torch.from_numpy(inside), network.downsampling).numpy()

    return _of_copies(tokens_of, len(images), range(1 + n_augmentations), runtime)


def tokenize_painted(
    *, images: np.ndarray, heads: np.ndarray, config: dict[str, Any], state: dict[str, np.ndarray], n_copies: int,
    flip: bool, seed: int, precision: str, runtime: Runtime,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Paint anomalies into flipped and rotated copies and tokenise these; see `VQTokenizer.painted_tokens`.

    Returns
    -------
    tokens, shares : ndarray of shape (n, n_copies, h, w)
    off : ndarray of that shape, bool
        Which of them lie off the head, given by ``heads`` (n, H, W) before anything was painted.
    """
    network, encode = _encoder(config, state, precision, runtime)
    factor = network.downsampling

    def tokens_of(copy: int, start: int) -> tuple[np.ndarray, ...]:
        streams, part = Streams.at(seed, _PAINTED + copy * 2**32 + start), slice(start, start + _BATCH)
        moved, inside = _moved(images[part], heads[part], streams, flip)
        painted, changed = paint_anomalies(moved, streams.numpy)
        padded = pad(torch.from_numpy(changed[:, None].astype(np.float32)), factor)
        off = off_head(torch.from_numpy(inside), factor)
        return encode(painted), F.avg_pool2d(padded, factor)[:, 0].numpy(), off.numpy()

    return _of_copies(tokens_of, len(images), range(n_copies), runtime)


def _of_copies(
    tokens_of: Callable[[int, int], tuple[np.ndarray, ...]], n: int, copies: range, runtime: Runtime
) -> Any:
    """Join ``tokens_of(copy, start)`` of batches of n slices to arrays (n, copies, ...)."""
    batches = [(copy, start) for copy in copies for start in range(0, n, _BATCH)]
    parts = [tokens_of(*batch) for batch in each(batches, runtime.title, "batches", shown=runtime.verbose)]
    n_batches = len(batches) // len(copies)
    return tuple(
        np.stack(
            [np.concatenate(of_copy[k : k + n_batches]) for k in range(0, len(batches), n_batches)], axis=1
        )
        for of_copy in zip(*parts, strict=True)
    )


def pad(images: Tensor, factor: int) -> Tensor:
    """Pad images (n, 1, H, W) with 0 at the right and bottom to multiples of ``factor``."""
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % factor, 0, -height % factor))


def _encoder(
    config: dict[str, Any], state: dict[str, np.ndarray], precision: str, runtime: Runtime
) -> tuple[VQVAE, Callable[[np.ndarray], np.ndarray]]:
    device = resolve_device(runtime.device)
    network = load_network(VQVAE, config, state).to(device)
    context = autocast(device, resolve_precision(precision, device))
    return network, lambda images: encode_images(network, images, device, context, _BATCH)


def _moved(
    images: np.ndarray, heads: np.ndarray, streams: Streams, flip: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Flip and rotate slices (n, H, W), and their heads with them."""
    both = torch.from_numpy(np.stack([images, heads.astype(images.dtype)], axis=1))
    moved = flip_and_rotate(both, streams.torch, flip=flip).numpy()
    return moved[:, 0], moved[:, 1] > 0.5
