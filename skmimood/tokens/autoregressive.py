"""Restoration token after token: the autoregressive baseline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, cast

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skmimood.networks.batches import run_in_batches
from skmimood.networks.causal_transformer import CausalTransformer, CausalTransformers
from skmimood.networks.weights import new_network
from skmimood.runtime.streams import Streams, shared_seed
from skmimood.tokens.base import BaseRestorer, TransformerStep, check_grid, detector_of
from skmimood.tokens.container import TokenizedScans
from skmimood.tokens.sampling import sample
from skmimood.training.loop import Runtime, pick_copies, train
from skmimood.training.parameters import Training
from skmimood.validation.rules import BOOLEAN, NATS, POSITIVE, Rule, is_count

# Quarter turns of the grid before the raster scan, and whether it is transposed then. Each ordering
# is followed by its reverse, so that two of them together see each token from all sides.
_ORDERINGS = [(turns, transposed) for transposed in (False, True) for turns in (0, 2, 1, 3)]
_AS_MANY_AS_ORDERINGS: Rule = (lambda n: is_count(n) and n <= len(_ORDERINGS), "an integer in [1, 8]")


class AutoregressiveRestorer(TransformerStep, BaseRestorer):
    """Causal transformer that restores unlikely tokens one after the other, and the anomaly maps that follow.

    Trained to predict each healthy token from those before it in raster order. To score a slice, its tokens are
    visited in that order: each whose negative log-likelihood, given the partly restored tokens before it, exceeds
    ``threshold`` is replaced by a sample (Naval Marimont & Tarroni 2021; with a transformer, as here, the rival in
    MIM-OOD, Naval Marimont et al. 2023, table 2). A last step after `VQTokenizer`; it needs no detector. Unless stated
    otherwise, a change of a parameter needs a refit.

    Parameters
    ----------
    threshold : float >= 0, default=6.0
        lambda in nats (paper: 6 for K = 256 codes; Naval Marimont & Tarroni: 5 for 128). It belongs just above
        ln K, 5.55 for 256, the value of a uniform law: for another K take ln K + 0.2 to 0.5. No refit needed.
    n_restorations : int, default=4
        R, restorations a slice and ordering (paper: 4). No refit needed.
    temperature : float > 0, default=1.0
        Of sampling, never of the likelihood (paper silent; we read 1). No refit needed.
    n_orderings : int in [1, 8], default=1
        Orderings of the grid, each with a network and R restorations of its own (paper: 1; Pinaya et al. 2022: 8).
        They are raster scans of the grid as it is, turned by 180, 90 and 270 degrees, and transposed after each.
    key_value_cache : bool, default=True
        Keep what the network has computed of earlier tokens. False runs it over the whole slice for every token, as the
        paper's timing does; up to rounding the result is the same. No refit needed.
    maps : ResidualMaps, default=ResidualMaps()
        How restorations become a map; see `ResidualMaps`. ``residual_weight="changed"`` is the masked residual of
        Pinaya et al. 2022; ``"anomaly"`` takes a token detector between the tokenizer and this step. No refit needed.
    fpr : float in (0, 1), default=0.01
        See `MaskedTokenInpainter`.
    depth, width, n_heads, mlp_ratio, drop_path
        Of the transformer; see `AnomalousTokenDetector` (paper: depth 12, drop_path 0.1).
    training, random_state, device, memory, verbose
        See `Training` and `VQTokenizer`.

    Attributes
    ----------
    threshold_, calibrated_with_, grid_, state_, config_, history_, n_iter_, seed_
        See `BasePixelDetector`, `TokenStep` and `TrainedStep`; the histories of several orderings follow one another.

    References
    ----------
    Naval Marimont & Tarroni, Anomaly detection through latent space restoration using VQ-VAEs, ISBI 2021. Naval
    Marimont et al., MIM-OOD, DGM4MICCAI 2023, section 4. Pinaya et al., Unsupervised brain imaging 3D anomaly
    detection and segmentation with transformers, 2022 (orderings, masked residual).
    """

    threshold: Annotated[float, NATS] = 6.0
    temperature: Annotated[float, POSITIVE] = 1.0
    n_orderings: Annotated[int, _AS_MANY_AS_ORDERINGS] = 1
    key_value_cache: Annotated[bool, BOOLEAN] = True

    _network_class = CausalTransformers

    def token_scores(self, X: TokenizedScans) -> np.ndarray:
        """Return the negative log-likelihood of every token given those before it, (n, h, w), float32, in nats.

        The slices are not restored; it is the mean over the orderings.
        """
        check_is_fitted(self)
        check_grid(X, self.grid_)
        sequences = torch.from_numpy(X.tokens).flatten(1).to(self._torch_device)
        scores = run_in_batches(self._mean_surprisals, sequences, self._training.batch_size)
        return scores.unflatten(1, self.grid_).cpu().numpy()

    def _fit(self, healthy: TokenizedScans, held_out: float) -> None:
        """Train a network for each ordering, cached one by one, and join what they learnt."""
        if self._recipe_of_maps.residual_weight == "anomaly":
            detector_of(healthy)  # refuses what has not been scored, before the training
        config = self._transformer_config(healthy, n_outputs=healthy.tokenizer.n_codes_)
        tokens = healthy.tokenizer.training_tokens(healthy)
        seed = shared_seed(self.random_state)
        trained = [
            self._train(train_autoregressive, config, held_out, seed, tokens=tokens, ordering=ordering)
            for ordering in range(self.n_orderings)
        ]
        state = {
            f"{ordering}.{name}": array
            for ordering, one in enumerate(trained)
            for name, array in one["state"].items()
        }
        histories = [one["history"] for one in trained]
        history = {name: np.concatenate([one[name] for one in histories]) for name in histories[0]}
        self._learn(state, history, config | {"n_orderings": self.n_orderings}, seed)

    def _orderings(self) -> Iterator[tuple[CausalTransformer, Tensor]]:
        """Return the network of each ordering, and the order (L,) in which it visits the flattened grid."""
        for ordering, network in enumerate(cast(CausalTransformers, self._network())):
            order = torch.from_numpy(visiting_order(self.grid_, ordering))
            yield cast(CausalTransformer, network), order.to(self._torch_device)

    def _mean_surprisals(self, tokens: Tensor) -> Tensor:
        """Return the mean over orderings of the surprisal of tokens (n, L)."""
        total = torch.zeros(tokens.shape, device=tokens.device, dtype=torch.float32)
        for network, order in self._orderings():
            sequences = tokens[:, order]
            total[:, order] += surprisals(network(sequences), sequences)
        return total / self.config_["n_orderings"]

    @property
    def _n_in_flight(self) -> int:
        return self.n_restorations * self.config_["n_orderings"]

    @property
    def _n_draws(self) -> int:
        return self.config_["n_orderings"]  # where MIM-OOD has its steps

    def _restore_chunk(self, X: TokenizedScans, uniforms: Tensor) -> Tensor:
        n_restorations, n_orderings = uniforms.shape[:2]
        tokens = torch.from_numpy(X.tokens).flatten(1).to(self._torch_device)  # (n, L)
        draws = uniforms.flatten(2)  # (R, n_orderings, L)
        restored = tokens[:, None, None].repeat(1, n_restorations, n_orderings, 1)
        for index, (network, order) in enumerate(self._orderings()):
            restored[:, :, index][..., order] = restore_in_order(
                network, tokens[:, order], draws[:, index, order], threshold=self.threshold,
                temperature=self.temperature, key_value_cache=self.key_value_cache,
            )  # fmt: skip
        return restored.flatten(1, 2).unflatten(-1, self.grid_)

    def _inference_parameters(self, X: TokenizedScans) -> dict[str, Any]:
        return super()._inference_parameters(X) | self._values("threshold", "n_restorations", "temperature")


def visiting_order(grid: tuple[int, int], ordering: int) -> np.ndarray:
    """Return the order in which an ordering in [0, 8) visits a grid (h, w), as flat indices of shape (h * w,)."""
    turns, transposed = _ORDERINGS[ordering]
    indices = np.rot90(np.arange(grid[0] * grid[1]).reshape(grid), turns)
    return (indices.T if transposed else indices).flatten()


def surprisals(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return the negative log-likelihood in nats of tokens (...,) under logits (..., K), float32."""
    return -torch.log_softmax(logits.float(), dim=-1).gather(-1, tokens[..., None])[..., 0]


def restore_in_order(
    network: CausalTransformer, tokens: Tensor, uniforms: Tensor, *, threshold: float, temperature: float,
    key_value_cache: bool,
) -> Tensor:  # fmt: skip
    """Replace, one after the other, each token whose surprisal given the restored ones before exceeds a threshold.

    Takes sequences (n, L) and uniform draws (R, L), the same for every slice; returns the restorations (n, R, L). A
    slice stays what it is up to its first token beyond the threshold. So one pass over the given tokens, which all
    restorations share, says where each slice begins to change, and fills the cache up to there.
    """
    n_restorations, length = uniforms.shape
    restored = tokens[:, None].repeat(1, n_restorations, 1)  # (n, R, L)
    changing, cache = torch.arange(len(tokens), device=tokens.device), None
    starts = torch.zeros_like(changing)
    if key_value_cache:
        cache = network.new_cache(len(tokens))
        exceeds = surprisals(network(tokens, cache=cache), tokens) > threshold  # (n, L)
        # Sorted by their first change, so that those already reached at a position are the first ones, a view.
        starts, changing = torch.where(exceeds.any(1), exceeds.int().argmax(1), length).sort(stable=True)
        changing = changing[starts < length]
        cache = cache[:, :, changing.repeat_interleave(n_restorations)]
    chains = restored[changing].flatten(0, 1)  # (m, L), those of a slice side by side
    draws = uniforms.repeat(len(changing), 1)  # (m, L)
    reached = torch.searchsorted(starts, torch.arange(length, device=tokens.device), right=True)
    for position, n_slices in enumerate(reached.tolist()):
        if n_slices == 0:
            continue
        active = slice(n_slices * n_restorations)
        logits = network.logits_at(chains[active], position, None if cache is None else cache[:, :, active])
        current = chains[active, position]
        sampled = sample(logits, draws[active, position], temperature)
        exceeds = surprisals(logits, current) > threshold
        chains[active, position] = torch.where(exceeds, sampled, current)
    restored[changing] = chains.unflatten(0, (len(changing), n_restorations))
    return restored


def train_autoregressive(
    *, tokens: np.ndarray, ordering: int, config: dict[str, Any], recipe: Training, seed: int, runtime: Runtime
) -> dict[str, dict[str, np.ndarray]]:  # fmt: skip
    """Train on one ordering of ``tokens`` (n, n_copies, h, w); see `train_token_inpainter`."""
    order = visiting_order(tuple(config["grid"]), ordering)

    def loss(network: Any, indices: np.ndarray, streams: Streams, training: bool) -> Tensor:
        batch = pick_copies(tokens, indices, streams, training).reshape(len(indices), -1)[:, order]
        sequences = torch.from_numpy(batch).to(streams.torch.device)
        logits = network(sequences, streams.torch if training else None)
        return surprisals(logits, sequences).mean()

    network = new_network(CausalTransformer, config, Streams.at(seed, 2**41).torch)
    return train(network, loss, len(tokens), recipe, runtime, seed=seed)
