"""MIM-OOD as the paper states it (Naval Marimont et al. 2023, section 3.4), without any short cut.

Every restoration has its own passes of both networks, over all slices and positions not left out, in every step.
"""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from sklearn.pipeline import Pipeline
from torch import Tensor, nn

from skmimood import TokenizedScans
from skmimood.maps.residuals import clear_surface, filter_maps, residual_maps, upsample
from skmimood.networks.marks import longest, unmark
from skmimood.networks.transformer import TokenTransformer
from skmimood.networks.weights import load_network
from skmimood.runtime.device import resolve_device, resolve_precision
from skmimood.runtime.streams import sampling_uniforms
from skmimood.tokens.background import mark_background


def at_precision(pipeline: Pipeline, precision: str) -> Pipeline:
    """Return a copy of a fitted pipeline with the ``precision`` of all its networks changed."""
    changed = copy.deepcopy(pipeline)
    names = [name for name in changed.get_params() if name.endswith("__precision")]
    return changed.set_params(**dict.fromkeys(names, precision))


def plain_restore(pipeline: Pipeline, images: np.ndarray) -> np.ndarray:
    """Restore slices (n, H, W) as ``MaskedTokenInpainter.restore`` does; return tokens (n, R, h, w)."""
    return _restore(pipeline, pipeline[:-1].transform(images))


def plain_maps(pipeline: Pipeline, images: np.ndarray) -> np.ndarray:
    """Compute the anomaly maps (n, H, W) of slices that ``pipeline.decision_function`` returns."""
    scans = pipeline[:-1].transform(images)
    return _maps(pipeline[-1], scans, _restore(pipeline, scans))


@torch.inference_mode()
def _restore(pipeline: Pipeline, scans: TokenizedScans) -> np.ndarray:
    detector, inpainter = pipeline[-2:].named_steps.values()
    device = resolve_device(inpainter.device)
    network = load_network(TokenTransformer, inpainter.config_, inpainter.state_)
    network = network.to(device).to(resolve_precision(inpainter.get_params()["training__precision"], device))
    uniforms = sampling_uniforms(
        inpainter.seed_, inpainter.n_restorations, inpainter.n_steps, scans.tokens.shape[1:]
    )
    restorations = []
    for draws_of_steps in torch.from_numpy(uniforms).to(device):
        tokens = torch.from_numpy(scans.tokens).to(device)
        if inpainter.leaves_out_background or detector.leaves_out_background:
            tokens = mark_background(tokens, scans.images, scans.tokenizer.downsampling)
        for draws in draws_of_steps:
            masks = (detector.score_tensor(tokens) > detector.threshold) & (tokens >= 0)
            hidden = tokens.masked_fill(masks, inpainter.config_["n_outputs"])
            logits = _logits(network, hidden, inpainter.leaves_out_background).float()
            tokens = torch.where(masks, _sample(logits / inpainter.temperature, draws), tokens)
        restorations.append(unmark(tokens).cpu().numpy())
    return np.stack(restorations, axis=1)


def _logits(network: nn.Module, tokens: Tensor, leaves_out: bool) -> Tensor:
    """Return the logits (n, h, w, K); slices of which tokens are left out pass one by one."""
    if not leaves_out:
        return network(unmark(tokens))
    return torch.cat([network(row, length=longest(row)) for row in tokens.split(1)])


def _sample(logits: Tensor, draws: Tensor) -> Tensor:
    cumulative = torch.softmax(logits, dim=-1).cumsum(-1)
    sampled = (cumulative <= draws[..., None] * cumulative[..., -1:]).sum(-1)
    return sampled.clamp(max=logits.shape[-1] - 1)


def _maps(inpainter: Any, scans: TokenizedScans, restored: np.ndarray) -> np.ndarray:
    tokenizer, own = scans.tokenizer, torch.from_numpy(scans.tokens)
    healed = [tokenizer.decode_tensor(torch.from_numpy(one)).cpu() for one in restored.swapaxes(0, 1)]
    reference = torch.from_numpy(tokenizer.seen(scans.images))
    known = inpainter.get_params().items()
    recipe = SimpleNamespace(**{k.removeprefix("maps__"): v for k, v in known if k.startswith("maps__")})
    maps, _ = residual_maps(
        reference, torch.stack(healed, 1), recipe.residual, recipe.combination, recipe.sharpness
    )
    changed = (torch.from_numpy(restored) != own[:, None]).float().mean(1)
    weights = {"changed": changed, "anomaly": torch.from_numpy(scans.anomaly)}
    if recipe.residual_weight in weights:
        weight = upsample(weights[recipe.residual_weight], tokenizer.downsampling, scans.shape[1:])
        maps = maps * weight.clamp(min=0) ** recipe.weight_power
    maps = filter_maps(maps, recipe.min_filter, recipe.mean_filter)
    return clear_surface(maps, scans.images, recipe.erosion).numpy()
