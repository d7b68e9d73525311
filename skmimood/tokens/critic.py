"""Which tokens look sampled: the Token-Critic of MIM-OOD's comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skmimood.networks.transformer import TokenTransformer
from skmimood.networks.weights import load_network, new_network
from skmimood.runtime.device import resolve_device
from skmimood.runtime.streams import Streams, shared_seed, uniform_draws
from skmimood.tokens.base import BaseTokenDetector
from skmimood.tokens.container import TokenizedScans
from skmimood.tokens.corruption import MASKS, draw_masks
from skmimood.tokens.inpainter import train_token_inpainter
from skmimood.tokens.sampling import sample
from skmimood.training.loop import Runtime, pick_copies, train
from skmimood.training.parameters import Training
from skmimood.validation.rules import PROBABILITY


class TokenCritic(BaseTokenDetector):
    """Transformer that tells tokens sampled from the masked in-painter (MVTM) from real ones.

    Trained on healthy tokens of which some are masked and filled with independent samples of the frozen in-painter: it
    learns p(sampled) of every token by binary cross-entropy (Lezama et al. 2022, section 3; the "MVTM + Token-Critic"
    of MIM-OOD's tables). The in-painter is that of `MaskedTokenInpainter`: with the same training parameters,
    ``random_state`` and ``memory`` (and no ``skip_background``) it is trained once for both. Unless stated otherwise, a
    change of a parameter needs a refit.

    Parameters
    ----------
    threshold : float in [0, 1], default=0.5
        lambda: tokens with a higher probability are resampled (MIM-OOD silent). Tune it on validation slices: a critic
        that cannot tell returns the share of tokens masked in training, about 0.64. No refit needed.
    mask_generator : str, callable or dict, default="maskgit_cosine"
        Which tokens are sampled in training (Lezama et al.: the cosine schedule); see `AnomalousTokenDetector`.
    generator_mask_generator : str, callable or dict, default="brush"
        Which tokens are masked in the training of the in-painter, as ``mask_generator`` of `MaskedTokenInpainter`.
    depth, width, n_heads, mlp_ratio, drop_path
        Of the critic and of the in-painter alike; see `AnomalousTokenDetector`.
    training : Training, default=Training()
        Of each of the two; see `Training`.
    random_state, device, memory, verbose
        See `VQTokenizer`.

    Attributes
    ----------
    grid_ : tuple of int
        Height h and width w of the token grid.
    state_, config_, history_, n_iter_, seed_
        Of the critic, which alone scores; see `skmimood.training.estimator.TrainedStep`.

    References
    ----------
    Lezama et al., Improved masked image generation with Token-Critic, ECCV 2022. Naval Marimont et al., MIM-OOD,
    DGM4MICCAI 2023, section 4 and tables 1 and 2.
    """

    threshold: Annotated[float, PROBABILITY] = 0.5
    mask_generator: Annotated[Any, MASKS] = "maskgit_cosine"
    generator_mask_generator: Annotated[Any, MASKS] = "brush"

    _network_class = TokenTransformer

    def _fit(self, healthy: TokenizedScans, held_out: float) -> None:
        tokens, seed = healthy.tokenizer.training_tokens(healthy), shared_seed(self.random_state)
        generator_config = self._transformer_config(healthy, n_outputs=healthy.tokenizer.n_codes_)
        # The very call of MaskedTokenInpainter.fit, so that the cache trains for both but once.
        generator = self._train(
            train_token_inpainter, generator_config, held_out, seed, tokens=tokens, codes=healthy.tokenizer.codes,
            mask_generator=self.generator_mask_generator,
        )  # fmt: skip
        self._fit_network(
            train_token_critic, self._transformer_config(healthy, n_outputs=1), held_out, seed=seed, tokens=tokens,
            generator_config=generator_config, generator_state=generator["state"],
            mask_generator=self.mask_generator,
        )  # fmt: skip

    def _score_tokens(self, tokens: Tensor) -> Tensor:
        return torch.sigmoid(self._network()(tokens)[..., 0].float())


def train_token_critic(
    *, tokens: np.ndarray, config: dict[str, Any], generator_config: dict[str, Any],
    generator_state: Mapping[str, np.ndarray], mask_generator: Any, recipe: Training, seed: int, runtime: Runtime,
) -> dict[str, dict[str, np.ndarray]]:  # fmt: skip
    """Train a Token-Critic on ``tokens`` (n, n_copies, h, w) and a frozen in-painter; see `train_token_inpainter`."""
    mask_token, grid = generator_config["n_outputs"], tuple(config["grid"])
    device = resolve_device(runtime.device)
    generator = load_network(TokenTransformer, generator_config, generator_state).to(device)

    def loss(network: Any, indices: np.ndarray, streams: Streams, training: bool) -> Tensor:
        batch = torch.from_numpy(pick_copies(tokens, indices, streams, training)).to(device)
        masks = torch.from_numpy(draw_masks(mask_generator, len(batch), grid, streams.numpy)).to(device)
        with torch.no_grad():
            laws = generator(batch.masked_fill(masks, mask_token))[masks]  # (masked tokens, K)
            uniforms = uniform_draws(streams.torch, len(laws))
            batch[masks] = sample(laws, uniforms, temperature=1.0)
        logits = network(batch, streams.torch if training else None)[..., 0]
        # The target is the mask, also where the sample happens to be the token that stood there.
        return F.binary_cross_entropy_with_logits(logits.float(), masks.float())

    network = new_network(TokenTransformer, config, Streams.at(seed, 2**41).torch)
    return train(network, loss, len(tokens), recipe, runtime, seed=seed)
