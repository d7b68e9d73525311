"""Iterative restoration of anomalous tokens (MIM-OOD section 3.4, steps 2 and 3)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from scipy.stats import qmc
from torch import Tensor

ORDERS = ("confidence", "halton")


def restore_tokens(
    tokens: Tensor,
    anomaly: Tensor,
    uniforms: Tensor,
    *,
    threshold: float,
    score: Callable[[Tensor], Tensor],
    logits: Callable[[Tensor, Tensor], Tensor],
    temperature: float = 1.0,
    n_passes: int = 1,
    order: str = "confidence",
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
    temperature, n_passes, order
        See `inpaint`.

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
        restored[active] = inpaint(
            restored[active],
            masks,
            draws[active, step],
            logits,
            temperature=temperature,
            n_passes=n_passes,
            order=order,
        )
    return restored.unflatten(0, (len(tokens), n_restorations))


def inpaint(
    tokens: Tensor,
    masks: Tensor,
    uniforms: Tensor,
    logits: Callable[[Tensor, Tensor], Tensor],
    *,
    temperature: float = 1.0,
    n_passes: int = 1,
    order: str = "confidence",
) -> Tensor:
    """Replace the masked tokens by samples.

    Parameters
    ----------
    tokens, masks : Tensor of shape (m, h, w)
    uniforms : Tensor of shape (m, h, w)
        Draws in [0, 1), one a position, whenever it is sampled.
    logits : callable
        See `restore_tokens`.
    temperature : float > 0
        Divides the logits.
    n_passes : int
        1 samples all masked tokens at once and independently of one another (MIM-OOD). More sample a part in each pass,
        given the parts before: as many stay masked as the cosine schedule of MaskGIT says (Chang et al. 2022).
    order : {"confidence", "halton"}
        Which go first: those of the most probable samples (MaskGIT, without its noise), or positions far from one
        another, by a Halton sequence over the grid (Besnier et al. 2025).

    Returns
    -------
    Tensor of shape (m, h, w)
    """
    hidden, n_hidden = masks, masks.flatten(1).sum(1)  # (m, h, w), (m,)
    for index in range(1, n_passes + 1):
        law = logits(tokens, hidden)
        sampled = sample(law, uniforms, temperature)
        if index == n_passes:
            break
        if order == "halton":
            urgency = -_halton_ranks(tokens.shape[1:]).to(tokens.device).expand_as(tokens).float()
        else:
            urgency = torch.log_softmax(law.float(), dim=-1).gather(-1, sampled[..., None])[..., 0]
        urgency = urgency.masked_fill(~hidden, -math.inf).flatten(1)
        n_left = (math.cos(math.pi / 2 * index / n_passes) * n_hidden).long()  # (m,)
        place = urgency.argsort(dim=1, descending=True, stable=True).argsort(dim=1).view_as(tokens)
        n_filled = hidden.flatten(1).sum(1) - n_left
        filled = hidden & (place < n_filled[:, None, None])
        tokens, hidden = torch.where(filled, sampled, tokens), hidden & ~filled
    return torch.where(hidden, sampled, tokens)


def _halton_ranks(grid: tuple[int, ...]) -> Tensor:
    """Return when a Halton sequence first visits each cell of the grid, as ranks (h, w)."""
    h, w = grid
    points = qmc.Halton(2, scramble=False).random(16 * h * w)
    cells = torch.from_numpy((points * [h, w]).astype(int) @ [w, 1])
    first = torch.full((h * w,), len(cells)).scatter_reduce(0, cells, torch.arange(len(cells)), "amin")
    return first.argsort(stable=True).argsort().view(h, w)


def sample(logits: Tensor, uniforms: Tensor, temperature: float) -> Tensor:
    """Draw tokens (m, h, w) from logits (m, h, w, K) by inverting the cumulative law at ``uniforms``."""
    cumulative = torch.softmax(logits.float() / temperature, dim=-1).cumsum(-1)
    # The last sum may round to less than 1; the draw must still fall inside it.
    target = uniforms[..., None] * cumulative[..., -1:]
    return torch.searchsorted(cumulative, target, right=True)[..., 0].clamp(max=logits.shape[-1] - 1)
