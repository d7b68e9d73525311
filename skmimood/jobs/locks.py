"""Locks on files: they end with the process that holds them, however it ends.

They hold among the processes of one machine and, where a cluster's file system passes locks on, among its machines.
On a file system without locks, and where a lock file may not be opened, jobs run without them, with a warning.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from skmimood.exceptions import warn


@contextlib.contextmanager
def locked(file: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a file, and yield whether it is held: without ``wait`` another process may have it."""
    # A soft lock, which filelock offers instead of a missing flock, would outlive a process that is killed.
    lock = FileLock(file, fallback_to_soft=False)
    is_ours = True
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(lock.acquire(timeout=-1 if wait else 0))
        except Timeout:
            is_ours = False
        except PermissionError:  # it is another user's, who may hold it
            if is_ours := wait:
                _warn(f"A lock file in {str(file.parent)!r} belongs to another user and cannot be opened")
        except (OSError, NotImplementedError):
            _warn(f"The file system of {str(file.parent)!r} has no locks")
        yield is_ours


@contextlib.contextmanager
def claimed(file: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock as `locked` does, by a file that is there only while it is held, or if the holder was killed."""
    with locked(file, wait=wait) as is_ours:
        try:
            yield is_ours
        finally:
            if is_ours:
                with contextlib.suppress(OSError):
                    file.unlink(missing_ok=True)


def locks_of_others(folder: Path, mine: Path | None = None) -> list[Path]:
    """List the lock files of other jobs at work and of their workers; remove those of jobs that were killed."""
    held = []
    for file in (*folder.glob("job-*.lock"), *folder.glob("*.begun")):
        if file != mine:
            with claimed(file, wait=False) as is_free:
                held += [] if is_free else [file]
    return held


@functools.cache  # once a folder
def _warn(fault: str) -> None:
    warn(
        f"{fault}. So jobs there cannot see one another: start one at a time, or choose a folder elsewhere.",
        7,
    )
