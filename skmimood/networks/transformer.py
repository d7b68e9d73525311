"""A bidirectional transformer over a grid of tokens, with stochastic depth."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skmimood.networks.marks import unmark
from skmimood.networks.weights import initialise_matrices
from skmimood.runtime.distributed import draw_uniforms


def attend(queries: Tensor, keys: Tensor, values: Tensor, is_causal: bool = False) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) v for tensors of shape (n, heads, length, d).

    If ``is_causal``, a position attends to itself and those before; a lone query is the last position.
    """
    length = queries.shape[2]
    is_causal = is_causal and length > 1
    if queries.device.type != "cpu":
        return F.scaled_dot_product_attention(queries, keys, values, is_causal=is_causal)
    # On a CPU torch's own kernel rounds otherwise, and maps of saved models must stay equal to the bit. To scale the
    # queries is faster than to scale all products, and rounds less in bfloat16.
    products = queries / math.sqrt(queries.shape[-1]) @ keys.transpose(-1, -2)
    if is_causal:
        later = torch.ones(length, length, dtype=torch.bool, device=queries.device).triu(1)
        products = products.masked_fill_(later, -math.inf)
    return torch.softmax(products, dim=-1).to(values.dtype) @ values


class Attention(nn.Module):
    """Multi-head self-attention without dropout."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, L, D) to (n, L, D)."""
        return self._join(attend(*self._split(self.qkv(x), 3)))

    def attend_from(self, asking: Tensor, x: Tensor) -> Tensor:
        """Return what `forward` returns at those positions of ``x`` (n, L, D) that ``asking`` (n, m, D) holds."""
        d = asking.shape[2]
        weight, bias = self.qkv.weight, self.qkv.bias
        queries = self._split(F.linear(asking, weight[:d], bias[:d]), 1)
        return self._join(attend(*queries, *self._split(F.linear(x, weight[d:], bias[d:]), 2)))

    def _split(self, x: Tensor, n_parts: int) -> Tensor:
        """Split (n, L, parts * D) into parts and heads, (parts, n, heads, L, D / heads)."""
        return x.view(*x.shape[:2], n_parts, self.n_heads, -1).permute(2, 0, 3, 1, 4)

    def _join(self, attended: Tensor) -> Tensor:
        """Join the heads of (n, heads, L, D / heads), and project to (n, L, D)."""
        return self.out(attended.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm attention and MLP, each dropped as a whole with probability ``drop_path`` in training."""

    def __init__(self, attention: Attention, width: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm1, self.attention = nn.LayerNorm(width), attention
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, int(width * mlp_ratio)), nn.GELU(), nn.Linear(int(width * mlp_ratio), width)
        )

    def forward(self, x: Tensor, generator: torch.Generator | None = None, *context: Any) -> Tensor:
        """Map (n, L, D) to (n, L, D); the attention gets the ``context``."""
        x = x + self._drop(self.attention(self.norm1(x), *context), generator)
        return x + self._drop(self.mlp(self.norm2(x)), generator)

    def at(self, positions: Tensor, x: Tensor) -> Tensor:
        """Return what `forward` makes of ``x`` (n, L, D) at ``positions`` (n, m) alone, (n, m, D)."""
        normed, positions = self.norm1(x), positions[..., None]
        chosen = x.take_along_dim(positions, 1)
        chosen = chosen + self.attention.attend_from(normed.take_along_dim(positions, 1), normed)
        return chosen + self.mlp(self.norm2(chosen))

    def _drop(self, branch: Tensor, generator: torch.Generator | None) -> Tensor:
        if generator is None or self.drop_path == 0:
            return branch
        kept = draw_uniforms(branch, generator) >= self.drop_path
        return branch * kept.to(branch.dtype) / (1 - self.drop_path)


def make_blocks(
    depth: int, width: int, n_heads: int, mlp_ratio: float, drop_path: float = 0.0, attention: type = Attention
) -> nn.ModuleList:  # fmt: skip
    """Return blocks whose stochastic depth (Huang et al. 2016) grows linearly from 0 to ``drop_path``."""
    rates = [drop_path * i / max(1, depth - 1) for i in range(depth)]
    return nn.ModuleList(Block(attention(width, n_heads), width, mlp_ratio, rate) for rate in rates)


def _positions(wanted: Tensor, m: int) -> Tensor:
    """Return the positions (n, m) that are True in each row of ``wanted`` (n, L), in order, then others."""
    return wanted.int().argsort(dim=1, descending=True, stable=True)[:, :m]


class TokenTransformer(nn.Module):
    """Tokens (n, h, w), of ``n_inputs`` kinds with [MASK], to logits (n, h, w, n_outputs).

    Each position of the ``grid`` (h, w) has a learned embedding; for ``drop_path`` see `make_blocks`.
    """

    _attention = Attention

    def __init__(
        self, *, n_inputs: int, n_outputs: int, grid: tuple[int, int], depth: int, width: int, n_heads: int,
        mlp_ratio: float, drop_path: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.embedding = nn.Embedding(n_inputs, width)
        self.position = nn.Parameter(torch.empty(grid[0] * grid[1], width))
        self.blocks = make_blocks(depth, width, n_heads, mlp_ratio, drop_path, self._attention)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, n_outputs)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights; see `initialise_matrices`."""
        initialise_matrices(self, generator)
        nn.init.normal_(self.position, std=0.02, generator=generator)

    def forward(
        self, tokens: Tensor, generator: torch.Generator | None = None, only: Tensor | None = None,
        length: int | None = None,
    ) -> Tensor:  # fmt: skip
        """Return the logits (n, h, w, n_outputs); a ``generator`` means training.

        In inference, ``only`` (n, h, w), bool, asks for the logits (m, n_outputs) of m positions in all slices; in the
        last block the others are keys and values only. Of each slice ``length`` positions pass, at least `longest`,
        which leaves out marked tokens; logits of those that do not pass are 0.
        """
        n, h, w = tokens.shape
        position: Tensor = self.position
        tokens, kept = tokens.view(n, h * w), None
        only = None if only is None else only.view(n, h * w)
        if length is not None and length < h * w:
            kept = _positions(tokens >= 0, length)  # (n, L)
            # Not position[kept], whose gradient several threads of a CPU add up in an order of their own.
            tokens, position = tokens.take_along_dim(kept, 1), F.embedding(kept, position)
            only = None if only is None else only.take_along_dim(kept, 1)
        x = self.embedding(unmark(tokens)) + position  # (n, L, D)
        *blocks, last = cast(Iterable[Block], self.blocks)
        for block in blocks:
            x = block(x, generator)
        if only is not None:
            asking = _positions(only, max(1, int(only.sum(1).max())))
            return self.head(self.norm(last.at(asking, x)))[only.take_along_dim(asking, 1)]
        logits = self.head(self.norm(last(x, generator)))  # (n, L, n_outputs)
        if kept is not None:
            passed = kept[..., None].expand_as(logits)
            logits = logits.new_zeros(n, h * w, logits.shape[2]).scatter(1, passed, logits)
        return logits.view(n, h, w, -1)
