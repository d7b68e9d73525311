"""What a method reached, computed once: it is kept in a file whose name changes with all that it depends on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import joblib
from sklearn.base import BaseEstimator

from benchmarks import records
from benchmarks.protocol import ledger
from benchmarks.protocol.methods import Method, Settings
from skmimood.runtime.code_digest import code_digest

T = TypeVar("T")


def outcome_of(
    name: str, method: Method, settings: Settings, fingerprint: str, learn_and_test: Callable[[BaseEstimator], T],
    folder: Path, *, again: bool = False,
) -> T:  # fmt: skip
    """Return ``learn_and_test(estimator)`` of a method: what is kept in ``folder``, unless ``again``.

    What is kept depends on the method's parameters and code, on the ``fingerprint`` of the slices, on the settings and
    the machine's device, and on the code of the module that ``learn_and_test`` is defined in.
    """
    estimator, device = method.build(settings), records.environment(settings.device)["device"]
    told = name, settings.seed, settings.preset, device, method.grid, code_digest(learn_and_test.__module__)
    digest = ledger.digest(estimator, fingerprint, *told)
    path = folder / f"{settings.preset}-{name}-{settings.seed}-{digest}.joblib"
    if path.exists() and not again:
        return joblib.load(path)
    outcome = learn_and_test(estimator)
    with records.replacing(path) as file:
        joblib.dump(outcome, file, compress=3)
    return outcome
