"""Rivals of MIM-OOD behind the same API: last steps, token detectors, and detectors of slices without tokens."""

from __future__ import annotations

from typing import Any

from skmimood.estimators import ESTIMATORS, OURS, load_estimator

__all__ = sorted(ESTIMATORS.keys() - set(OURS))


def __getattr__(name: str) -> Any:
    if name in __all__:
        return load_estimator(name)  # on first use
    raise AttributeError(f"module 'skmimood.baselines' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
