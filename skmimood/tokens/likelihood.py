"""Which tokens the in-painter itself would not have put there: the likelihood of MIM-OOD's comparison."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from skmimood.networks.transformer import TokenTransformer
from skmimood.runtime.streams import Streams
from skmimood.tokens.base import BaseTokenDetector
from skmimood.tokens.container import TokenizedScans
from skmimood.tokens.corruption import MASKS
from skmimood.tokens.inpainter import train_token_inpainter
from skmimood.validation.rules import NATS, Rule, is_count, one_of

VISIBLE = ("complementary", "random", "unmasked")
_SEVERAL: Rule = (lambda n: is_count(n) and n >= 2, "an integer of at least 2")
_MASKS_STEP = 2**42  # stream of the random masks, apart from those of the training steps


class TokenLikelihoodDetector(BaseTokenDetector):
    """Scores a token by how unlikely the masked in-painter (MVTM) finds it.

    The score is -log p(token | visible tokens) in nats, at least 0: what MIM-OOD (Naval Marimont et al. 2023,
    table 1, "MVTM") compares its detector with. The network is that of `MaskedTokenInpainter`: with the same
    training parameters, ``random_state`` and ``memory`` (and no ``skip_background``) it is trained once for both.
    Unless stated otherwise, a change of a parameter needs a refit.

    Parameters
    ----------
    threshold : float >= 0, default=6.0
        lambda: tokens with a higher score are resampled (paper: 6 for its autoregressive likelihood). It belongs just
        above ln K, the score of a guess: 5.5 for K = 256 codes. No refit needed.
    visible : {"random", "complementary", "unmasked"}, default="random"
        Which tokens the network sees (paper silent). ``"random"``: scattered masks hide a half or a third of the grid,
        and the score is the mean over the masks that hide the token. ``"complementary"``: four masks, of which each
        hides every second token of every second row. ``"unmasked"``: all, also the token that is scored. No refit
        needed.
    n_masks : int >= 2, default=16
        Masks of ``"random"``, each a pass of the network: parts of random partitions of the grid into halves and
        thirds, so that all tokens are hidden equally often, and the same for every slice. No refit needed.
    mask_generator : str, callable or dict, default="brush"
        Which tokens are masked in training; see `AnomalousTokenDetector`.
    depth, width, n_heads, mlp_ratio, drop_path, training, random_state, device, memory, verbose
        Of the transformer; see `AnomalousTokenDetector`, `Training` and `VQTokenizer`.

    Attributes
    ----------
    grid_, state_, config_, history_, n_iter_, seed_
        See `TokenStep` and `TrainedStep`.

    Notes
    -----
    A transformer learns first which tokens are frequent where, and only after many more steps what stands beside what.
    Until then the score tells how rare a token is in its place, whichever others are visible. An autoregressive model
    learns from every position in each step, this one from those that are masked, so that after equally few steps the
    other may find more; in the paper, after 200,000, it finds less.

    References
    ----------
    Naval Marimont et al., MIM-OOD, DGM4MICCAI 2023, section 4 and table 1. Naval Marimont & Tarroni, Anomaly
    detection through latent space restoration using VQ-VAEs, ISBI 2021 (restoration of unlikely tokens).
    """

    threshold: Annotated[float, NATS] = 6.0
    visible: Annotated[str, one_of(VISIBLE)] = "random"
    n_masks: Annotated[int, _SEVERAL] = 16
    mask_generator: Annotated[Any, MASKS] = "brush"

    _network_class = TokenTransformer

    def _fit(self, healthy: TokenizedScans, held_out: float) -> None:
        # The very call of MaskedTokenInpainter.fit, so that the cache trains for both but once.
        self._fit_network(
            train_token_inpainter, self._transformer_config(healthy, n_outputs=healthy.tokenizer.n_codes_), held_out,
            tokens=healthy.tokenizer.training_tokens(healthy), codes=healthy.tokenizer.codes,
            mask_generator=self.mask_generator,
        )  # fmt: skip

    def _score_tokens(self, tokens: Tensor) -> Tensor:
        network, mask_token = self._network(), self.config_["n_outputs"]
        masks = torch.from_numpy(self._masks()).to(tokens.device)  # (m, h, w)
        total = torch.zeros(tokens.shape, device=tokens.device, dtype=torch.float32)
        for mask in masks:
            hidden = mask & (self.visible != "unmasked")
            scored = mask.expand_as(tokens)
            logits = network(tokens.masked_fill(hidden, mask_token), only=scored).float()
            logits = logits.unflatten(0, (len(tokens), -1))  # (n, tokens scored, K)
            log_p = torch.log_softmax(logits, dim=-1).gather(-1, tokens[:, mask, None])[..., 0]
            total[:, mask] -= log_p
        return total / masks.sum(0)

    def _masks(self) -> np.ndarray:
        """Return which tokens each pass scores, (m, h, w) bool; every token in the same number of passes."""
        if self.visible == "unmasked":
            return np.ones((1, *self.grid_), bool)
        if self.visible == "complementary":
            return lattice_masks(self.grid_)
        return partition_masks(self.n_masks, self.grid_, Streams.at(self.seed_, _MASKS_STEP).numpy)


def lattice_masks(grid: tuple[int, int]) -> np.ndarray:
    """Return the 4 masks (4, h, w) of every second token of every second row; each token is in one of them."""
    rows, columns = np.indices(grid)
    return np.arange(4)[:, None, None] == 2 * (rows % 2) + columns % 2


def partition_masks(n_masks: int, grid: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return the parts of random partitions of the grid, about as many into halves as into thirds.

    They are masks (n_masks, h, w) with ``n_masks`` of at least 2; each token is in one part of each partition.
    """
    n_thirds = n_masks // 5 + (n_masks // 5 + n_masks) % 2  # what remains is even
    n_parts = [3] * n_thirds + [2] * ((n_masks - 3 * n_thirds) // 2)
    partitions = [rng.permutation(grid[0] * grid[1]).reshape(grid) % n for n in n_parts]
    return np.stack([part == i for part, n in zip(partitions, n_parts, strict=True) for i in range(n)])
