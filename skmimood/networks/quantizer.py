"""Vector quantisation: codebooks that follow the encoder by exponential moving averages, and finite scalars."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skmimood.runtime.distributed import all_rows


class Quantized(NamedTuple):
    """What a quantiser returns for encoder outputs of shape (n, D, h, w)."""

    vectors: Tensor  # (n, D, h, w), the nearest codes; gradients pass straight through
    tokens: Tensor  # (n, h, w) int64
    commitment: Tensor  # scalar, mean of (z_e - sg(z_q))^2, or 0 where there are no codes to commit to


class Quantizer(nn.Module):
    """Base of the quantisers: each encoder output becomes the nearest of ``codes`` (K, D)."""

    codes: Tensor

    def __init__(self, n_codes: int, code_dim: int) -> None:
        super().__init__()
        self.register_buffer("codes", torch.zeros(n_codes, code_dim))

    def initialise(self) -> None:
        """Set codes that are not learnt."""

    def forward(self, encoded: Tensor, generator: torch.Generator | None = None) -> Quantized:
        """Quantise; a ``generator`` means training, in which a learnt codebook is updated."""
        n, d, h, w = encoded.shape
        # Averages and distances need float32, whatever the precision of the rest.
        with torch.autocast(encoded.device.type, enabled=False):
            flat = self._bound(encoded.float().permute(0, 2, 3, 1).reshape(-1, d))  # (n*h*w, D)
            vectors, tokens, commitment = self._quantize(flat, generator)
            vectors = flat + (vectors - flat).detach()
        return Quantized(
            vectors.view(n, h, w, d).permute(0, 3, 1, 2).to(encoded.dtype), tokens.view(n, h, w), commitment
        )

    def look_up(self, tokens: Tensor) -> Tensor:
        """Return the codes (n, D, h, w) of tokens (n, h, w)."""
        return self.codes[tokens].permute(0, 3, 1, 2)

    def _bound(self, flat: Tensor) -> Tensor:
        """Move vectors (m, D) to where codes can be."""
        return flat

    @abstractmethod
    def _quantize(self, flat: Tensor, generator: torch.Generator | None) -> Quantized:
        """Return the codes (m, D), the tokens (m,) and the commitment of bounded vectors (m, D)."""


class EMAQuantizer(Quantizer):
    """Nearest-neighbour quantiser of van den Oord et al. (2017), appendix A.1 (EMA updates).

    The codebook starts at the k-means centres of the first batch. A code whose moving average of uses in a batch falls
    below ``restart_below`` restarts at a random encoder output (Dhariwal et al., Jukebox, 2020).
    """

    counts: Tensor
    sums: Tensor
    is_initialised: Tensor

    def __init__(self, n_codes: int, code_dim: int, *, decay: float, restart_below: float) -> None:
        super().__init__(n_codes, code_dim)
        self.decay, self.restart_below = decay, restart_below
        self.register_buffer("counts", torch.zeros(n_codes))
        self.register_buffer("sums", torch.zeros(n_codes, code_dim))
        self.register_buffer("is_initialised", torch.zeros((), dtype=torch.bool))

    def _quantize(self, flat: Tensor, generator: torch.Generator | None) -> Quantized:
        # The codebook follows the whole batch, even if other processes encode a part of it.
        whole = all_rows(flat.detach())
        if generator is not None and not self.is_initialised:
            self._initialise(whole, generator)
        tokens = nearest_code(flat.detach(), self.codes)  # (m,)
        vectors = self.codes[tokens]
        commitment = F.mse_loss(flat, vectors)
        if generator is not None:
            self._update(whole, all_rows(tokens), generator)
        return Quantized(vectors, tokens, commitment)

    @torch.no_grad()
    def _initialise(self, flat: Tensor, generator: torch.Generator) -> None:
        self.codes.copy_(self._bound(_kmeans(flat, len(self.codes), generator)))
        tokens = nearest_code(flat, self.codes)
        self.counts.copy_(torch.bincount(tokens, minlength=len(self.codes)).clamp(min=1))
        self.sums.copy_(self.codes * self.counts[:, None])
        self.is_initialised.fill_(True)

    @torch.no_grad()
    def _update(self, flat: Tensor, tokens: Tensor, generator: torch.Generator) -> None:
        one_hot = F.one_hot(tokens, len(self.codes)).to(flat.dtype)  # (n*h*w, K)
        self.counts.lerp_(one_hot.sum(0), 1 - self.decay)
        self.sums.lerp_(one_hot.T @ flat, 1 - self.decay)
        dead = self.counts < self.restart_below
        if dead.any():
            self.counts[dead] = max(self.restart_below, 1.0)
            self.sums[dead] = _random_rows(flat, int(dead.sum()), generator) * self.counts[dead][:, None]
        # Without restarts the count of a dead code underflows; the code then stays where it is.
        alive = self.counts[:, None] > 1e-5
        self.codes.copy_(torch.where(alive, self._bound(self.sums / self.counts[:, None]), self.codes))


class CosineQuantizer(EMAQuantizer):
    """`EMAQuantizer` on the unit sphere, as the codes of ViT-VQGAN (Yu et al. 2022), which learns them by gradients."""

    def _bound(self, flat: Tensor) -> Tensor:
        return F.normalize(flat)


class FiniteScalarQuantizer(Quantizer):
    """Each of D scalars is bounded and rounded to one of L_d levels (Mentzer et al. 2024); nothing is learnt.

    ``levels`` are the L_d. They are spread evenly over [-1, 1], ends included; the paper shifts an even number of
    levels by half a step, so that 0 is one of them. Each combination is a code.
    """

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__(math.prod(levels), len(levels))
        self.levels = levels

    @torch.no_grad()
    def initialise(self) -> None:
        """Set the codes: that of a token is its digits in base ``levels``, of which the last changes fastest."""
        device, dtype = self.codes.device, self.codes.dtype
        axes = (torch.linspace(-1, 1, n, device=device, dtype=dtype) for n in self.levels)
        self.codes.copy_(torch.cartesian_prod(*axes))

    def _bound(self, flat: Tensor) -> Tensor:
        return torch.tanh(flat)

    def _quantize(self, flat: Tensor, generator: torch.Generator | None) -> Quantized:
        levels = flat.new_tensor(self.levels)
        digits = ((flat.detach() + 1) / 2 * (levels - 1)).round()  # (m, D)
        places = levels.flip(0).cumprod(0).flip(0) / levels
        tokens = (digits * places).sum(1).long()  # (m,)
        return Quantized(self.codes[tokens], tokens, flat.new_zeros(()))


# Each about twice as many codes: table 1 of Mentzer et al. (2024) from 240 codes on, with its gaps filled.
_LEVELS = (
    (4, 4), (6, 5), (8, 8), (5, 5, 5), (8, 6, 5), (8, 8, 8), (8, 5, 5, 5), (8, 8, 6, 5), (7, 5, 5, 5, 5),
    (8, 8, 5, 5, 5), (8, 8, 8, 6, 5), (8, 8, 8, 8, 8), (8, 8, 8, 5, 5, 5),
)  # fmt: skip


def levels_for(n_codes: int) -> tuple[int, ...]:
    """Return the levels of a `FiniteScalarQuantizer` whose number of codes is nearest to ``n_codes``."""
    return min(_LEVELS, key=lambda levels: abs(math.prod(levels) - n_codes))


def nearest_code(flat: Tensor, codes: Tensor) -> Tensor:
    """Return for each row of ``flat`` (m, D) the index of the nearest of ``codes`` (K, D), Euclidean."""
    return (codes.square().sum(1) - 2 * flat @ codes.T).argmin(dim=1)  # |x|^2 is equal for all codes


def _kmeans(flat: Tensor, n_centres: int, generator: torch.Generator, n_iterations: int = 10) -> Tensor:
    """Lloyd's algorithm on (m, D) from random rows; an empty cluster restarts at a random row."""
    centres = _random_rows(flat, n_centres, generator)
    for _ in range(n_iterations):
        one_hot = F.one_hot(nearest_code(flat, centres), n_centres).to(flat.dtype)
        counts = one_hot.sum(0)[:, None]
        others = _random_rows(flat, n_centres, generator)
        centres = torch.where(counts > 0, one_hot.T @ flat / counts.clamp(min=1), others)
    return centres


def _random_rows(flat: Tensor, n: int, generator: torch.Generator) -> Tensor:
    return flat[torch.randint(len(flat), (n,), generator=generator, device=flat.device)]
