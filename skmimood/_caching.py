"""Caching of trainings on disk, so that a search over inference parameters never trains twice."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
from filelock import FileLock

import skmimood


def run_cached(
    function: Callable[..., Any], memory: str | joblib.Memory | None, *, runtime: Any = None, **arguments: Any
) -> Any:
    """Call ``function(runtime=runtime, **arguments)``, or return what an earlier equal call returned.

    ``runtime`` does not count for equality; the versions of skmimood and torch do. A lock makes concurrent
    workers that want the same result wait for the first instead of computing it again.
    """
    location = memory.location if isinstance(memory, joblib.Memory) else memory
    if location is None:
        return function(runtime=runtime, **arguments)
    # joblib notices changed code in the function alone, not in what it calls.
    store = joblib.Memory(
        Path(location) / f"skmimood-{skmimood.__version__}-torch-{version('torch')}", verbose=0
    )
    locks = Path(store.location) / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / f"{function.__name__}-{joblib.hash(arguments)}"), warnings.catch_warnings():
        # Of joblib's, when hashing a cohort takes half a second: small beside a training.
        warnings.filterwarnings("ignore", message="Persisting input arguments")
        return store.cache(function, ignore=["runtime"])(runtime=runtime, **arguments)


@functools.cache
def session_directory() -> str:
    """Return a private cache directory that lives as long as this process; its workers share it."""
    directory = tempfile.mkdtemp(prefix="skmimood-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory
