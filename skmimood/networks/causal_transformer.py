"""A causal transformer over sequences of tokens, with a cache of the keys and values of earlier positions."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skmimood.networks.attention import attend
from skmimood.networks.transformer import Attention, Block, TokenTransformer


def attend_causally(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Let each position attend to itself and those before; a lone query is the last position and sees all keys.

    The products are written out on a CPU for the reason given in `skmimood.networks.attention.attend`.
    """
    length = queries.shape[2]
    if length == 1:
        return attend(queries, keys, values)
    if queries.device.type != "cpu":
        return F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
    later = torch.ones(length, length, dtype=torch.bool, device=queries.device).triu(1)
    scores = (queries / math.sqrt(queries.shape[-1])) @ keys.transpose(-1, -2)
    return torch.softmax(scores.masked_fill_(later, -math.inf), dim=-1).to(values.dtype) @ values


class CausalAttention(Attention):
    """Multi-head self-attention of which no position sees a later one."""

    def forward(self, x: Tensor, cache: Tensor | None = None, start: int = 0) -> Tensor:
        """Map (n, l, D) to (n, l, D).

        With a ``cache`` (2, n, heads, L, D / heads), ``x`` holds positions ``start`` to ``start + l - 1``: their keys
        and values are written there, and those of earlier positions are read from it.
        """
        n, length, d = x.shape
        qkv = self.qkv(x).view(n, length, 3, self.n_heads, d // self.n_heads).permute(2, 0, 3, 1, 4)
        queries, keys_values = qkv[0], qkv[1:]
        if cache is not None:
            cache[..., start : start + length, :] = keys_values
            keys_values = cache[..., : start + length, :]
        attended = attend_causally(queries, keys_values[0], keys_values[1])
        return self.out(attended.transpose(1, 2).reshape(n, length, d))


class CausalBlock(Block):
    """`Block` with causal attention."""

    def __init__(self, width: int, n_heads: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__(width, n_heads, mlp_ratio, drop_path)
        self.attention = CausalAttention(width, n_heads)

    def forward(
        self, x: Tensor, generator: torch.Generator | None, cache: Tensor | None = None, start: int = 0
    ) -> Tensor:
        """Map (n, l, D) to (n, l, D); ``cache`` and ``start`` as in `CausalAttention`."""
        x = x + self._drop(self.attention(self.norm1(x), cache, start), generator)
        return x + self._drop(self.mlp(self.norm2(x)), generator)


class CausalTransformer(TokenTransformer):
    """Sequences of tokens (n, L) to the law of each token given those before it, logits (n, L, n_outputs).

    Parameters
    ----------
    n_inputs : int
        Size of the input vocabulary; its last symbol stands before the first token of every sequence.
    n_outputs : int
        Size K of the codebook.
    grid : (int, int)
        Height h and width w of the token grid, of which sequences have the length L = h * w.
    depth, width, n_heads, mlp_ratio, drop_path
        As in `TokenTransformer`.
    """

    def __init__(self, *, n_inputs: int, width: int, n_heads: int, mlp_ratio: float, **sizes: Any) -> None:
        super().__init__(n_inputs=n_inputs, width=width, n_heads=n_heads, mlp_ratio=mlp_ratio, **sizes)
        rates = [cast(Block, block).drop_path for block in self.blocks]
        self.blocks = nn.ModuleList(CausalBlock(width, n_heads, mlp_ratio, rate) for rate in rates)
        self.first_symbol, self.n_heads = n_inputs - 1, n_heads

    def new_cache(self, n: int) -> Tensor:
        """Return an empty cache of ``n`` sequences, shape (depth, 2, n, heads, L, D / heads)."""
        length, width = self.position.shape
        return self.position.new_empty(len(self.blocks), 2, n, self.n_heads, length, width // self.n_heads)

    def forward(  # type: ignore[override]
        self, tokens: Tensor, generator: torch.Generator | None = None, cache: Tensor | None = None
    ) -> Tensor:
        """Return all logits (n, L, n_outputs), and fill the ``cache``; a ``generator`` means training."""
        return self._pass(self._inputs(tokens), 0, generator, cache)

    def logits_at(self, tokens: Tensor, position: int, cache: Tensor | None = None) -> Tensor:
        """Return the logits (n, n_outputs) at one position of ``tokens`` (n, L).

        They come from a pass over the whole sequence, or over this position alone if a ``cache`` holds those before.
        """
        if cache is None:
            return self(tokens)[:, position]
        inputs = self._inputs(tokens)[:, position : position + 1]
        return self._pass(inputs, position, None, cache)[:, 0]

    def _inputs(self, tokens: Tensor) -> Tensor:
        """Shift the tokens by one position: each is predicted where the one before it is seen."""
        return F.pad(tokens[:, :-1], (1, 0), value=self.first_symbol)

    def _pass(
        self, inputs: Tensor, start: int, generator: torch.Generator | None, cache: Tensor | None
    ) -> Tensor:
        x = self.embedding(inputs) + self.position[start : start + inputs.shape[1]]  # (n, l, D)
        for index, block in enumerate(self.blocks):
            x = block(x, generator, None if cache is None else cache[index], start)
        return self.head(self.norm(x))


class CausalTransformers(nn.ModuleList):
    """One `CausalTransformer` for each of ``n_orderings`` orderings of the grid, all of the same sizes."""

    def __init__(self, *, n_orderings: int, **sizes: Any) -> None:
        super().__init__(CausalTransformer(**sizes) for _ in range(n_orderings))
