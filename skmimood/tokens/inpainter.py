"""What should stand there instead: the masked in-painter, and the maps that follow from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skmimood.maps.residuals import ResidualMaps
from skmimood.networks.batches import run_transformer
from skmimood.networks.marks import in_order_of_length, longest, masks_on_head, unmark
from skmimood.networks.unet import TokenUNet
from skmimood.networks.weights import new_network
from skmimood.preprocessing.heads import have_heads
from skmimood.runtime.streams import Streams
from skmimood.tokens.background import mark_background
from skmimood.tokens.base import BaseRestorer, TokenNetworkStep, detector_of, token_network
from skmimood.tokens.container import TokenizedScans
from skmimood.tokens.corruption import MASKS, draw_masks
from skmimood.tokens.sampling import restore_tokens
from skmimood.training.loop import Runtime, pick_copies, train
from skmimood.training.parameters import Training
from skmimood.validation.estimator import ParameterGroup
from skmimood.validation.rules import COUNT, POSITIVE


class MaskedTokenInpainter(TokenNetworkStep, BaseRestorer):
    """Network that in-paints anomalous tokens (MVTM), and the anomaly maps that follow.

    Trained by masked image modelling on healthy tokens (MIM-OOD, Naval Marimont et al. 2023, equation 1). To
    score a slice, T times the tokens that the detector finds anomalous are masked and resampled; the R restorations are
    decoded, and the filtered residual is the anomaly map (section 3.4). For the recipe see `make_mimood_pipeline`.
    Unless stated otherwise, a change of a parameter needs a refit.

    Parameters
    ----------
    n_steps : int, default=4
        T, detect-and-resample steps of a restoration (paper: 8). No refit needed.
    n_restorations : int, default=4
        R, restorations a slice (paper: 4 or 8). No refit needed.
    temperature : float > 0, default=1.0
        Of sampling (paper silent; we read 1). No refit needed.
    network : {"transformer", "unet"}, default="transformer"
        What the tokens pass through: the paper's transformer, or a U-Net over the tokens' codes, which learns from
        fewer steps what stands beside what. See `AnomalousTokenDetector`.
    skip_background : bool, default=False
        Learn nothing of tokens off the head or brain, leave them out of the passes of a transformer, and resample none
        (paper silent). The head is what exceeds 0.1 and all that it encloses, with a margin of one token; a slice
        without one stays whole.
    maps : ResidualMaps, default=ResidualMaps(weight_power=0.5)
        How restorations become a map; see `ResidualMaps`. No refit needed.
    fpr : float in (0, 1), default=0.01
        See `BasePixelDetector`.
    mask_generator : str, callable or dict, default="brush"
        Which tokens are masked in training; see `AnomalousTokenDetector`.
    depth, width, n_heads, mlp_ratio, drop_path, training, random_state, device, memory, verbose
        Of the network; see `AnomalousTokenDetector`, `Training` and `VQTokenizer`.

    Attributes
    ----------
    threshold_, calibrated_with_, grid_, state_, config_, fitted_with_, history_, n_iter_, seed_
        See `BasePixelDetector`, `TokenStep` and `TrainedStep`.

    References
    ----------
    Naval Marimont et al., MIM-OOD, DGM4MICCAI 2023, sections 3.3, 3.4 and 4. Naval Marimont & Tarroni,
    Anomaly detection through latent space restoration using VQ-VAEs, ISBI 2021 (combination and filters). Pinaya et
    al., Unsupervised brain imaging 3D anomaly detection and segmentation with transformers, 2022 (masked residual).
    """

    n_steps: Annotated[int, COUNT] = 4
    temperature: Annotated[float, POSITIVE] = 1.0
    mask_generator: Annotated[Any, MASKS] = "brush"

    _defaults: ClassVar[Mapping[str, ParameterGroup]] = {
        "training": Training(),
        "maps": ResidualMaps(weight_power=0.5),
    }

    def _fit(self, healthy: TokenizedScans, held_out: float) -> None:
        detector_of(healthy)  # refuses what has not been scored, before the training
        self._fit_network(
            train_token_inpainter, self._network_config(healthy, n_outputs=healthy.tokenizer.n_codes_), held_out,
            tokens=healthy.tokenizer.training_tokens(healthy, marked=self.skip_background),
            codes=healthy.tokenizer.codes, mask_generator=self.mask_generator,
        )  # fmt: skip

    def path(
        self, X: TokenizedScans, *, threshold: float, n_steps: Sequence[int], n_restorations: Sequence[int]
    ) -> np.ndarray:
        """Return the maps of every T and R, at a lambda instead of the detector's; see `skmimood.restoration_path`.

        The shape is (len(n_steps), len(n_restorations), n, H, W), float32.
        """
        check_is_fitted(self)
        self._check_parameters()
        chunks = self._in_chunks(
            lambda chunk: self._path_chunk(chunk, threshold, n_steps, n_restorations), X,
            len(n_steps) * max(n_restorations),
        )  # fmt: skip
        maps = torch.cat(chunks, dim=2).numpy()
        maps[:, :, ~have_heads(X.images)] = 0
        return maps

    def _path_chunk(
        self, X: TokenizedScans, threshold: float, n_steps: Sequence[int], n_restorations: Sequence[int]
    ) -> Tensor:
        restored = self._in_parts(  # (n, T, R, h, w)
            lambda part: self._restore_steps(X, part, threshold, n_steps), max(n_restorations), max(n_steps)
        )
        healed, reference = self._decode(X, restored.flatten(1, 2))
        healed = healed.unflatten(1, restored.shape[1:3])  # (n, T, R, H, W)
        maps = [
            self._maps(X, tokens[:, :r], images[:, :r], reference)[0]
            for tokens, images in zip(restored.unbind(1), healed.unbind(1), strict=True)
            for r in n_restorations
        ]
        return torch.stack(maps).unflatten(0, (len(n_steps), len(n_restorations)))

    @property
    def leaves_out_background(self) -> bool:
        """Whether tokens off the head take no part in the passes and are not resampled; see ``skip_background``."""
        return self._as_fitted("skip_background")

    @property
    def _n_draws(self) -> int:
        return self.n_steps

    def _restore_chunk(self, X: TokenizedScans, uniforms: Tensor) -> Tensor:
        return self._restore_steps(X, uniforms, detector_of(X).threshold, [self.n_steps])[:, 0]

    def _restore_steps(
        self, X: TokenizedScans, uniforms: Tensor, threshold: float, n_steps: Sequence[int]
    ) -> Tensor:
        """Return the tokens (n, len(n_steps), R, h, w) of the restorations after each number of steps."""
        tokens, anomaly = (torch.from_numpy(part).to(self._torch_device) for part in (X.tokens, X.anomaly))
        detector = detector_of(X)
        if self.leaves_out_background or detector.leaves_out_background:
            tokens = mark_background(tokens, X.images, X.tokenizer.downsampling)

        def score(rows: Tensor) -> Tensor:
            return detector.score_tensor(rows).masked_fill(rows < 0, -torch.inf)

        steps = restore_tokens(
            tokens, anomaly.masked_fill(tokens < 0, -torch.inf), uniforms,
            threshold=threshold, score=score, logits=self._masked_logits,
            temperature=self.temperature,
        )  # fmt: skip
        restored = {step: unmark(rows) for step, rows in enumerate(steps, start=1) if step in n_steps}
        return torch.stack([restored[step] for step in n_steps], dim=1)

    def _masked_logits(self, tokens: Tensor, masks: Tensor) -> Tensor:
        """Return the logits (n_masked, K) of the masked tokens, each distinct grid passing the network once."""
        network, mask_token = self._network(), self.config_["n_outputs"]
        if self._is_unet or not self.leaves_out_background:
            tokens = unmark(tokens)
        distinct, which = tokens.masked_fill(masks, mask_token).unique(dim=0, return_inverse=True)
        if self._is_unet:
            return self._in_batches(network, distinct)[which][masks]
        grids, where = in_order_of_length(distinct)
        which = where[which]
        hidden = grids == mask_token
        logits = run_transformer(
            lambda batch: network(batch, only=batch == mask_token, length=longest(batch)),
            grids,
            self._training.batch_size,
        )
        row = (hidden.flatten().cumsum(0) - 1).view_as(grids)  # of the logits of each hidden token
        return logits[row[which][masks]]

    def _inference_parameters(self, X: TokenizedScans) -> dict[str, Any]:
        own = self._values("n_steps", "n_restorations", "temperature")
        own |= {"skip_background": self.leaves_out_background, "detector_threshold": detector_of(X).threshold}
        return super()._inference_parameters(X) | own


def train_token_inpainter(
    *, tokens: np.ndarray, codes: np.ndarray, config: dict[str, Any], mask_generator: Any, recipe: Training, seed: int,
    runtime: Runtime,
) -> dict[str, dict[str, np.ndarray]]:  # fmt: skip
    """Train an MVTM on ``tokens`` (n, n_copies, h, w), marked where the background is left out.

    ``config`` is that of a `TokenUNet`, which starts from the ``codes`` (K, D), if there are ``"widths"`` in it, else
    of a `TokenTransformer`. As every ``train_*`` function, it depends on its arguments but for ``runtime``, so that its
    result is cached; it returns the ``"state"`` of the network and the ``"history"`` of its training.
    """
    mask_token, grid = config["n_outputs"], tuple(config["grid"])
    network: Any = new_network(token_network(config), config, Streams.at(seed, 2**41).torch)
    is_unet = isinstance(network, TokenUNet)
    if is_unet:  # [MASK] begins as the mean of all codes
        network.start_from(torch.from_numpy(np.concatenate([codes, codes.mean(0, keepdims=True)])))

    def loss(network: Any, indices: np.ndarray, streams: Streams, training: bool) -> Tensor:
        device = streams.torch.device
        healthy = torch.from_numpy(pick_copies(tokens, indices, streams, training))
        drawn = torch.from_numpy(draw_masks(mask_generator, len(healthy), grid, streams.numpy))
        batch, masks = healthy.to(device), masks_on_head(drawn, healthy).to(device)
        inputs, generator = batch.masked_fill(masks, mask_token), streams.torch if training else None
        logits = network(unmark(inputs)) if is_unet else network(inputs, generator, None, longest(healthy))
        return F.cross_entropy(logits[masks].float(), batch[masks])

    return train(network, loss, len(tokens), recipe, runtime, seed=seed)
