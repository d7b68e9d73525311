"""Marks of tokens that a transformer can leave out, and how many positions of a grid then pass it.

A marked token is stored as its complement ``~token``, which is negative: the grid carries the mark, and the token is
not lost. `skmimood.tokens.background` decides which tokens are marked.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_STEP = 32  # positions; with few different lengths, slices can share batches


def unmark(tokens: Tensor) -> Tensor:
    """Return the tokens without marks."""
    return tokens.maximum(~tokens)


def unmarked_in_place(tokens: np.ndarray) -> np.ndarray:
    """Take the marks off an array of tokens without a copy of it, and return it."""
    return np.invert(tokens, out=tokens, where=tokens < 0)


def masks_on_head(masks: Tensor, tokens: Tensor) -> Tensor:
    """Return masks (n, h, w) without marked tokens; a mask of marked tokens only becomes all that are not marked."""
    kept = tokens >= 0
    inside = masks & kept
    is_lost = masks.flatten(1).any(1) & ~inside.flatten(1).any(1)
    return torch.where(is_lost[:, None, None], kept, inside)


def lengths(tokens: Tensor) -> Tensor:
    """Return how many positions of each grid (n, h, w) pass a transformer, shape (n,): a multiple of 32, if it fits."""
    n_kept = (tokens >= 0).flatten(1).sum(1)
    return ((n_kept + _STEP - 1) // _STEP * _STEP).clamp(max=tokens.shape[1:].numel())


def longest(tokens: Tensor) -> int:
    """Return the largest of the `lengths`: how many positions of every slice of a training batch pass."""
    return int(lengths(tokens).max())


def in_order_of_length(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return grids (n, h, w) in the order of their `lengths`, and the place of each in that order, shape (n,)."""
    order = lengths(tokens).argsort(stable=True)
    return tokens[order], order.argsort()
