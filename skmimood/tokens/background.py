"""Tokens off the head: which they are, and their marks (see `skmimood.networks.marks`)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skmimood.preprocessing.heads import head_masks

_MARGIN = 1  # tokens around the head that are not left out, since the encoder sees the head from there


def off_head(heads: Tensor, factor: int) -> Tensor:
    """Return which tokens (n, h, w), ``factor`` pixels a side, lie off heads (n, H, W): none where there is no head."""
    near = F.max_pool2d(heads[:, None].float(), factor, ceil_mode=True)
    near = F.max_pool2d(near, 2 * _MARGIN + 1, stride=1, padding=_MARGIN)[:, 0] > 0
    return ~near & near.flatten(1).any(1)[:, None, None]


def mark_background(tokens: Tensor, images: np.ndarray, factor: int) -> Tensor:
    """Mark the tokens (n, h, w), ``factor`` pixels a side, that lie off the heads of ``images`` (n, H, W)."""
    off = off_head(torch.from_numpy(head_masks(images)), factor).to(tokens.device)
    return torch.where(off, ~tokens, tokens)
