"""Random streams: every draw comes from an explicit generator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import check_random_state

if TYPE_CHECKING:
    import torch

_MAX_SEED = 2**31 - 1


def draw_seed(random_state: Any) -> int:
    """Turn scikit-learn's ``random_state`` into an integer seed; an integer stays itself."""
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(_MAX_SEED))


def shared_seed(random_state: Any) -> int:
    """Turn ``random_state`` into a seed as `draw_seed` does, the same in all processes that train together."""
    from skmimood.runtime import distributed  # torch is not imported where nothing is trained

    distributed.join()
    return distributed.broadcast(draw_seed(random_state))


@dataclass(frozen=True)
class Streams:
    """The random streams of one training step, a function of (seed, step): a resumed training draws the same."""

    numpy: np.random.Generator
    torch: torch.Generator

    @classmethod
    def at(cls, seed: int, step: int, device: Any = "cpu") -> Streams:
        """Return the streams of ``step`` (>= 0) under ``seed`` (>= 0)."""
        import torch

        sequence = np.random.SeedSequence([seed, step])
        generator = torch.Generator(device).manual_seed(int(sequence.generate_state(1, np.uint64)[0]) >> 1)
        return cls(np.random.default_rng(sequence), generator)


def uniform_draws(generator: torch.Generator, *shape: int) -> torch.Tensor:
    """Draw float32 numbers in [0, 1) on the generator's device."""
    import torch

    return torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float32)


def normal_draws(generator: torch.Generator, *shape: int) -> torch.Tensor:
    """Draw float32 numbers of mean 0 and standard deviation 1 on the generator's device."""
    import torch

    return torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float32)


def sampling_uniforms(seed: int, n_restorations: int, n_steps: int, grid: tuple[int, int]) -> np.ndarray:
    """Draw the uniforms of every restoration and step, shape (R, T, h, w), float32 in [0, 1).

    Those of fewer restorations or steps are a prefix of those of more.
    """
    children = np.random.SeedSequence(seed).spawn(n_restorations)
    return np.stack([np.random.default_rng(child).random((n_steps, *grid), np.float32) for child in children])
