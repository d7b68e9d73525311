"""A bidirectional transformer over a grid of tokens, with stochastic depth."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skmimood.networks.attention import attend
from skmimood.networks.marks import unmark
from skmimood.runtime.distributed import draw_uniforms


class Attention(nn.Module):
    """Multi-head self-attention without dropout."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, L, D) to (n, L, D)."""
        n, length, d = x.shape
        qkv = self.qkv(x).view(n, length, 3, self.n_heads, d // self.n_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (n, heads, L, D / heads)
        attended = attend(q, k, v)
        return self.out(attended.transpose(1, 2).reshape(n, length, d))

    def attend_from(self, asking: Tensor, x: Tensor) -> Tensor:
        """Return what `forward` returns at those positions of ``x`` (n, L, D) that ``asking`` (n, m, D) holds."""
        n, m, d = asking.shape
        weight, bias = self.qkv.weight, self.qkv.bias
        q = F.linear(asking, weight[:d], bias[:d]).view(n, m, self.n_heads, -1).transpose(1, 2)
        kv = F.linear(x, weight[d:], bias[d:]).view(n, -1, 2, self.n_heads, d // self.n_heads)
        k, v = kv.permute(2, 0, 3, 1, 4)  # each (n, heads, L, D / heads)
        return self.out(attend(q, k, v).transpose(1, 2).reshape(n, m, d))


class Block(nn.Module):
    """Pre-norm attention and MLP, each dropped as a whole with probability ``drop_path`` in training."""

    def __init__(self, width: int, n_heads: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, n_heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, int(width * mlp_ratio)), nn.GELU(), nn.Linear(int(width * mlp_ratio), width)
        )

    def forward(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Map (n, L, D) to (n, L, D)."""
        x = x + self._drop(self.attention(self.norm1(x)), generator)
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


def _positions(wanted: Tensor, m: int) -> Tensor:
    """Return the positions (n, m) that are True in each row of ``wanted`` (n, L), in order, then others."""
    return wanted.int().argsort(dim=1, descending=True, stable=True)[:, :m]


class TokenTransformer(nn.Module):
    """Tokens (n, h, w) to ``n_outputs`` logits a position (n, h, w, n_outputs).

    Parameters
    ----------
    n_inputs : int
        Size of the input vocabulary (with the [MASK] symbol, where there is one).
    n_outputs : int
        Logits a position.
    grid : (int, int)
        Height h and width w of the token grid; each position has a learned embedding.
    depth, width, n_heads, mlp_ratio
        The usual sizes; ``width`` is a multiple of ``n_heads``.
    drop_path : float in [0, 1)
        Stochastic depth (Huang et al. 2016): the rate of the last block; it grows linearly from 0.
    """

    def __init__(
        self,
        *,
        n_inputs: int,
        n_outputs: int,
        grid: tuple[int, int],
        depth: int,
        width: int,
        n_heads: int,
        mlp_ratio: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_inputs, width)
        self.position = nn.Parameter(torch.empty(grid[0] * grid[1], width))
        rates = [drop_path * i / max(1, depth - 1) for i in range(depth)]
        self.blocks = nn.ModuleList(Block(width, n_heads, mlp_ratio, rate) for rate in rates)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, n_outputs)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights: N(0, 0.02) for embeddings and matrices, 0 for biases, as in GPT-2."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02, generator=generator)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.position, std=0.02, generator=generator)

    def forward(
        self,
        tokens: Tensor,
        generator: torch.Generator | None = None,
        only: Tensor | None = None,
        length: int | None = None,
    ) -> Tensor:
        """Return the logits.

        Parameters
        ----------
        tokens : Tensor of shape (n, h, w)
            Those that are marked (see `skmimood.networks.marks`) come last, so ``length`` leaves them out.
        generator : torch.Generator, optional
            Its presence means training (stochastic depth).
        only : Tensor of shape (n, h, w), bool, optional
            In inference, the m positions that are asked for, in all slices together. Of the last block the others
            then take part as keys and values alone.
        length : int, optional
            How many positions of each slice pass, at least `longest`; by default all.

        Returns
        -------
        Tensor of shape (n, h, w, n_outputs), 0 where no position passed, or (m, n_outputs) with ``only``
        """
        n, h, w = tokens.shape
        position: Tensor = self.position
        tokens, kept = tokens.view(n, h * w), None
        only = None if only is None else only.view(n, h * w)
        if length is not None and length < h * w:
            kept = _positions(tokens >= 0, length)  # (n, L)
            tokens, position = tokens.take_along_dim(kept, 1), position[kept]
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
