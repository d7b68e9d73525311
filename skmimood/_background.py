"""Tokens off the head, which a transformer can leave out.

Such a token is marked: it is kept as its complement ``~token``, which is negative, so that the mark travels with the
grid and the token can still be told.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skmimood._foreground import head_masks

_MARGIN = 1  # tokens around the head that are not left out, since the encoder sees the head from there
_STEP = 32  # positions; few lengths occur, so slices find others to share a batch with


def off_head(heads: Tensor, factor: int) -> Tensor:
    """Return which tokens (n, h, w), ``factor`` pixels a side, lie off heads (n, H, W): none where there is no head."""
    near = F.max_pool2d(heads[:, None].float(), factor, ceil_mode=True)
    near = F.max_pool2d(near, 2 * _MARGIN + 1, stride=1, padding=_MARGIN)[:, 0] > 0
    return ~near & near.flatten(1).any(1)[:, None, None]


def mark_background(tokens: Tensor, images: np.ndarray, factor: int) -> Tensor:
    """Mark the tokens (n, h, w), ``factor`` pixels a side, that lie off the heads of ``images`` (n, H, W)."""
    off = off_head(torch.from_numpy(head_masks(images)), factor).to(tokens.device)
    return torch.where(off, ~tokens, tokens)


def unmark(tokens: Tensor) -> Tensor:
    """Return the tokens without marks."""
    return torch.where(tokens < 0, ~tokens, tokens)


def unmarked_in_place(tokens: np.ndarray) -> np.ndarray:
    """Take the marks off an array of tokens without a copy of it, and return it."""
    return np.invert(tokens, out=tokens, where=tokens < 0)


def masks_on_head(masks: Tensor, tokens: Tensor) -> Tensor:
    """Return masks (n, h, w) without marked tokens; one that covered no other covers all that are not marked."""
    kept = tokens >= 0
    inside = masks & kept
    is_lost = masks.flatten(1).any(1) & ~inside.flatten(1).any(1)
    return torch.where(is_lost[:, None, None], kept, inside)


def lengths(tokens: Tensor) -> Tensor:
    """Return how many positions of each grid (n, h, w) pass a transformer, shape (n,).

    Those that are not marked, and marked ones up to the next multiple of 32.
    """
    n_kept = (tokens >= 0).flatten(1).sum(1)
    return ((n_kept + _STEP - 1) // _STEP * _STEP).clamp(max=tokens.shape[1:].numel())


def longest(tokens: Tensor) -> int:
    """Return the largest of the `lengths`: in training, how many positions of every slice of the batch pass."""
    return int(lengths(tokens).max())


def in_order_of_length(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return grids (n, h, w) in the order of their `lengths`, and where in it each of them is, shape (n,)."""
    order = lengths(tokens).argsort(stable=True)
    return tokens[order], order.argsort()
