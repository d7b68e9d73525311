"""Laws of masks over the token grid, and of the wrong tokens put there, that token models train on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from skmimood.exceptions import InputError
from skmimood.validation.rules import Rule

_MIN_COVERAGE, _MAX_COVERAGE = 0.01, 0.7


def brush_masks(n: int, grid: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Random walks of a brush of randomly changing width (Naval Marimont et al. 2023, section 3.3).

    The paper gives only the idea. Ours: 1 to 3 strokes; a uniform start; 4 to 12 segments a stroke, each of 1 to 5
    tokens with a heading that drifts by up to 60 degrees and a half-width of 0 to 2 tokens (lengths for a grid of 20,
    scaled with the grid). Masks that cover less than 1 % or more than 70 % are drawn again.
    """
    masks = np.zeros((n, *grid), bool)
    pending = np.arange(n)
    while len(pending):
        masks[pending] = _brush_walks(len(pending), grid, rng)
        coverage = masks[pending].mean((1, 2))
        pending = pending[(coverage < _MIN_COVERAGE) | (coverage > _MAX_COVERAGE)]
    return masks


def _brush_walks(n: int, grid: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    strokes, segments, steps = 3, 12, 5
    scale = min(1.0, max(grid) / 20)
    heading = rng.uniform(0, 2 * np.pi, (n, strokes, 1)) + np.cumsum(
        rng.uniform(-np.pi / 3, np.pi / 3, (n, strokes, segments)), axis=2
    )
    half_width = rng.integers(0, 3, (n, strokes, segments)) * scale
    # A step beyond a segment's length stays where it is; one beyond a stroke's segments or the strokes draws nothing.
    moves = np.arange(steps) < rng.integers(1, steps + 1, (n, strokes, segments))[..., None]
    exists = np.arange(segments) < rng.integers(4, segments + 1, (n, strokes))[..., None]
    exists &= (np.arange(strokes) < rng.integers(1, strokes + 1, n)[:, None])[..., None]
    direction = np.stack([np.sin(heading), np.cos(heading)], -1)[:, :, :, None] * scale  # (n, s, g, 1, 2)
    walk = np.cumsum((direction * moves[..., None]).reshape(n, strokes, segments * steps, 2), axis=2)
    points = rng.uniform(0, 1, (n, strokes, 1, 2)) * (np.array(grid) - 1) + walk
    drawn = exists[..., None] & moves
    sample, stroke, segment, _ = np.nonzero(drawn)  # each (m,)
    radius2 = (half_width[sample, stroke, segment] + 0.5) ** 2
    # Rounded to cells, so that the narrowest brush leaves no gaps; each point covers cells at most two away.
    centres = np.rint(points).astype(int).reshape(*drawn.shape, 2)[drawn]  # (m, 2)
    around = np.stack(np.meshgrid(range(-2, 3), range(-2, 3)), -1).reshape(-1, 2)  # (25, 2)
    cells = centres[:, None] + around  # (m, 25, 2)
    covered = (around**2).sum(1) <= radius2[:, None]
    covered &= ((cells >= 0) & (cells < grid)).all(2)
    masks = np.zeros((n, *grid), bool)
    rows, columns = cells[covered].T
    masks[np.broadcast_to(sample[:, None], covered.shape)[covered], rows, columns] = True
    return masks


def maskgit_cosine_masks(n: int, grid: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Scattered tokens, a share cos(pi u / 2) of all, with u uniform in (0, 1) (Chang et al. 2022)."""
    size = grid[0] * grid[1]
    count = np.maximum(1, np.round(np.cos(np.pi / 2 * rng.random(n)) * size))
    order = rng.random((n, size)).argsort(1).argsort(1)
    return (order < count[:, None]).reshape(n, *grid)


def random_tokens(tokens: np.ndarray, n_codes: int, rng: np.random.Generator) -> np.ndarray:
    """Tokens uniform over the codebook: the paper's r (Naval Marimont et al. 2023, section 3.3)."""
    return rng.integers(0, n_codes, tokens.shape)


MASK_GENERATORS = {"brush": brush_masks, "maskgit_cosine": maskgit_cosine_masks}
CORRUPTIONS = {"random": random_tokens}
_RETIRED = ("boxes", "constant", "foreign", "uniform_ratio")  # of 0.1.0, whose models still open


def draw_masks(law: Any, n: int, grid: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Draw (n, h, w) masks from a name of `MASK_GENERATORS`, a callable, or a mixture of these."""
    return _mix([generator(n, grid, rng) for generator in _members(law, MASK_GENERATORS)], law, rng)


def draw_replacements(law: Any, tokens: np.ndarray, n_codes: int, rng: np.random.Generator) -> np.ndarray:
    """Draw (n, h, w) replacements from a name of `CORRUPTIONS`, a callable, or a mixture of these."""
    return _mix([corruption(tokens, n_codes, rng) for corruption in _members(law, CORRUPTIONS)], law, rng)


def split_law(law: Any, member: str) -> tuple[float, Any]:
    """Return the share that ``member`` has in a law, and the law of the rest (None if nothing is left)."""
    weights = _weights(law)
    rest = {other: weight for other, weight in weights.items() if other != member}
    return weights.get(member, 0.0) / sum(weights.values()), rest or None


def law_of(choices: Collection[str]) -> Rule:
    """Return the rule of a law: a known name, a callable, or a mixture ``{law: weight}``."""

    def is_law(law: Any) -> bool:
        weights = _weights(law)
        known = all(callable(member) or member in {*choices, *_RETIRED} for member in weights)
        return bool(weights) and known and all(weight > 0 for weight in weights.values())

    return is_law, f"one of {sorted(choices)}, a callable, or a dict of these with positive weights"


def _weights(law: Any) -> Mapping[Any, float]:
    return law if isinstance(law, Mapping) else {law: 1.0}


def _members(law: Any, choices: Mapping[str, Any]) -> list[Any]:
    members = _weights(law)
    retired = [member for member in members if member in _RETIRED]
    if retired:
        raise InputError(
            f"No network can be trained with the law {retired[0]!r} any more; use one of {sorted(choices)} or a "
            "callable."
        )
    return [member if callable(member) else choices[member] for member in members]


def _mix(parts: list[np.ndarray], law: Any, rng: np.random.Generator) -> np.ndarray:
    """Take each sample from one part, with the mixture's weights."""
    if len(parts) == 1:
        return parts[0]
    n, weights = len(parts[0]), np.array(list(law.values()), float)
    chosen = rng.choice(len(parts), n, p=weights / weights.sum())
    return np.stack(parts)[chosen, np.arange(n)]


MASKS = law_of(MASK_GENERATORS)
REPLACEMENTS = law_of({*CORRUPTIONS, "painted"})
