"""Find what is abnormal in a medical scan, having learnt from healthy scans only."""

from __future__ import annotations

import importlib
from typing import Any

from skmimood.estimators import ESTIMATORS, OURS

__version__ = "0.1.0"

# Public name -> module that defines it, loaded on first use, so that `import skmimood` stays quick.
_PUBLIC = {
    **{name: ESTIMATORS[name] for name in OURS},
    "ResidualMaps": "skmimood.maps.residuals",
    "RestorationSearchCV": "skmimood.model_selection",
    "TokenizedScans": "skmimood.tokens.container",
    "Training": "skmimood.training.parameters",
    "load_model": "skmimood.persistence",
    "make_mimood_pipeline": "skmimood.pipeline",
    "restoration_path": "skmimood.model_selection",
    "save_model": "skmimood.persistence",
}
_SUBMODULES = ("baselines", "datasets", "exceptions", "metrics")

__all__ = ["__version__", *_PUBLIC, *_SUBMODULES]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"skmimood.{name}")
    raise AttributeError(f"module 'skmimood' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
