"""Find what is abnormal in a medical scan, having learnt from healthy scans only."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Public name -> module that defines it. Loaded on first use, so that `import skmimood` stays quick.
_PUBLIC = {
    "AnomalousTokenDetector": "detector",
    "MaskedTokenInpainter": "inpainter",
    "RestorationSearchCV": "model_selection",
    "ScanDetector": "volumes",
    "SliceStandardizer": "standardizer",
    "TokenizedScans": "scans",
    "VQTokenizer": "tokenizer",
    "load_model": "_state",
    "make_mimood_pipeline": "pipeline",
    "restoration_path": "model_selection",
    "save_model": "_state",
}
_SUBMODULES = ("baselines", "datasets", "exceptions", "metrics")

__all__ = ["__version__", *_PUBLIC, *_SUBMODULES]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"skmimood.{_PUBLIC[name]}"), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"skmimood.{name}")
    raise AttributeError(f"module 'skmimood' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
