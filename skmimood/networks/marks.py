"""Marks of tokens that a transformer can leave out, and how many positions of a grid then pass it.

A marked token is kept as its complement ``~token``, which is negative, so that the mark travels with the grid and the
token can still be told. Which tokens are marked is the matter of `skmimood.tokens.background`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_STEP = 32  # positions; few lengths occur, so slices find others to share a batch with


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
