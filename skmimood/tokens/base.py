"""What token detectors and restorers share, whatever their networks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from sklearn.base import TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skmimood.exceptions import InputError
from skmimood.maps.base import BasePixelDetector
from skmimood.maps.residuals import ResidualMaps, clear_surface, filter_maps, residual_maps, upsample
from skmimood.networks.batches import run_transformer
from skmimood.networks.marks import in_order_of_length, unmark
from skmimood.networks.transformer import TokenTransformer
from skmimood.networks.unet import TokenUNet
from skmimood.runtime.device import inference, resolve_precision, with_halving
from skmimood.runtime.streams import sampling_uniforms
from skmimood.tokens.background import mark_background
from skmimood.tokens.container import TokenDetector, TokenizedScans
from skmimood.tokens.sampling import of_distinct
from skmimood.training.estimator import TrainedStep
from skmimood.training.parameters import Training
from skmimood.validation.estimator import ParameterGroup
from skmimood.validation.rules import BOOLEAN, COUNT, POSITIVE, SHARE, is_count, one_of

NETWORKS = ("transformer", "unet")
_MAX_LEVELS = 6  # of a U-Net; each doubles the channels
_IN_FLIGHT = 128  # restorations
_CHUNK_BATCHES = 2  # of ``batch_size`` slices, the most that are taken at a time


def check_tokenized(X: Any) -> TokenizedScans:
    """Return ``X`` if it is what the step before produces, else raise `InputError`."""
    if not isinstance(X, TokenizedScans):
        raise InputError(
            f"X must be TokenizedScans, the output of VQTokenizer.transform; got {type(X).__name__}. "
            "Use the steps in a Pipeline, as make_mimood_pipeline builds it."
        )
    return X


def check_grid(X: Any, grid: tuple[int, ...]) -> TokenizedScans:
    """Return ``X`` if it has the token grid seen in fit, else raise `InputError`."""
    if not len(check_tokenized(X)):
        raise InputError("X has no slices; pass at least one.")
    if X.tokens.shape[1:] != grid:
        raise InputError(
            f"X must have {grid[0]} x {grid[1]} tokens a slice as in fit; got {X.tokens.shape[1:]}. Tokenise it "
            "with the tokenizer that the fit had."
        )
    return X


def detector_of(X: Any) -> TokenDetector:
    """Return the detector that ``X`` has passed, else raise `InputError`."""
    detector = check_tokenized(X).detector
    if detector is None:
        raise InputError("X has not passed a token detector; transform it with one first.")
    return detector


class TokenStep(TrainedStep):
    """Base of the steps that train a network on tokens.

    Attributes
    ----------
    grid_ : tuple of int
        Height h and width w of the token grid.
    """

    _check_input = staticmethod(check_tokenized)

    def _keep_shape(self, healthy: TokenizedScans) -> None:
        self.grid_ = healthy.tokens.shape[1:]


class TransformerStep(TokenStep):
    """Base of those whose network is a transformer; for the parameters see `AnomalousTokenDetector`."""

    depth: Annotated[int, COUNT] = 4
    width: Annotated[int, COUNT] = 128
    n_heads: Annotated[int, COUNT] = 4
    mlp_ratio: Annotated[float, POSITIVE] = 4.0
    drop_path: Annotated[float, SHARE] = 0.1

    def _inference_dtype(self) -> torch.dtype:
        return resolve_precision(self._precision(), self._torch_device)

    def _parameter_faults(self) -> Iterator[str]:
        yield from super()._parameter_faults()
        yield from self._heads_fault()

    def _transformer_config(self, X: TokenizedScans, *, n_outputs: int) -> dict[str, Any]:
        """Return the arguments of the `TokenTransformer` over the tokens of ``X``."""
        n_codes = X.tokenizer.n_codes_
        n_inputs = n_codes + (n_outputs == n_codes)  # an in-painter has a [MASK] symbol
        config = {"n_inputs": n_inputs, "n_outputs": n_outputs, "grid": list(X.tokens.shape[1:])}
        return config | self._values("depth", "width", "n_heads", "mlp_ratio", "drop_path")


class TokenNetworkStep(TransformerStep):
    """Base of those whose network is a transformer or a U-Net; for the parameters see `AnomalousTokenDetector`."""

    network: Annotated[str, one_of(NETWORKS)] = "transformer"
    skip_background: Annotated[bool, BOOLEAN] = False

    _kept = ("skip_background",)

    def _class_of(self, config: Mapping[str, Any]) -> type[TokenTransformer | TokenUNet]:
        return token_network(config)

    def _network_config(self, X: TokenizedScans, *, n_outputs: int) -> dict[str, Any]:
        """Return the arguments of the network over the tokens of ``X``; those of a U-Net have ``"widths"``."""
        config = self._transformer_config(X, n_outputs=n_outputs)
        if self.network == "transformer":
            return config
        shared = {name: config[name] for name in ("n_inputs", "n_outputs", "grid")}
        widths = [self.width * 2**level for level in range(self.depth)]
        return shared | {"code_dim": X.tokenizer.codes.shape[1], "widths": widths}

    @property
    def _is_unet(self) -> bool:
        return "widths" in self.config_

    def _inference_dtype(self) -> torch.dtype:
        return torch.float32 if self._is_unet else super()._inference_dtype()

    def _heads_fault(self, prefix: str = "") -> Iterator[str]:
        if self.network == "transformer":
            yield from super()._heads_fault(prefix)

    def _parameter_faults(self) -> Iterator[str]:
        yield from super()._parameter_faults()
        if self.network == "unet" and is_count(self.depth) and self.depth > _MAX_LEVELS:
            yield f"depth must be an integer from 1 to {_MAX_LEVELS}; got {self.depth!r}"


def token_network(config: Mapping[str, Any]) -> type[TokenTransformer | TokenUNet]:
    """Return the class of the network over tokens that ``config`` builds."""
    return TokenUNet if "widths" in config else TokenTransformer


class BaseTokenDetector(TransformerMixin, TransformerStep):
    """Base of the steps that score tokens: higher is more anomalous.

    Subclasses implement ``_score_tokens(tokens (n, h, w) tensor) -> (n, h, w) tensor`` and have a
    parameter ``threshold``, the score above which a token is resampled.
    """

    _learnt = ("grid_",)

    threshold: float

    @property
    def leaves_out_background(self) -> bool:
        """Whether tokens off the head, marked as in `skmimood.tokens.background`, take no part and score 0."""
        return False

    @abstractmethod
    def _score_tokens(self, tokens: Tensor) -> Tensor: ...

    def score_tensor(self, tokens: Tensor) -> Tensor:
        """Score tokens (n, h, w), marked or not, that are on this estimator's device already."""
        ordered, where = in_order_of_length(tokens if self.leaves_out_background else unmark(tokens))
        return run_transformer(self._score_tokens, ordered, self._training.batch_size)[where]

    def decision_function(self, X: TokenizedScans) -> np.ndarray:
        """Return the score of every token, shape (n, h, w), float32; higher is more anomalous."""
        check_is_fitted(self)
        self._check_parameters()
        check_grid(X, self.grid_)
        tokens = torch.from_numpy(X.tokens).to(self._torch_device)
        if self.leaves_out_background:
            tokens = mark_background(tokens, X.images, X.tokenizer.downsampling)
        return self.score_tensor(tokens).cpu().numpy()

    def transform(self, X: TokenizedScans) -> TokenizedScans:
        """Return ``X`` with its ``anomaly`` scores and this ``detector``."""
        X = check_tokenized(X)
        return replace(X, anomaly=self.decision_function(X), detector=self)


class BaseRestorer(TokenStep, BasePixelDetector):
    """Base of the last steps that restore tokens and turn the change into a pixel map.

    Subclasses implement ``_restore_chunk(X, uniforms (R, D, h, w)) -> (n, R, h, w) int64 tensor``, where D is
    ``_n_draws``, the uniform draws that a restoration takes a position. The pixel map is computed here, once for all
    restorers: decode the R restorations, take the residual, combine, weight, filter (MIM-OOD section 3.4, step 5).

    So few slices are taken at a time that about ``_IN_FLIGHT`` restorations are held, so that memory does not grow with
    the number of slices, of steps or of restorations.
    """

    n_restorations: Annotated[int, COUNT] = 4
    maps: ResidualMaps | None = None

    _learnt = ("grid_", "threshold_", "calibrated_with_")
    _defaults: ClassVar[Mapping[str, ParameterGroup]] = {"training": Training(), "maps": ResidualMaps()}

    @property
    @abstractmethod
    def _n_draws(self) -> int: ...

    @abstractmethod
    def _restore_chunk(self, X: TokenizedScans, uniforms: Tensor) -> Tensor: ...

    @property
    def _recipe_of_maps(self) -> ResidualMaps:
        return self._nested("maps")

    def _inference_parameters(self, X: TokenizedScans) -> dict[str, Any]:
        return self._recipe_of_maps.get_params() | {"fpr": self.fpr}

    def restore(self, X: TokenizedScans) -> np.ndarray:
        """Return the tokens of all restorations, shape (n, R, h, w), int64."""
        check_is_fitted(self)
        self._check_parameters()
        return torch.cat(self._in_chunks(self._restore, X, self._n_in_flight)).numpy()

    def _checked(self, X: Any) -> TokenizedScans:
        return check_grid(X, self.grid_)

    def _detect(self, X: TokenizedScans) -> tuple[np.ndarray, np.ndarray]:
        parts = self._in_chunks(self._detect_chunk, X, self._n_in_flight)
        maps, restored = (torch.cat(list(part)).numpy() for part in zip(*parts, strict=True))
        return maps, restored

    @property
    def _n_in_flight(self) -> int:
        """Restorations of one slice that are held at once."""
        return self.n_restorations

    def _in_chunks(self, function: Callable[[TokenizedScans], Any], X: Any, n_in_flight: int) -> list[Any]:
        check_grid(X, self.grid_)

        def run(batch_size: int) -> list[Any]:
            most = min(_IN_FLIGHT // n_in_flight, _CHUNK_BATCHES * self._training.batch_size)
            n_slices = max(1, most * batch_size // self._training.batch_size)
            return [function(X[start : start + n_slices]) for start in range(0, len(X), n_slices)]

        return with_halving(run, self._training.batch_size)

    def _restore(self, X: TokenizedScans) -> Tensor:
        """Return the tokens (n, R, h, w) of the restorations of a chunk."""
        return self._in_parts(lambda part: self._restore_chunk(X, part), self.n_restorations, self._n_draws)

    def _in_parts(self, restore: Callable[[Tensor], Tensor], n_restorations: int, n_draws: int) -> Tensor:
        """Join ``restore(uniforms (r, n_draws, h, w)) -> (..., r, h, w)`` of parts of the restorations."""
        uniforms = torch.from_numpy(sampling_uniforms(self.seed_, n_restorations, n_draws, self.grid_))
        with inference(self._torch_device):
            parts = [restore(part.to(self._torch_device)).cpu() for part in uniforms.split(_IN_FLIGHT)]
        return torch.cat(parts, dim=-3)

    def _detect_chunk(self, X: TokenizedScans) -> tuple[Tensor, Tensor]:
        """Return the maps, and the combined restorations or their mean with the ``denoised`` slices."""
        tokens = self._restore(X)  # (n, R, h, w)
        maps, decoded = self._maps(X, tokens, *self._decode(X, tokens))
        seen = decoded.cpu().numpy()
        if X.denoised is not None:
            seen = (seen + X.denoised) / 2
        return maps, torch.from_numpy(X.tokenizer.unseen(seen, X.images))

    def _decode(self, X: TokenizedScans, restored: Tensor) -> tuple[Tensor, Tensor]:
        """Return the decoded restorations, R of each slice on a second axis, and the slices they are compared with."""
        decoded = of_distinct(X.tokenizer.decode_tensor, restored.flatten(0, 1))
        decoded = decoded.unflatten(0, restored.shape[:2])
        return decoded, torch.from_numpy(X.tokenizer.seen(X.images)).to(decoded.device)

    def _maps(
        self, X: TokenizedScans, restored: Tensor, healed: Tensor, reference: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the maps of restorations (n, R, h, w), and the combined healed slices as the network sees them."""
        recipe = self._recipe_of_maps
        maps, healed = residual_maps(reference, healed, recipe.residual, recipe.combination, recipe.sharpness)
        if recipe.residual_weight == "changed":
            changed = (restored != torch.from_numpy(X.tokens)[:, None]).float().mean(1)  # (n, h, w)
            maps = maps * self._weights(changed, X).to(maps.device)
        elif recipe.residual_weight == "anomaly":
            detector_of(X)
            maps = maps * self._weights(torch.from_numpy(X.anomaly), X).to(maps.device)
        maps = filter_maps(maps, recipe.min_filter, recipe.mean_filter).cpu()
        if recipe.fusion == "geometric" and X.evidence is not None:
            maps = (maps * torch.from_numpy(X.evidence)).sqrt()
        return clear_surface(maps, X.images, recipe.erosion), healed

    def _weights(self, values: Tensor, X: TokenizedScans) -> Tensor:
        """Interpolate values of tokens (n, h, w) to weights of pixels (n, H, W)."""
        pixels = upsample(values, X.tokenizer.downsampling, X.shape[-2:])
        return pixels.clamp(min=0) ** self._recipe_of_maps.weight_power
