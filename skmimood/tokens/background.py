"""Tokens off the head: which they are, and their marks (see `skmimood.networks.marks`)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skmimood.preprocessing.heads import head_masks

_MARGIN = 1  # tokens around the head that are kept, since the encoder sees the head from there


def mark_background(tokens: Tensor, images: np.ndarray, factor: int) -> Tensor:
    """Mark the tokens (n, h, w), ``factor`` pixels a side, that lie off the heads of ``images`` (n, H, W)."""
    return mark_off_head(tokens, head_masks(images), factor)


def mark_off_head(tokens: Tensor, heads: np.ndarray, factor: int) -> Tensor:
    """Mark the tokens (n, h, w) that lie off ``heads`` (n, H, W); none of a slice without a head."""
    near = F.max_pool2d(torch.from_numpy(heads)[:, None].float(), factor, ceil_mode=True)
    near = F.max_pool2d(near, 2 * _MARGIN + 1, stride=1, padding=_MARGIN)[:, 0] > 0
    off = ~near & near.flatten(1).any(1)[:, None, None]
    return torch.where(off.to(tokens.device), ~tokens, tokens)
