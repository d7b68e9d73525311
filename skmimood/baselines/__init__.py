"""Rivals of MIM-OOD behind the same API: last steps, token detectors, and detectors of slices without tokens."""

from __future__ import annotations

import importlib
from typing import Any

# Public name -> module that defines it, loaded on first use.
_PUBLIC = {
    "AutoregressiveRestorer": "autoregressive",
    "DenoisingAutoencoder": "denoising",
    "HealthyZScore": "zscore",
    "IntensityThreshold": "intensity",
    "MaskedAutoencoderDetector": "mae",
    "TokenCritic": "token_critic",
    "TokenLikelihoodDetector": "likelihood",
    "TokenizerResidual": "tokenizer_residual",
}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"skmimood.baselines.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'skmimood.baselines' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
