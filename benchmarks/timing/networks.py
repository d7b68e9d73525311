"""Networks of a preset's sizes after one training step: they cost what trained ones cost, and are there at once."""

from __future__ import annotations

import copy
import warnings
from typing import Any
from unittest import mock

import nibabel as nib
import numpy as np
import torch
from sklearn.pipeline import Pipeline
from torch import Tensor

from benchmarks.protocol.methods import METHODS, Settings
from benchmarks.timing.stopwatch import clock
from skmimood import AnomalousTokenDetector, ScanDetector
from skmimood.baselines import TokenCritic
from skmimood.datasets import make_brain_phantom
from skmimood.networks.causal_transformer import CausalTransformer
from skmimood.scans.state import inference_settings
from skmimood.tokens.background import mark_background

MASKED_SHARE = 0.05
_N_FITTED = 4
_BRIEF = {
    "max_iter": 1, "batch_size": 2, "validation_fraction": 0.5, "n_augmentations": 0, "n_painted": 1, "n_steps": 1,
    "n_restorations": 1,
}  # fmt: skip


class _EvenScores:
    """Scores tokens by their rank within the slice: ``threshold`` is the share that stays, in every slice and step."""

    def score_tensor(self, tokens: Tensor) -> Tensor:
        scores = super().score_tensor(tokens).flatten(1)  # type: ignore[misc]
        ranks = scores.argsort(1).argsort(1)
        return ((ranks + 0.5) / ranks.shape[1]).view(tokens.shape)


class EvenDetector(_EvenScores, AnomalousTokenDetector):
    """`AnomalousTokenDetector` with even scores."""


class EvenCritic(_EvenScores, TokenCritic):
    """`TokenCritic` with even scores."""


def published(preset: str, device: str, size: int, share: float = MASKED_SHARE) -> Pipeline:
    """Fit MIM-OOD as published briefly, with R = 4 and T = 8; ``share`` of the tokens are masked at every step."""
    pipeline = _even(METHODS["mimood-paper"].build(Settings(preset, 0, device)), EvenDetector)
    fit_briefly(pipeline, phantoms(_N_FITTED, size))
    return set_restoration(pipeline, share=share).set_params(tokenizer__n_augmentations=0)


def recipe(preset: str, device: str, size: int, share: float) -> Pipeline:
    """Fit the preset as it comes."""
    pipeline = _even(METHODS["mimood"].build(Settings(preset, 0, device)), EvenDetector)
    return fit_briefly(pipeline, phantoms(_N_FITTED, size)).set_params(detector__threshold=1 - share)


def rivals(ours: Pipeline, preset: str, device: str, size: int, share: float) -> tuple[Pipeline, Pipeline]:
    """Fit a Token-Critic before our in-painter, and AR restoration that replaces about as many tokens."""
    critic, autoregressive = (
        METHODS[name].build(Settings(preset, 0, device)) for name in ("token-critic", "ar")
    )
    _even(critic, EvenCritic).set_params(tokenizer=ours["tokenizer"], inpainter=ours["inpainter"])
    autoregressive.set_params(tokenizer=ours["tokenizer"])
    scans = ours["tokenizer"].transform(phantoms(_N_FITTED, size))
    fit_briefly(critic["detector"], scans).set_params(threshold=1 - share)
    restorer = fit_briefly(autoregressive["restorer"], scans)
    nats = float(np.quantile(restorer.token_scores(scans), 1 - share))
    restorer.set_params(n_restorations=4, threshold=nats)
    return critic, autoregressive


def _even(pipeline: Pipeline, detector: Any) -> Pipeline:
    return pipeline.set_params(detector=detector(**pipeline["detector"].get_params(deep=False)))


def set_restoration(
    pipeline: Pipeline, n_steps: int = 8, n_restorations: int = 4, share: float = MASKED_SHARE
) -> Pipeline:
    """Set T, R and the share of masked tokens of MIM-OOD as published, and return it."""
    return pipeline.set_params(
        detector__threshold=1 - share, inpainter__n_steps=n_steps, inpainter__n_restorations=n_restorations
    )


def without_background(pipeline: Pipeline) -> Pipeline:
    """Return a copy of MIM-OOD as published that leaves out the tokens off the head."""
    pipeline = copy.deepcopy(pipeline)
    for step in pipeline[1:]:
        step.skip_background = step.fitted_with_["skip_background"] = True
    return pipeline


def share_kept(images: np.ndarray, factor: int) -> float:
    """Return which share of the tokens, ``factor`` pixels a side, is not left out then."""
    grid = (-(-side // factor) for side in images.shape[1:])
    marked = mark_background(torch.zeros(len(images), *grid, dtype=torch.int64), images, factor)
    return float((marked >= 0).float().mean())


def restore_uncached(pipeline: Pipeline, images: np.ndarray, every: int, device: torch.device) -> float:
    """Make AR's maps with every k-th of its equal passes without a cache; return the seconds that the others take."""
    whole = CausalTransformer.logits_at
    seconds: list[float] = []
    last: list[Tensor] = []
    n_left_out = 0

    def logits_at(network: CausalTransformer, tokens: Tensor, position: int, cache: None) -> Tensor:
        nonlocal n_left_out
        if position % every:
            n_left_out += 1
            return last[0]
        start = clock(device)
        last[:] = [whole(network, tokens, position, cache)]
        seconds.append(clock(device) - start)
        return last[0]

    pipeline.set_params(restorer__key_value_cache=False)
    with mock.patch.object(CausalTransformer, "logits_at", logits_at):
        pipeline.decision_function(images)
    pipeline.set_params(restorer__key_value_cache=True)
    return n_left_out * sum(seconds) / len(seconds)


def fit_briefly(estimator: Any, X: Any) -> Any:
    """Fit with one training step on a few slices, and set the parameters back."""
    given = estimator.get_params()
    brief = {name: _BRIEF[name.rpartition("__")[2]] for name in given if name.rpartition("__")[2] in _BRIEF}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what one step cannot learn
        estimator.set_params(**brief).fit(X)
    return estimator.set_params(**{name: given[name] for name in brief})


def scan_detector(pipeline: Pipeline, size: int) -> ScanDetector:
    """Fit a `ScanDetector` briefly, on small volumes, around a pipeline with R and T as they are there."""
    volumes, _ = make_brain_phantom(4, size=32, n_slices=8, random_state=0)
    scans = [nib.Nifti1Image(np.moveaxis(volume, 0, -1), np.eye(4)) for volume in volumes]
    given = pipeline.get_params()
    detector = fit_briefly(ScanDetector(pipeline, size=size), scans)
    fitted = detector.pipeline_
    names = [name for name in fitted.get_params() if name.rpartition("__")[2] in _BRIEF]
    fitted.set_params(**{name: given[name] for name in names})
    detector.calibrated_with_ = inference_settings(fitted)  # so that it does not warn
    return detector


def phantoms(n: int, size: int) -> np.ndarray:
    """Return n slices of a brain, (n, size, size); beyond 32 they repeat."""
    images, _ = make_brain_phantom(min(n, 32), size=size, random_state=0)
    return np.resize(images, (n, size, size))


def synthetic_head(shape: tuple[int, ...]) -> np.ndarray:
    """Return a striped ball in a volume of this shape, float32."""
    rows, columns, slices = np.mgrid[tuple(slice(-1, 1, n * 1j) for n in shape)]
    ball = rows**2 + columns**2 + slices**2 < 0.8
    return np.where(ball, 100 + 20 * np.sin(9 * rows), 0).astype(np.float32)
