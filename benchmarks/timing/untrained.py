"""Networks of a preset's sizes after one training step: they cost what trained ones cost, and are there at once."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.pipeline import Pipeline
from torch import Tensor

from benchmarks.protocol.methods import METHODS, Settings
from benchmarks.timing.stopwatch import clock
from skmimood import AnomalousTokenDetector, ScanDetector
from skmimood.baselines import AutoregressiveRestorer, TokenCritic
from skmimood.datasets import make_brain_phantom
from skmimood.networks.causal_transformer import CausalTransformer
from skmimood.pipeline import PRESET_IMAGE_SIZE
from skmimood.scans.state import inference_settings
from skmimood.tokens.background import mark_background

MASKED_SHARE = 0.05
_N_FITTED = 4
_BRIEF = {
    "max_iter": 1, "batch_size": 2, "validation_fraction": 0.5, "n_augmentations": 0, "n_painted": 1, "n_steps": 1,
    "n_restorations": 1,
}  # fmt: skip


class _EvenScores:
    """Scores tokens by their rank within the slice, so that a threshold masks the same share at every step.

    What an untrained network finds anomalous would otherwise be gone after the first steps, and with it the work.
    """

    def _score_tokens(self, tokens: Tensor) -> Tensor:
        scores = super()._score_tokens(tokens).flatten(1)  # type: ignore[misc]
        ranks = scores.argsort(1).argsort(1)
        return ((ranks + 0.5) / ranks.shape[1]).view(tokens.shape)


class EvenDetector(_EvenScores, AnomalousTokenDetector):
    """`AnomalousTokenDetector` of which ``threshold`` is the share of tokens that stay, in every slice and step."""


class EvenCritic(_EvenScores, TokenCritic):
    """`TokenCritic` of which ``threshold`` is the share of tokens that stay, in every slice and step."""


class _SomePasses:
    """A `CausalTransformer` that passes over the sequence at every k-th position only, and takes the time of that."""

    def __init__(self, network: CausalTransformer, every: int, clock: Callable[[], float]) -> None:
        self.network, self.every, self.clock = network, every, clock
        self.seconds = 0.0

    def logits_at(self, tokens: Tensor, position: int, cache: None) -> Tensor:
        """Return the logits at the position, or those of one before."""
        if position % self.every == 0:
            start = self.clock()
            self.last = self.network.logits_at(tokens, position, cache)
            self.seconds += self.clock() - start
        return self.last


class ShareOfPositions(AutoregressiveRestorer):
    """AR restoration without a cache that computes every k-th of its passes over whole sequences.

    Each pass costs the same, so the seconds of some tell those of all.
    """

    every = 1
    seconds = 0.0

    @property
    def measured_share(self) -> float:
        """Share of the positions whose pass is computed."""
        length = self.grid_[0] * self.grid_[1]
        return math.ceil(length / self.every) / length

    def seconds_left_out(self) -> float:
        """Return what the other passes would have taken since the last call."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds * (1 / self.measured_share - 1)

    def _orderings(self) -> Iterator[tuple[Any, Tensor]]:
        for network, order in super()._orderings():
            some = _SomePasses(network, self.every, partial(clock, self._torch_device))
            yield some, order
            self.seconds += some.seconds


@dataclass(frozen=True)
class Networks:
    """The pipelines that are timed, with one tokenizer.

    Attributes
    ----------
    mimood, recipe, critic, autoregressive : fitted Pipeline
        MIM-OOD's restoration as published, the preset as it comes, the paper's restoration behind a Token-Critic, and
        AR restoration.
    size : int
        Side of the slices.
    """

    mimood: Pipeline
    recipe: Pipeline
    critic: Pipeline
    autoregressive: Pipeline
    size: int


def build(
    preset: str,
    device: str,
    *,
    size: int | None = None,
    share: float = MASKED_SHARE,
    with_rivals: bool = True,
) -> Networks:
    """Fit the networks of a preset briefly.

    Parameters
    ----------
    preset : {"tiny", "small", "paper"}
    device : str
    size : int, optional
        Side of the slices in pixels, by default the preset's.
    share : float, default=0.05
        Of the tokens that are masked at every step; AR replaces about as many.
    with_rivals : bool, default=True
        Whether to fit the others besides MIM-OOD as published; else they are unfitted.

    Returns
    -------
    Networks
        With R = 4 and T = 8, but for the preset as it comes.
    """
    size = size or PRESET_IMAGE_SIZE[preset]
    settings = Settings(preset, 0, device)
    images = phantoms(_N_FITTED, size)
    mimood, recipe, critic, autoregressive = (
        METHODS[name].build(settings) for name in ("mimood-paper", "mimood", "token-critic", "ar")
    )
    for pipeline in (mimood, recipe):
        pipeline.set_params(detector=EvenDetector(**pipeline["detector"].get_params()))
    critic.set_params(detector=EvenCritic(**critic["detector"].get_params()))
    fit_briefly(mimood, images)
    set_restoration(mimood, share=share).set_params(tokenizer__n_augmentations=0)
    if with_rivals:
        fit_briefly(recipe, images).set_params(detector__threshold=1 - share)
        tokenizer, inpainter = mimood["tokenizer"], mimood["inpainter"]
        scans = tokenizer.transform(images)
        fit_briefly(critic["detector"], scans)
        critic = Pipeline(
            [("tokenizer", tokenizer), ("detector", critic["detector"]), ("inpainter", inpainter)]
        )
        critic.set_params(detector__threshold=1 - share)
        restorer = fit_briefly(autoregressive["restorer"], scans)
        restorer.set_params(
            n_restorations=4, threshold=float(np.quantile(restorer.token_scores(scans), 1 - share))
        )
        autoregressive = Pipeline([("tokenizer", tokenizer), ("restorer", restorer)])
    return Networks(mimood, recipe, critic, autoregressive, size)


def set_restoration(
    pipeline: Pipeline, n_steps: int = 8, n_restorations: int = 4, share: float = MASKED_SHARE
) -> Pipeline:
    """Set T, R and the share of masked tokens of the MIM-OOD pipeline of `build`, and return it."""
    return pipeline.set_params(
        detector__threshold=1 - share, inpainter__n_steps=n_steps, inpainter__n_restorations=n_restorations
    )


def without_background(pipeline: Pipeline) -> Pipeline:
    """Return a copy of the MIM-OOD pipeline of `build` that leaves out the tokens off the head."""
    pipeline = copy.deepcopy(pipeline)
    for step in pipeline[1:]:
        step.skip_background = step.fitted_with_["skip_background"] = True
    return pipeline


def share_kept(images: np.ndarray, factor: int) -> float:
    """Return which share of the tokens, ``factor`` pixels a side, is not left out then."""
    grid = (-(-side // factor) for side in images.shape[1:])
    marked = mark_background(torch.zeros(len(images), *grid, dtype=torch.int64), images, factor)
    return float((marked >= 0).float().mean())


def fit_briefly(estimator: Any, X: Any) -> Any:
    """Fit with one training step on a few slices, and set the parameters back."""
    given = estimator.get_params()
    brief = {name: _BRIEF[name.rpartition("__")[2]] for name in given if name.rpartition("__")[2] in _BRIEF}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what one step cannot learn
        estimator.set_params(**brief).fit(X)
    return estimator.set_params(**{name: given[name] for name in brief})


def share_of_positions(pipeline: Pipeline, n_positions: int) -> Pipeline:
    """Return an AR pipeline without a cache that computes about so many of its passes; see `ShareOfPositions`."""
    restorer = ShareOfPositions(**pipeline["restorer"].get_params())
    every = max(1, int(np.prod(pipeline["restorer"].grid_)) // n_positions)
    restorer.__dict__.update(vars(pipeline["restorer"]), every=every, key_value_cache=False)
    return Pipeline([("tokenizer", pipeline["tokenizer"]), ("restorer", restorer)])


def phantoms(n: int, size: int) -> np.ndarray:
    """Return n slices of a brain, (n, size, size); beyond 32 they repeat."""
    images, _ = make_brain_phantom(min(n, 32), size=size, random_state=0)
    return np.resize(images, (n, size, size))


def scan_detector(pipeline: Pipeline, size: int) -> ScanDetector:
    """Fit a `ScanDetector` briefly, on small volumes, around a pipeline with R and T as they are there.

    The thresholds, which one step cannot set, cost nothing and mean nothing.
    """
    import nibabel

    volumes, _ = make_brain_phantom(4, size=32, n_slices=8, random_state=0)
    scans = [nibabel.Nifti1Image(np.moveaxis(volume, 0, -1), np.eye(4)) for volume in volumes]
    given = pipeline.get_params()
    detector = fit_briefly(ScanDetector(pipeline, size=size), scans)
    fitted = detector.pipeline_
    names = [name for name in fitted.get_params() if name.rpartition("__")[2] in _BRIEF]
    fitted.set_params(**{name: given[name] for name in names})
    detector.calibrated_with_ = inference_settings(fitted)  # so that it does not warn
    return detector
