"""The tokens that token models train on: those of healthy slices, of moved copies, and of painted anomalies."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skmimood.networks.batches import run_in_batches
from skmimood.networks.vqvae import VQVAE
from skmimood.networks.weights import load_network
from skmimood.preprocessing.channels import with_channels
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
    """Return the tokens (n, h, w), int64, of images (n, H, W) or (n, C, H, W), padded with 0 to whole tokens."""

    def encode(batch: Tensor) -> Tensor:
        with context:
            return network.encode(pad(with_channels(batch), network.downsampling))

    return run_in_batches(encode, torch.from_numpy(images).to(device), batch_size).cpu().numpy()


def pad(images: Tensor, factor: int) -> Tensor:
    """Pad images (n, C, H, W) with 0 at the right and bottom to multiples of ``factor``."""
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % factor, 0, -height % factor))


def tokenize_copies(
    *, images: np.ndarray, heads: np.ndarray, config: dict[str, Any], state: dict[str, np.ndarray], n_copies: int,
    paint: bool, flip: bool, seed: int, precision: str, runtime: Runtime,
) -> tuple[np.ndarray, np.ndarray | None]:  # fmt: skip
    """Return the tokens (n, n_copies, h, w) of flipped and rotated copies of slices, and what is painted of each.

    The tokens are of the smallest integers that hold codes and marks; those off the ``heads`` (n, H, W) are marked.
    With ``paint``, anomalies are painted into each copy, and the shares of a token's pixels that they change are
    returned: float16, or float32 where float16 is not exact. Without it, the first copy is the slice itself.
    """
    device = resolve_device(runtime.device)
    network = load_network(VQVAE, config, state).to(device)
    context, factor = autocast(device, resolve_precision(precision, device)), network.downsampling
    shape = (len(images), n_copies, *(-(-side // factor) for side in images.shape[-2:]))
    tokens = np.empty(shape, type_of_tokens(config["n_codes"]))
    shares = np.empty(shape, np.float16 if factor in _EXACT_IN_FLOAT16 else np.float32) if paint else None
    batches = [(copy, start) for copy in range(n_copies) for start in range(0, len(images), _BATCH)]
    for copy, start in each(batches, runtime.title, "batches", shown=runtime.verbose):
        rows = slice(start, start + _BATCH)
        part, inside = images[rows], heads[rows]
        streams = Streams.at(seed, paint * _PAINTED + copy * 2**32 + start)
        if copy or paint:
            part, inside = _moved(part, inside, streams, flip)
        if shares is not None:
            part, changed = paint_anomalies(part, streams.numpy)
            padded = pad(torch.from_numpy(changed[:, None].astype(np.float32)), factor)
            shares[rows, copy] = F.avg_pool2d(padded, factor)[:, 0].numpy()
        found = torch.from_numpy(encode_images(network, part, device, context, _BATCH))
        tokens[rows, copy] = mark_off_head(found, inside, factor).numpy()
    return tokens, shares


def type_of_tokens(n_codes: int) -> np.dtype:
    """Return the smallest type for tokens below ``n_codes`` and for their marks, down to ``-n_codes``."""
    return np.min_scalar_type(-n_codes)


def _moved(
    images: np.ndarray, heads: np.ndarray, streams: Streams, flip: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Flip and rotate slices (n, H, W) or (n, C, H, W), and their heads (n, H, W) with them."""
    both = np.concatenate([with_channels(images), heads[:, None].astype(images.dtype)], axis=1)
    moved = flip_and_rotate(torch.from_numpy(both), streams.torch, flip=flip).numpy()
    return moved[:, :-1].reshape(images.shape), moved[:, -1] > 0.5
