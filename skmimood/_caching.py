"""Caching of trainings on disk, so that a search over inference parameters never trains twice."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
from filelock import FileLock


def run_cached(
    function: Callable[..., Any], memory: str | joblib.Memory | None, *, runtime: Any = None, **arguments: Any
) -> Any:
    """Call ``function(runtime=runtime, **arguments)``, or return what an earlier equal call returned.

    ``runtime`` does not count for equality. A lock makes concurrent workers that want the same
    result wait for the first instead of computing it again.
    """
    store = memory if isinstance(memory, joblib.Memory) else joblib.Memory(memory, verbose=0)
    if store.location is None:
        return function(runtime=runtime, **arguments)
    locks = Path(store.location) / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / f"{function.__name__}-{joblib.hash(arguments)}"):
        return store.cache(function, ignore=["runtime"])(runtime=runtime, **arguments)


@functools.cache
def session_directory() -> str:
    """Return a private cache directory that lives as long as this process; its workers share it."""
    directory = tempfile.mkdtemp(prefix="skmimood-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory
