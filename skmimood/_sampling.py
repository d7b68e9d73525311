"""Iterative restoration of anomalous tokens (MIM-OOD section 3.4, steps 2 and 3)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def restore_tokens(
    tokens: Tensor,
    anomaly: Tensor,
    uniforms: Tensor,
    *,
    threshold: float,
    score: Callable[[Tensor], Tensor],
    logits: Callable[[Tensor, Tensor], Tensor],
    temperature: float = 1.0,
) -> Tensor:
    """Resample, T times, every token whose anomaly score exceeds the threshold.

    Parameters
    ----------
    tokens : Tensor of shape (n, h, w)
        The tokens y_0 of n slices.
    anomaly : Tensor of shape (n, h, w)
        ``score(tokens)``, which the first step of all restorations shares.
    uniforms : Tensor of shape (R, T, h, w)
        Uniform draws in [0, 1), the same for every slice: so a slice's restorations do not depend on
        its neighbours.
    threshold : float
        lambda.
    score : callable
        ``score(tokens (m, h, w)) -> (m, h, w)``.
    logits : callable
        ``logits(tokens, mask) -> (m, h, w, K)``, the in-painter's law of the tokens under the mask.
    temperature : float > 0
        Divides the logits.

    Returns
    -------
    Tensor of shape (n, R, h, w)
        The tokens y_T of every restoration.

    Notes
    -----
    A restoration in which no token exceeds the threshold does not change any more, so it leaves the
    batch; the result is the same.
    """
    n_restorations, n_steps = uniforms.shape[:2]
    restored = tokens.repeat_interleave(n_restorations, dim=0)  # (n*R, h, w)
    current = anomaly.repeat_interleave(n_restorations, dim=0)
    draws = uniforms.repeat(len(tokens), 1, 1, 1)  # (n*R, T, h, w)
    active = torch.arange(len(restored), device=tokens.device)
    for step in range(n_steps):
        if step > 0:
            current = score(restored[active])
        masks = current > threshold
        remaining = masks.flatten(1).any(1)
        active, masks = active[remaining], masks[remaining]
        if len(active) == 0:
            break
        sampled = sample(logits(restored[active], masks), draws[active, step], temperature)
        restored[active] = torch.where(masks, sampled, restored[active])
    return restored.unflatten(0, (len(tokens), n_restorations))


def sample(logits: Tensor, uniforms: Tensor, temperature: float) -> Tensor:
    """Draw tokens (m, h, w) from logits (m, h, w, K) by inverting the cumulative law at ``uniforms``."""
    cumulative = torch.softmax(logits.float() / temperature, dim=-1).cumsum(-1)
    # The last sum may round to less than 1; the draw must still fall inside it.
    target = uniforms[..., None] * cumulative[..., -1:]
    return torch.searchsorted(cumulative, target, right=True)[..., 0].clamp(max=logits.shape[-1] - 1)
