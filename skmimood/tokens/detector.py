"""Which tokens do not belong: the Anomalous Token Detector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skmimood.networks.marks import longest
from skmimood.networks.transformer import TokenTransformer
from skmimood.networks.unet import TokenUNet
from skmimood.networks.weights import new_network
from skmimood.runtime.streams import Streams
from skmimood.tokens.base import BaseTokenDetector, TokenNetworkStep, token_network
from skmimood.tokens.container import TokenizedScans
from skmimood.tokens.corruption import (
    MASKS,
    REPLACEMENTS,
    draw_masks,
    draw_replacements,
    split_law,
)
from skmimood.training.loop import Runtime, pick_copies, train
from skmimood.training.parameters import Training
from skmimood.validation.estimator import ParameterGroup
from skmimood.validation.rules import COUNT, PROBABILITY


class AnomalousTokenDetector(TokenNetworkStep, BaseTokenDetector):
    """Network that tells corrupted tokens from healthy ones (ATD).

    Trained on healthy tokens of which some are replaced: it learns p(corrupted) of every token by binary cross-entropy
    (MIM-OOD, Naval Marimont et al. 2023, section 3.3, equation 2). For the recipe see `make_mimood_pipeline`. Unless
    stated otherwise, a change of a parameter needs a refit.

    Parameters
    ----------
    threshold : float in [0, 1], default=0.002
        lambda: tokens with a higher probability are resampled (paper: 0.005). Tune it on validation slices if there are
        any: after a short training even healthy tokens score more. No refit needed.
    corruption : str, callable or dict, default="random"
        Law of the replacing tokens: ``"random"`` (uniform over the codes, the paper's), ``"painted"`` (the tokens of
        copies with anomalies painted into the pixels, see `skmimood.training.painted_anomalies`; then the target of a
        token is the share of its pixels that changed, and ``mask_generator`` is ignored), a callable
        ``(tokens (n, h, w), n_codes, rng) -> (n, h, w)``, or a mixture ``{law: weight}`` drawn a sample.
    n_painted : int, default=16
        Copies of each slice with painted anomalies, if ``corruption`` asks for any.
    mask_generator : str, callable or dict, default="brush"
        Which tokens are replaced: ``"brush"`` (the paper's random walk of a brush), ``"maskgit_cosine"`` (scattered
        tokens), a callable ``(n, (h, w), rng) -> (n, h, w)``, or a mixture.
    network : {"transformer", "unet"}, default="transformer"
        What the tokens pass through: the paper's transformer, or a U-Net over the tokens' codes, which learns from
        fewer examples. ``n_heads``, ``mlp_ratio``, ``drop_path`` and ``skip_background`` are the transformer's alone.
    depth : int, default=4
        Transformer blocks (paper: 12), or levels of the U-Net, each but the first at half the resolution.
    width : int, default=128
        Width of a token, a multiple of ``n_heads`` (paper silent), or channels of the U-Net's first level; every
        further level doubles them.
    n_heads : int, default=4
        Attention heads (paper silent).
    mlp_ratio : float, default=4.0
        Width of the MLPs over ``width`` (paper silent).
    drop_path : float in [0, 1), default=0.1
        Stochastic depth (paper: 0.1).
    skip_background : bool, default=False
        Leave tokens off the head or brain out of the passes of a transformer, in training too: they score 0 (paper
        silent). See `MaskedTokenInpainter`.
    training : Training, default=Training(max_iter=900, batch_size=32)
        See `Training`.
    random_state, device, memory, verbose
        See `VQTokenizer`.

    Attributes
    ----------
    grid_, state_, config_, fitted_with_, history_, n_iter_, seed_
        See `TokenStep` and `TrainedStep`.

    References
    ----------
    Naval Marimont et al., MIM-OOD, DGM4MICCAI 2023, sections 3.3 and 4.
    """

    threshold: Annotated[float, PROBABILITY] = 0.002
    corruption: Annotated[Any, REPLACEMENTS] = "random"
    n_painted: Annotated[int, COUNT] = 16
    mask_generator: Annotated[Any, MASKS] = "brush"

    _defaults: ClassVar[Mapping[str, ParameterGroup]] = {"training": Training(max_iter=900, batch_size=32)}

    def _fit(self, healthy: TokenizedScans, held_out: float) -> None:
        share, _ = split_law(self.corruption, "painted")
        tokenizer, marked = healthy.tokenizer, self.skip_background and self.network == "transformer"
        self._fit_network(
            train_token_detector, self._network_config(healthy, n_outputs=1), held_out, codes=tokenizer.codes,
            tokens=tokenizer.training_tokens(healthy, marked=marked),
            painted=tokenizer.painted_tokens(healthy, self.n_painted, marked=marked) if share else None,
            corruption=self.corruption, mask_generator=self.mask_generator,
        )  # fmt: skip

    @property
    def leaves_out_background(self) -> bool:
        """Whether this is a transformer with ``skip_background``."""
        return self._as_fitted("skip_background") and not self._is_unet

    def _score_tokens(self, tokens: Tensor) -> Tensor:
        network = self._network()
        if isinstance(network, TokenTransformer):
            logits = network(tokens, length=longest(tokens))[..., 0]
            return torch.sigmoid(logits.float()).masked_fill(tokens < 0, 0)
        return self._in_batches(lambda batch: torch.sigmoid(network(batch)[..., 0]), tokens)


def train_token_detector(
    *, tokens: np.ndarray, painted: tuple[np.ndarray, np.ndarray] | None, codes: np.ndarray, config: dict[str, Any],
    corruption: Any, mask_generator: Any, recipe: Training, seed: int, runtime: Runtime,
) -> dict[str, dict[str, np.ndarray]]:  # fmt: skip
    """Train an ATD on ``tokens`` (n, n_copies, h, w) and on ``painted`` tokens and shares; see `train_token_inpainter`.

    ``config`` is that of a `TokenUNet` if there are ``"widths"`` in it, else of a `TokenTransformer`.
    """
    n_codes, grid = config["n_inputs"], tuple(config["grid"])

    painted_share, replacement = split_law(corruption, "painted")

    def corrupt(batch: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        masks = draw_masks(mask_generator, len(batch), grid, rng) & (batch >= 0)
        wrong = draw_replacements(replacement, np.where(batch < 0, ~batch, batch), n_codes, rng)
        # As printed, the target is the mask, also where the replacement happens to be the same token.
        return np.where(masks, wrong, batch), masks.astype(np.float32)

    def loss(network: Any, indices: np.ndarray, streams: Streams, training: bool) -> Tensor:
        n = len(indices)
        is_painted = streams.numpy.random(n) < painted_share if painted else np.zeros(n, bool)
        corrupted, target = np.empty((n, *grid), np.int64), np.empty((n, *grid), np.float32)
        if painted and is_painted.any():
            chosen = indices[is_painted]
            copies = streams.numpy.integers(0, painted[0].shape[1], len(chosen))
            corrupted[is_painted], target[is_painted] = (part[chosen, copies] for part in painted)
        if not is_painted.all():
            batch = pick_copies(tokens, indices[~is_painted], streams, training)
            corrupted[~is_painted], target[~is_painted] = corrupt(batch, streams.numpy)
        inputs, generator = torch.from_numpy(corrupted), streams.torch if training else None
        sizes = () if "widths" in config else (None, longest(inputs))
        device, kept, wanted = streams.torch.device, inputs >= 0, torch.from_numpy(target)
        logits = network(inputs.to(device), generator, *sizes)[..., 0].float()
        if not kept.all():
            logits, wanted = logits[kept.to(device)], wanted[kept]
        return F.binary_cross_entropy_with_logits(logits, wanted.to(device))

    network: Any = new_network(token_network(config), config, Streams.at(seed, 2**41).torch)
    if isinstance(network, TokenUNet):
        network.start_from(torch.from_numpy(codes))
    return train(network, loss, len(tokens), recipe, runtime, seed=seed)
