"""Caching of trainings on disk, so that a search over inference parameters never trains twice."""

from __future__ import annotations

import atexit
import contextlib
import functools
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
from filelock import FileLock

from skmimood.exceptions import SkmimoodWarning
from skmimood.runtime import distributed
from skmimood.runtime.code_digest import code_digest
from skmimood.runtime.paths import expand


def run_cached(
    function: Callable[..., Any],
    memory: str | joblib.Memory | None,
    *,
    runtime: Any = None,
    told: Callable[[], None] | None = None,
    **arguments: Any,
) -> Any:
    """Call ``function(runtime=runtime, **arguments)``, or return what an earlier equal call returned.

    ``told`` is called if an earlier call has returned it. ``runtime`` does not count for equality; the code of the
    module of ``function`` and of all that it imports from its package does, and so do the versions of skmimood and
    torch. A lock makes concurrent workers that want the same result wait for the first instead of computing it again.
    Processes that train together call it together: the first looks into the cache and writes to it, and all return
    its result.

    Warns
    -----
    SkmimoodWarning
        If the cache cannot be written; the result is computed all the same.

    Raises
    ------
    InputError
        If the processes have different arguments.
    """
    distributed.join()
    with _opened(function, memory, arguments) as cached:
        if told is not None and _is_known(cached, runtime=runtime, **arguments):
            told()
        if distributed.n_processes() == 1:
            return cached(runtime=runtime, **arguments)
        return _call_together(function, cached, runtime, arguments)


def _call_together(function: Callable[..., Any], cached: Any, runtime: Any, arguments: dict[str, Any]) -> Any:
    distributed.check_same(joblib.hash(arguments))
    arguments = {"runtime": runtime, **arguments}
    if distributed.on_first(lambda: _is_known(cached, **arguments)):
        return distributed.on_first(lambda: cached(**arguments))
    return distributed.broadcast(cached(**arguments))


def _is_known(cached: Any, **arguments: Any) -> bool:
    return hasattr(cached, "check_call_in_cache") and cached.check_call_in_cache(**arguments)


@contextlib.contextmanager
def _opened(
    function: Callable[..., Any], memory: str | joblib.Memory | None, arguments: dict[str, Any]
) -> Iterator[Callable[..., Any]]:
    """Lock the cache for one call and yield the cached function, or ``function`` where there is no cache to use."""
    location = memory.location if isinstance(memory, joblib.Memory) else memory
    if location is None or not distributed.is_first():
        yield function
        return
    # joblib notices changed code in the function alone, not in what it calls.
    folder = expand(location) / f"skmimood-{code_digest(function.__module__)}-torch-{version('torch')}"
    with contextlib.ExitStack() as stack:
        cached = function
        try:
            (folder / "locks").mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / "locks" / f"{function.__name__}-{joblib.hash(arguments)}")
            stack.enter_context(lock)
            cached = joblib.Memory(folder, verbose=0).cache(function, ignore=["runtime"])
        except OSError as error:
            warnings.warn(
                f"The cache {Path(location).name!r} cannot be written ({error.strerror or error}), so what is trained "
                "now is not kept there. Make the folder writable, or choose another memory.",
                SkmimoodWarning, stacklevel=4,
            )  # fmt: skip
        stack.enter_context(warnings.catch_warnings())
        # Of joblib's, when hashing a cohort takes half a second: small beside a training.
        warnings.filterwarnings("ignore", message="Persisting input arguments")
        yield cached


@functools.cache
def session_directory() -> str:
    """Return a private cache directory that lives as long as this process; its workers share it."""
    directory = tempfile.mkdtemp(prefix="skmimood-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


def has_callable(law: Any) -> bool:
    """Return whether ``law`` is a callable or a mixture with one: such laws cannot be told apart by name."""
    return callable(law) or (isinstance(law, Mapping) and any(map(callable, law)))
