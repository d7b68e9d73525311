"""Values that a saved model says it has learnt."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

from skmimood.exceptions import ModelLoadError
from skmimood.validation.rules import is_count

_SHAPES = ("grid_", "image_shape_")
_MAX_SIDE = 2**16


def as_learnt(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return JSON values as an estimator holds them, lists as tuples, or raise `ModelLoadError` at a wrong kind."""
    learnt = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    for name in _SHAPES:
        if name in learnt and not _is_shape(learnt[name]):
            raise ModelLoadError(
                f"{name} should be height and width, after channels if any; the file has {learnt[name]!r}."
            )
    seed = learnt.get("seed_", 0)
    if type(seed) is not int or seed < 0:
        raise ModelLoadError(f"seed_ should be an integer of at least 0; the file has {seed!r}.")
    threshold = learnt.get("threshold_", 0.0)
    if not isinstance(threshold, Real) or threshold != threshold:
        raise ModelLoadError(f"threshold_ should be a number; the file has {threshold!r}.")
    return learnt


def _is_shape(value: Any) -> bool:
    sides = value if isinstance(value, tuple) else ()
    return len(sides) in (2, 3) and all(is_count(side) and side <= _MAX_SIDE for side in sides)
