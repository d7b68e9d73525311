"""Iterative restoration of anomalous tokens (MIM-OOD section 3.4, steps 2 and 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor


def restore_tokens(
    tokens: Tensor, anomaly: Tensor, uniforms: Tensor, *, threshold: float, score: Callable[[Tensor], Tensor],
    logits: Callable[[Tensor, Tensor], Tensor], temperature: float = 1.0,
) -> Iterator[Tensor]:  # fmt: skip
    """Resample, T times, every token whose anomaly score exceeds the threshold lambda.

    ``tokens`` and ``anomaly`` (n, h, w) are those of n slices. ``uniforms`` (R, T, h, w) are draws in [0, 1), the same
    for every slice, so that no slice depends on its neighbours. ``score`` takes and returns (m, h, w); ``logits(tokens
    (m, h, w), mask (m, h, w))`` returns (n_masked, K), which are divided by ``temperature``. Yields the tokens
    (n, R, h, w) of every restoration after each step, computed when it is asked for.
    """
    # Only what can change is computed: a restoration without a token above the threshold leaves the batch, one that was
    # resampled to what it was keeps its scores, and equal ones are scored once.
    n_restorations, n_steps = uniforms.shape[:2]
    restored = tokens.repeat_interleave(n_restorations, dim=0)  # (n*R, h, w)
    current = anomaly.repeat_interleave(n_restorations, dim=0)
    active = torch.arange(len(restored), device=tokens.device)
    unscored = active[:0]
    for step in range(n_steps):
        if len(unscored):
            current[unscored] = of_distinct(score, restored[unscored])
            unscored = active[:0]
        masks = current[active] > threshold
        is_anomalous = masks.flatten(1).any(1)
        active, masks = active[is_anomalous], masks[is_anomalous]
        if len(active):
            before, draws = restored[active], uniforms[active % n_restorations, step]
            after = before.masked_scatter(masks, sample(logits(before, masks), draws[masks], temperature))
            unscored = active[(after != before).flatten(1).any(1)]
            restored = restored.index_copy(0, active, after)
        yield restored.unflatten(0, (len(tokens), n_restorations))


def of_distinct(function: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """Return ``function(rows)``, a value a row, computed once for equal rows."""
    distinct, which = rows.unique(dim=0, return_inverse=True)
    return function(distinct)[which]


def sample(logits: Tensor, uniforms: Tensor, temperature: float) -> Tensor:
    """Draw tokens (...) from logits (..., K) by inverting the cumulative law at ``uniforms`` (...)."""
    cumulative = torch.softmax(logits.float() / temperature, dim=-1).cumsum(-1)
    # The last sum may round to less than 1; the draw must still fall inside it.
    target = uniforms[..., None] * cumulative[..., -1:]
    return torch.searchsorted(cumulative, target, right=True)[..., 0].clamp(max=logits.shape[-1] - 1)
