"""The tokens that token models train on: those of healthy slices, of moved copies, and of painted anomalies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skmimood.networks.batches import run_in_batches
from skmimood.networks.vqvae import VQVAE
from skmimood.networks.weights import load_network
from skmimood.runtime.device import autocast, resolve_device, resolve_precision
from skmimood.runtime.progress import each
from skmimood.runtime.streams import Streams
from skmimood.tokens.background import mark_off_head
from skmimood.training.augmentation import flip_and_rotate
from skmimood.training.loop import Runtime
from skmimood.training.painted_anomalies import paint_anomalies

_BATCH = 64
_PAINTED = 2**40  # streams of the painted copies, apart from those of the moved ones
_EXACT_IN_FLOAT16 = (1, 2, 4, 8, 16, 32)  # sides of tokens whose shares of pixels float16 holds exactly


def encode_images(
    network: VQVAE, images: np.ndarray, device: torch.device, context: torch.autocast, batch_size: int
) -> np.ndarray:
    """Return the tokens (n, h, w), int64, of images (n, H, W), padded with 0 to whole tokens."""

    def encode(batch: Tensor) -> Tensor:
        with context:
            return network.encode(pad(batch[:, None], network.downsampling))

    return run_in_batches(encode, torch.from_numpy(images).to(device), batch_size).cpu().numpy()


def pad(images: Tensor, factor: int) -> Tensor:
    """Pad images (n, 1, H, W) with 0 at the right and bottom to multiples of ``factor``."""
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % factor, 0, -height % factor))


def tokenize_augmented(
    *, images: np.ndarray, heads: np.ndarray, config: dict[str, Any], state: dict[str, np.ndarray],
    n_augmentations: int, flip: bool, seed: int, precision: str, runtime: Runtime,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    """Return the tokens (n, 1 + n_augmentations, h, w) of images and of flipped and rotated copies, in a tuple.

    They are of the smallest integers that hold codes and marks; those off the ``heads`` (n, H, W) are marked.
    """
    _, tokens_of = _encoder(config, state, precision, runtime)

    def tokens_of_copy(copy: int, start: int) -> tuple[np.ndarray]:
        part = images[start : start + _BATCH], heads[start : start + _BATCH]
        return (tokens_of(*(_moved(*part, Streams.at(seed, copy * 2**32 + start), flip) if copy else part)),)

    types = [_type_of_tokens(config["n_codes"])]
    return _of_copies(tokens_of_copy, len(images), 1 + n_augmentations, types, runtime)


def tokenize_painted(
    *, images: np.ndarray, heads: np.ndarray, config: dict[str, Any], state: dict[str, np.ndarray], n_copies: int,
    flip: bool, seed: int, precision: str, runtime: Runtime,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    """Return the tokens (n, n_copies, h, w) of flipped and rotated copies with painted anomalies, and painted shares.

    The tokens are as those of `tokenize_augmented`; heads are those before anything was painted. The shares of their
    pixels that changed are float16, or float32 where float16 is not exact.
    """
    factor, tokens_of = _encoder(config, state, precision, runtime)

    def tokens_of_copy(copy: int, start: int) -> tuple[np.ndarray, np.ndarray]:
        streams, part = Streams.at(seed, _PAINTED + copy * 2**32 + start), slice(start, start + _BATCH)
        moved, inside = _moved(images[part], heads[part], streams, flip)
        painted, changed = paint_anomalies(moved, streams.numpy)
        padded = pad(torch.from_numpy(changed[:, None].astype(np.float32)), factor)
        return tokens_of(painted, inside), F.avg_pool2d(padded, factor)[:, 0].numpy()

    types = [
        np.min_scalar_type(-config["n_codes"]),
        np.float16 if factor in _EXACT_IN_FLOAT16 else np.float32,
    ]
    return _of_copies(tokens_of_copy, len(images), n_copies, types, runtime)


def _type_of_tokens(n_codes: int) -> np.dtype:
    """Return the smallest type for tokens below ``n_codes`` and for their marks, down to ``-n_codes``."""
    return np.min_scalar_type(-n_codes)


def _of_copies(
    tokens_of_copy: Callable[[int, int], tuple[np.ndarray, ...]], n: int, n_copies: int, types: list[Any],
    runtime: Runtime,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    """Fill arrays (n, n_copies, ...) of these types with ``tokens_of_copy(copy, start)`` of batches of n slices."""
    batches = [(copy, start) for copy in range(n_copies) for start in range(0, n, _BATCH)]
    arrays: list[np.ndarray] = []
    for copy, start in each(batches, runtime.title, "batches", shown=runtime.verbose):
        parts = tokens_of_copy(copy, start)
        arrays = arrays or [
            np.empty((n, n_copies, *part.shape[1:]), kind) for part, kind in zip(parts, types, strict=True)
        ]
        for array, part in zip(arrays, parts, strict=True):
            array[start : start + _BATCH, copy] = part
    return tuple(arrays)


def _encoder(
    config: dict[str, Any], state: dict[str, np.ndarray], precision: str, runtime: Runtime
) -> tuple[int, Callable[[np.ndarray, np.ndarray], np.ndarray]]:
    """Return the side of a token in pixels, and a function from slices and their heads to marked tokens."""
    device = resolve_device(runtime.device)
    network = load_network(VQVAE, config, state).to(device)
    context = autocast(device, resolve_precision(precision, device))

    def tokens_of(images: np.ndarray, heads: np.ndarray) -> np.ndarray:
        tokens = encode_images(network, images, device, context, _BATCH)
        return mark_off_head(torch.from_numpy(tokens), heads, network.downsampling).numpy()

    return network.downsampling, tokens_of


def _moved(
    images: np.ndarray, heads: np.ndarray, streams: Streams, flip: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Flip and rotate slices (n, H, W), and their heads with them."""
    both = torch.from_numpy(np.stack([images, heads.astype(images.dtype)], axis=1))
    moved = flip_and_rotate(both, streams.torch, flip=flip).numpy()
    return moved[:, 0], moved[:, 1] > 0.5
