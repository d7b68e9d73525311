"""Scans given to the workers of joblib's backends; a worker that dies costs the others no results."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import BrokenExecutor
from typing import Any

from joblib import Parallel, delayed, effective_n_jobs
from joblib.parallel import ThreadingBackend, get_active_backend

from skmimood.exceptions import WorkerError
from skmimood.jobs.results import ScanOutcome

Run = Callable[..., ScanOutcome]
Task = tuple[Any, ...]

DIED_TWICE = (
    "its worker died twice, for lack of memory perhaps. Score it without other scans at the same time, or on a "
    "machine with more memory."
)


def is_local(n_jobs: int | None) -> bool:
    """Tell whether ``n_jobs`` workers of the active joblib backend run on this machine."""
    backend, _ = get_active_backend()
    return effective_n_jobs(n_jobs) == 1 or type(backend).__module__ == ThreadingBackend.__module__


def run_in_workers(
    run: Run, tasks: Mapping[str, Task], *, n_jobs: int | None, is_begun: Callable[[str], bool],
    give_up: Callable[[str], None],
) -> Generator[ScanOutcome, None, None]:  # fmt: skip
    """Call ``run(*task)`` for each scan on the active joblib backend, and yield the outcomes as they come.

    A worker that dies takes the pool with it. What it and its neighbours had begun, as ``is_begun`` tells, is tried
    once more, one scan at a time; a scan that kills its worker again has failed, and ``give_up`` removes what is left.
    Then a new pool goes on. `WorkerError` is raised if a pool dies before it has begun a scan.
    """
    waiting = dict(tasks)
    try:
        while waiting:
            n_before = len(waiting)
            try:
                for outcome in _pool(run, list(waiting.values()), n_jobs):
                    del waiting[outcome.id]
                    yield outcome
            except Exception as error:
                if not _is_death(error):
                    raise
                suspects = [scan for scan in waiting if is_begun(scan)]
                if not suspects and len(waiting) == n_before:
                    raise WorkerError(
                        "The workers died before they began a scan. Start fewer at a time, or look at their memory."
                    ) from error
                for scan in suspects:
                    yield run_alone(run, scan, waiting[scan], n_jobs, give_up)
                    del waiting[scan]
    finally:
        for scan in filter(is_begun, waiting):
            give_up(scan)


def run_alone(
    run: Run, scan: str, task: Task, n_jobs: int | None, give_up: Callable[[str], None] = lambda scan: None
) -> ScanOutcome:
    """Call ``run(*task)`` in a worker while no other scan is at work; it has failed if the worker dies."""
    try:
        return next(_pool(run, [task], n_jobs))
    except Exception as error:
        if not _is_death(error):
            raise
        give_up(scan)
        return ScanOutcome(scan, "failed", reason=DIED_TWICE)


def _pool(run: Run, tasks: list[Task], n_jobs: int | None) -> Iterator[ScanOutcome]:
    # One scan a batch, so that no more die with a worker than it was at.
    pool = Parallel(n_jobs, return_as="generator_unordered", batch_size=1)
    return pool(delayed(run)(*task) for task in tasks)


def _is_death(error: Exception) -> bool:
    # dask's own error is known by name, as dask need not be installed.
    return isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker"
