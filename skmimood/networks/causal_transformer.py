"""A causal transformer over sequences of tokens, with a cache of the keys and values of earlier positions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skmimood.networks.transformer import Attention, TokenTransformer, attend


class CausalAttention(Attention):
    """Multi-head self-attention in which no position sees a later one."""

    def forward(self, x: Tensor, cache: Tensor | None = None, start: int = 0) -> Tensor:
        """Map (n, l, D) to (n, l, D).

        With a ``cache`` (2, n, heads, L, D / heads), ``x`` holds positions ``start`` to ``start + l - 1``: their keys
        and values are written there, and those of earlier positions are read from it.
        """
        queries, keys, values = self._split(self.qkv(x), 3)
        if cache is not None:
            stop = start + x.shape[1]
            cache[0, :, :, start:stop], cache[1, :, :, start:stop] = keys, values
            keys, values = cache[..., :stop, :]
        return self._join(attend(queries, keys, values, is_causal=True))


class CausalTransformer(TokenTransformer):
    """Sequences of tokens (n, L) to the law of each token given those before it, logits (n, L, n_outputs).

    They are of length L = h * w; the last of the ``n_inputs`` symbols stands before the first token.
    """

    _attention = CausalAttention

    def __init__(self, *, n_inputs: int, n_heads: int, **sizes: Any) -> None:
        super().__init__(n_inputs=n_inputs, n_heads=n_heads, **sizes)
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

        If a ``cache`` holds the positions before, only this one passes; else the whole sequence does.
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
