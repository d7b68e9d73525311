"""MIM-OOD as the paper states it (Naval Marimont et al. 2023, section 3.4), without any short cut.

Every restoration has its own passes of the detector and of the in-painter, over every slice and position (but for
those that ``skip_background`` leaves out), in every step. This is what the library's restorations must equal token by
token, and what their speed is measured against.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from sklearn.pipeline import Pipeline
from torch import Tensor

from skmimood import TokenizedScans
from skmimood.maps.residuals import clear_surface, filter_maps, residual_maps, upsample
from skmimood.networks.marks import longest, unmark
from skmimood.runtime.streams import sampling_uniforms
from skmimood.tokens.background import mark_background


def at_precision(pipeline: Pipeline, precision: str | None) -> Pipeline:
    """Return a fitted pipeline with the ``precision`` of all its networks changed; itself if that is None."""
    if precision is None:
        return pipeline
    changed = copy.deepcopy(pipeline)
    names = [name for name in changed.get_params() if name.endswith("__precision")]
    return changed.set_params(**dict.fromkeys(names, precision))


def plain_restore(pipeline: Pipeline, images: np.ndarray) -> np.ndarray:
    """Restore slices.

    Parameters
    ----------
    pipeline : Pipeline
        Fitted: a `VQTokenizer`, a token detector and a `MaskedTokenInpainter`.
    images : ndarray of shape (n, H, W)
        Slices in [0, 1].

    Returns
    -------
    ndarray of shape (n, R, h, w), int64
        What `MaskedTokenInpainter.restore` returns.
    """
    scans, size = pipeline[:-1].transform(images), pipeline[-1].batch_size
    batches = [scans[start : start + size] for start in range(0, len(scans), size)]
    return np.concatenate([_restore(pipeline, batch) for batch in batches])


def plain_maps(pipeline: Pipeline, images: np.ndarray, *, precision: str | None = None) -> np.ndarray:
    """Compute the anomaly maps of slices.

    Parameters
    ----------
    pipeline, images
        See `plain_restore`.
    precision : {"float32", "bfloat16"}, optional
        Instead of the pipeline's own; see `at_precision`, which spares copying the networks again in each call.

    Returns
    -------
    ndarray of shape (n, H, W), float32
        What ``pipeline.decision_function`` returns.
    """
    pipeline = at_precision(pipeline, precision)
    scans, size = pipeline[:-1].transform(images), pipeline[-1].batch_size
    batches = [scans[start : start + size] for start in range(0, len(scans), size)]
    return np.concatenate([_maps(pipeline[-1], batch, _restore(pipeline, batch)) for batch in batches])


@torch.inference_mode()
def _restore(pipeline: Pipeline, scans: TokenizedScans) -> np.ndarray:
    inpainter = pipeline[-1]
    uniforms = sampling_uniforms(
        inpainter.seed_, inpainter.n_restorations, inpainter.n_steps, scans.tokens.shape[1:]
    )
    device = inpainter._torch_device
    restorations = []
    for draws_of_steps in torch.from_numpy(uniforms).to(device):
        tokens = torch.from_numpy(scans.tokens).to(device)
        if inpainter.leaves_out_background or pipeline[-2].leaves_out_background:
            tokens = mark_background(tokens, scans.images, scans.tokenizer.downsampling)
        for draws in draws_of_steps:
            masks = (_score(pipeline[-2], tokens) > pipeline[-2].threshold) & (tokens >= 0)
            tokens = _resample(inpainter, tokens, masks, draws)
        restorations.append(unmark(tokens).cpu().numpy())
    return np.stack(restorations, axis=1)


def _score(detector: Any, tokens: Tensor) -> Tensor:
    if detector.leaves_out_background:
        return torch.cat([detector._score_tokens(row) for row in tokens.split(1)])
    return detector._score_tokens(unmark(tokens))


def _logits(inpainter: Any, tokens: Tensor) -> Tensor:
    """Return the logits (n, h, w, K); slices of which tokens are left out pass one by one."""
    network = inpainter._network()
    if not inpainter.leaves_out_background:
        return network(unmark(tokens))
    return torch.cat([network(row, length=longest(row)) for row in tokens.split(1)])


def _resample(inpainter: Any, tokens: Tensor, masks: Tensor, draws: Tensor) -> Tensor:
    """Sample the masked tokens (n, h, w)."""
    mask_token = inpainter.config_["n_outputs"]
    logits = _logits(inpainter, tokens.masked_fill(masks, mask_token)).float()  # (n, h, w, K)
    cumulative = torch.softmax(logits / inpainter.temperature, dim=-1).cumsum(-1)
    sampled = (cumulative <= draws[..., None] * cumulative[..., -1:]).sum(-1).clamp(max=mask_token - 1)
    return torch.where(masks, sampled, tokens)


def _maps(inpainter: Any, scans: TokenizedScans, restored: np.ndarray) -> np.ndarray:
    tokenizer, own = scans.tokenizer, torch.from_numpy(scans.tokens)
    healed = [tokenizer.decode_tensor(torch.from_numpy(one)).cpu() for one in restored.swapaxes(0, 1)]
    reference = torch.from_numpy(tokenizer.seen(scans.images))
    if inpainter.residual_reference == "reconstruction":
        reference = tokenizer.decode_tensor(own).cpu()
    maps, _ = residual_maps(
        reference, torch.stack(healed, 1), inpainter.residual, inpainter.combination, inpainter.sharpness
    )
    changed = (torch.from_numpy(restored) != own[:, None]).float().mean(1)
    suspicion = {"changed": changed, "anomaly": torch.from_numpy(scans.anomaly)}.get(
        inpainter.residual_weight
    )
    if suspicion is not None:
        weights = upsample(suspicion, tokenizer.downsampling, scans.shape[1:])
        maps = maps * weights.clamp(min=0) ** inpainter.weight_power
    maps = filter_maps(maps, inpainter.min_filter, inpainter.mean_filter)
    return clear_surface(maps, scans.images, inpainter.erosion).numpy()
