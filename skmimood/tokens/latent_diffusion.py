"""Restoration by diffusion: noise on the codes' vectors, and its removal in few steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skmimood.maps.residuals import ResidualMaps, upsample
from skmimood.networks.batches import run_in_batches
from skmimood.networks.unet import UNet
from skmimood.networks.weights import new_network
from skmimood.runtime.streams import Streams, normal_draws, uniform_draws
from skmimood.tokens.base import BaseRestorer
from skmimood.tokens.container import TokenizedScans
from skmimood.training.loop import Runtime, pick_copies, train
from skmimood.training.parameters import Training
from skmimood.validation.estimator import ParameterGroup
from skmimood.validation.rules import BOOLEAN, COUNT, LEVELS, Rule

_N_TIMES = 1000  # length of the chain
_BETAS = (0.0015, 0.0195)  # of its first and last step; their roots lie on a line
_N_WAVES = 4  # sines and cosines that tell the network the time
_DEPTHS: Rule = (
    lambda depths: len(depths) > 0 and all(0 < depth <= 1 for depth in depths),
    "a sequence of shares of the chain, above 0 and at most 1",
)


class LatentDiffusion(BaseRestorer):
    """Denoising diffusion model over the tokenizer's codes, and the slices that it restores from several depths.

    Trained to remove Gaussian noise from the code vectors of healthy slices. The vectors of a slice are noised to
    several depths of the chain and denoised again by DDIM (Song et al. 2021), which keeps its layout and replaces by
    healthy anatomy what the depth has drowned; each result is quantised, decoded and compared with the slice, and
    the residuals are averaged over depths (Graham et al. 2023). A last step after `VQTokenizer`; it needs no detector.
    Unless stated otherwise, a change of a parameter needs a refit.

    Graham et al. average the z-scores of two distances of whole images, the mean squared error and LPIPS, whose
    network has learnt from photographs. Here a map is wanted, and no network from elsewhere: it is the geometric mean
    of the absolute residual of pixels and of the distance of the code vectors. The rival in MIM-OOD's text (Pinaya et
    al. 2022) restores only where a divergence from the chain exceeds a threshold; the network is a small `UNet`.

    Parameters
    ----------
    noise_depths : sequence of float in (0, 1], default=(0.2, 0.35, 0.5)
        Depths to which a slice is noised, as shares of the chain of 1,000 steps (Graham et al. 2023: many, up to 1;
        Pinaya et al. 2022: 0.4 to 0.6). No refit needed.
    n_steps : int, default=10
        Steps of DDIM from a depth back to a slice (Graham et al.: PLMS, 100 for the whole chain). No refit needed.
    n_restorations : int, default=1
        R, restorations from each depth (Graham et al.: 1). No refit needed.
    compares_codes : bool, default=True
        False leaves the map to the residual of pixels alone. No refit needed.
    channels : int, default=64
        Width of the first level of the U-Net; every further level doubles it.
    levels : int from 1 to 10, default=3
        Levels of the U-Net, each but the first at half the resolution.
    maps : ResidualMaps, default=ResidualMaps(combination="mean", min_filter=1, mean_filter=1)
        How restorations become a map; see `ResidualMaps`. No refit needed.
    fpr : float in (0, 1), default=0.01
        See `BasePixelDetector`.
    training : Training, default=Training(max_iter=2000)
        See `Training`.
    random_state, device, memory, verbose
        See `VQTokenizer`.

    Attributes
    ----------
    threshold_, calibrated_with_, grid_, state_, config_, history_, n_iter_, seed_
        See `BasePixelDetector`, `TokenStep` and `TrainedStep`.

    References
    ----------
    Graham et al., Denoising diffusion models for out-of-distribution detection, CVPR workshops 2023; Unsupervised 3D
    out-of-distribution detection with latent diffusion models, MICCAI 2023. Pinaya et al., Fast unsupervised brain
    anomaly detection and segmentation with diffusion models, MICCAI 2022 (the latent diffusion that MIM-OOD quotes).
    Ho, Jain & Abbeel, NeurIPS 2020. Song, Meng & Ermon, ICLR 2021 (DDIM). Rombach et al., CVPR 2022 (the chain).
    """

    noise_depths: Annotated[Sequence[float], _DEPTHS] = (0.2, 0.35, 0.5)
    n_steps: Annotated[int, COUNT] = 10
    n_restorations: Annotated[int, COUNT] = 1
    compares_codes: Annotated[bool, BOOLEAN] = True
    channels: Annotated[int, COUNT] = 64
    levels: Annotated[int, LEVELS] = 3

    _network_class = UNet
    _defaults: ClassVar[Mapping[str, ParameterGroup]] = {
        "training": Training(max_iter=2000),
        "maps": ResidualMaps(combination="mean", min_filter=1, mean_filter=1),
    }

    def _fit(self, healthy: TokenizedScans, held_out: float) -> None:
        vectors = standardised_codes(healthy.tokenizer.codes)
        config = {
            "n_inputs": vectors.shape[1] + 2 * _N_WAVES, "n_outputs": vectors.shape[1],
            "widths": [self.channels * 2**level for level in range(self.levels)],
        }  # fmt: skip
        tokens = healthy.tokenizer.training_tokens(healthy)
        self._fit_network(train_diffusion, config, held_out, tokens=tokens, vectors=vectors)

    @property
    def _n_draws(self) -> int:
        return self.config_["n_outputs"]

    @property
    def _n_in_flight(self) -> int:
        return self.n_restorations * len(self.noise_depths)

    def _restore_chunk(self, X: TokenizedScans, uniforms: Tensor) -> Tensor:
        vectors = torch.from_numpy(standardised_codes(X.tokenizer.codes)).to(uniforms.device)
        latents = F.embedding(torch.from_numpy(X.tokens).to(uniforms.device), vectors).permute(0, 3, 1, 2)
        noise = torch.special.ndtri(uniforms.clamp(1e-6, 1 - 1e-6))  # (R, D, h, w), normal
        restored = [
            self._denoised(latents[:, None], noise, round(depth * (_N_TIMES - 1)))
            for depth in self.noise_depths
        ]
        flat = torch.cat(restored, dim=1).permute(0, 1, 3, 4, 2)  # (n, R, h, w, D)
        return torch.cdist(flat.flatten(0, 3), vectors).argmin(1).view(flat.shape[:-1])

    def _denoised(self, latents: Tensor, noise: Tensor, depth: int) -> Tensor:
        """Noise latents (n, 1, D, h, w) to a time of the chain by noise (R, D, h, w), and denoise them by DDIM."""
        network, kept = self._network(), signal_kept().to(noise.device)
        times = np.linspace(depth, 0, self.n_steps + 1).round().astype(int)
        noised = (kept[depth].sqrt() * latents + (1 - kept[depth]).sqrt() * noise).flatten(0, 1)
        for time, following in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):

            def predict(batch: Tensor, time: int = time) -> Tensor:
                with self._autocast():
                    return network(with_time(batch, torch.full((len(batch),), time, device=batch.device)))

            predicted = run_in_batches(predict, noised, self._training.batch_size)
            clean = (noised - (1 - kept[time]).sqrt() * predicted) / kept[time].sqrt()
            noised = kept[following].sqrt() * clean + (1 - kept[following]).sqrt() * predicted
        return noised.unflatten(0, (len(latents), len(noise)))

    def _maps(
        self, X: TokenizedScans, restored: Tensor, healed: Tensor, reference: Tensor
    ) -> tuple[Tensor, Tensor]:
        maps, healed = super()._maps(X, restored, healed, reference)
        if self.compares_codes:
            vectors = torch.from_numpy(standardised_codes(X.tokenizer.codes))
            own = F.embedding(torch.from_numpy(X.tokens), vectors)[:, None]
            distance = (F.embedding(restored, vectors) - own).square().mean(-1).sqrt().mean(1)  # (n, h, w)
            maps = (maps * upsample(distance, X.tokenizer.downsampling, X.shape[-2:])).sqrt()
        return maps, healed

    def _inference_parameters(self, X: TokenizedScans) -> dict[str, Any]:
        own = self._values("n_steps", "n_restorations", "compares_codes")
        return super()._inference_parameters(X) | own | {"noise_depths": list(self.noise_depths)}


def standardised_codes(codes: np.ndarray) -> np.ndarray:
    """Return the vectors of a codebook (K, D) with mean 0 and standard deviation 1 in each dimension, float32."""
    return ((codes - codes.mean(0)) / (codes.std(0) + 1e-6)).astype(np.float32)


def signal_kept() -> Tensor:
    """Return the share of the signal's variance that is left at each time of the chain, (1000,), descending."""
    low, high = (beta**0.5 for beta in _BETAS)
    betas = torch.linspace(low, high, _N_TIMES, dtype=torch.float64).square()
    return (1 - betas).cumprod(0).float()


def with_time(latents: Tensor, times: Tensor) -> Tensor:
    """Append to latents (n, D, h, w) the waves of their times (n,) as channels of even values."""
    phases = (times / _N_TIMES)[:, None] * (torch.pi * 2 ** torch.arange(_N_WAVES, device=times.device))
    waves = torch.cat([phases.sin(), phases.cos()], 1)[..., None, None]
    return torch.cat([latents, waves.expand(-1, -1, *latents.shape[2:])], 1)


def train_diffusion(
    *,
    tokens: np.ndarray,
    vectors: np.ndarray,
    config: dict[str, Any],
    recipe: Training,
    seed: int,
    runtime: Runtime,
) -> dict[str, dict[str, np.ndarray]]:
    """Train a `UNet` to tell the noise in the vectors (K, D) of tokens (n, n_copies, h, w).

    Return its ``"state"`` and ``"history"``.
    """
    table, kept = torch.from_numpy(vectors), signal_kept()

    def loss(network: Any, indices: np.ndarray, streams: Streams, training: bool) -> Tensor:
        generator = streams.torch
        chosen = torch.from_numpy(pick_copies(tokens, indices, streams, training))
        latents = F.embedding(chosen, table).permute(0, 3, 1, 2).to(generator.device)
        times = (uniform_draws(generator, len(chosen)) * _N_TIMES).long()
        share = kept.to(generator.device)[times][:, None, None, None]
        noise = normal_draws(generator, *latents.shape)
        predicted = network(with_time(share.sqrt() * latents + (1 - share).sqrt() * noise, times))
        return F.mse_loss(predicted.float(), noise)

    network = new_network(UNet, config, Streams.at(seed, 2**41).torch)
    return train(network, loss, len(tokens), recipe, runtime, seed=seed)
