"""Iterative restoration of anomalous tokens (MIM-OOD section 3.4, steps 2 and 3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

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
) -> Iterator[Tensor]:
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
        ``logits(tokens (m, h, w), mask (m, h, w)) -> (n_masked, K)``, the in-painter's law of each token under the
        mask.
    temperature, n_passes, order
        See `inpaint`.

    Yields
    ------
    Tensor of shape (n, R, h, w)
        The tokens y_t of every restoration, for t = 1 to T. What a step needs is computed when it is asked for.

    Notes
    -----
    A restoration in which no token exceeds the threshold does not change any more, so it leaves the batch; one that
    was resampled to what it was keeps its scores; and equal restorations are scored once. The result is the same.
    """
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
            after = inpaint(
                before, masks, draws, logits, temperature=temperature, n_passes=n_passes, order=order
            )
            unscored = active[(after != before).flatten(1).any(1)]
            restored = restored.index_copy(0, active, after)
        yield restored.unflatten(0, (len(tokens), n_restorations))


def of_distinct(function: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """Return ``function(rows)``, a value a row, computed once for rows that are equal."""
    distinct, which = rows.unique(dim=0, return_inverse=True)
    return function(distinct)[which]


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
        law = logits(tokens, hidden)  # (n hidden, K)
        drawn = sample(law, uniforms[hidden], temperature)  # (n hidden,)
        sampled = tokens.masked_scatter(hidden, drawn)
        if index == n_passes:
            break
        urgency = torch.full(tokens.shape, -math.inf, device=tokens.device, dtype=torch.float32)
        if order == "halton":
            ranks = _halton_ranks(tokens.shape[1:]).to(tokens.device)
            urgency = torch.where(hidden, -ranks.float(), urgency)
        else:
            confidence = torch.log_softmax(law.float(), dim=-1).gather(-1, drawn[:, None])[:, 0]
            urgency = urgency.masked_scatter(hidden, confidence)
        n_left = (math.cos(math.pi / 2 * index / n_passes) * n_hidden.float()).long()  # (m,)
        place = urgency.flatten(1).argsort(dim=1, descending=True, stable=True).argsort(dim=1).view_as(tokens)
        n_filled = hidden.flatten(1).sum(1) - n_left
        filled = hidden & (place < n_filled[:, None, None])
        tokens, hidden = torch.where(filled, sampled, tokens), hidden & ~filled
    return sampled


def _halton_ranks(grid: tuple[int, ...]) -> Tensor:
    """Return when a Halton sequence first visits each cell of the grid, as ranks (h, w)."""
    h, w = grid
    points = qmc.Halton(2, scramble=False).random(16 * h * w)
    cells = torch.from_numpy((points * [h, w]).astype(int) @ [w, 1])
    first = cells.new_full((h * w,), len(cells)).scatter_reduce(
        0, cells, torch.arange(len(cells), device=cells.device), "amin"
    )
    return first.argsort(stable=True).argsort().view(h, w)


def sample(logits: Tensor, uniforms: Tensor, temperature: float) -> Tensor:
    """Draw tokens (...) from logits (..., K) by inverting the cumulative law at ``uniforms`` (...)."""
    cumulative = torch.softmax(logits.float() / temperature, dim=-1).cumsum(-1)
    # The last sum may round to less than 1; the draw must still fall inside it.
    target = uniforms[..., None] * cumulative[..., -1:]
    return torch.searchsorted(cumulative, target, right=True)[..., 0].clamp(max=logits.shape[-1] - 1)
