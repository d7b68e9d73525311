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

from skmimood.exceptions import warn
from skmimood.runtime import distributed
from skmimood.runtime.code_digest import code_digest
from skmimood.runtime.paths import expand


def run_cached(
    function: Callable[..., Any],
    memory: str | joblib.Memory | None,
    *,
    runtime: Any = None,
    on_hit: Callable[[], None] | None = None,
    **arguments: Any,
) -> Any:
    """Return ``function(runtime=runtime, **arguments)``, from the cache if an equal call was made before.

    Calls are equal if their arguments are, but for ``runtime``, and the code that ``function`` depends on and torch are
    of the same version. ``on_hit`` is called if the result is in the cache. A lock makes concurrent workers wait for
    the first instead of computing the same result again. Processes that train together call this together: the first
    reads and writes the cache, all return its result, and different arguments raise `InputError`. A cache that cannot
    be written costs a warning, not the result.
    """
    distributed.join()
    with _opened(function, memory, arguments) as cached:
        if on_hit is not None and _is_known(cached, runtime=runtime, **arguments):
            on_hit()
        call = functools.partial(cached, runtime=runtime, **arguments)
        if distributed.n_processes() == 1:
            return call()
        distributed.check_same(joblib.hash(arguments))
        if distributed.on_first(lambda: _is_known(cached, runtime=runtime, **arguments)):
            return distributed.on_first(call)
        return distributed.broadcast(call())


def _is_known(cached: Any, **arguments: Any) -> bool:
    return hasattr(cached, "check_call_in_cache") and cached.check_call_in_cache(**arguments)


@contextlib.contextmanager
def _opened(
    function: Callable[..., Any], memory: str | joblib.Memory | None, arguments: dict[str, Any]
) -> Iterator[Callable[..., Any]]:
    """Lock the cache for one call and yield the cached function; without a cache, yield ``function``."""
    location = memory.location if isinstance(memory, joblib.Memory) else memory
    if location is None or not distributed.is_first():
        yield function
        return
    # joblib notices changes of the function, but not of what it calls.
    folder = expand(location) / f"skmimood-{code_digest(function.__module__)}-torch-{version('torch')}"
    with contextlib.ExitStack() as stack:
        cached = function
        try:
            (folder / "locks").mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(folder / "locks" / f"{function.__name__}-{joblib.hash(arguments)}"))
            cached = joblib.Memory(folder, verbose=0).cache(function, ignore=["runtime"])
        except OSError as error:
            warn(
                f"The cache {Path(location).name!r} cannot be written ({error.strerror or error}), so what is trained "
                "now is not kept there. Make the folder writable, or choose another memory.",
                stacklevel=5,
            )
        stack.enter_context(warnings.catch_warnings())
        # joblib warns if hashing the arguments takes half a second, which is little beside a training.
        warnings.filterwarnings("ignore", message="Persisting input arguments")
        yield cached


@functools.cache
def session_directory() -> str:
    """Return a private cache directory that lives as long as this process; its workers share it."""
    directory = tempfile.mkdtemp(prefix="skmimood-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


def has_callable(law: Any) -> bool:
    """Return whether ``law`` is a callable or a mixture with one, which no name identifies."""
    return callable(law) or (isinstance(law, Mapping) and any(map(callable, law)))
