"""Locks on files: they end with the process that holds them, however it ends.

They hold among the processes of one machine and, where a cluster's file system passes locks on, among its machines.
On a file system without locks all of them count as free, with a warning.
"""

from __future__ import annotations

import contextlib
import functools
import secrets
import warnings
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from skmimood.exceptions import SkmimoodWarning


@contextlib.contextmanager
def locked(file: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a file, and yield whether it is held: without ``wait`` another process may have it."""
    lock = FileLock(file)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        yield False
        return
    except PermissionError:  # it is another user's, of whom nothing is known
        yield wait
        return
    except (OSError, NotImplementedError):  # this file system has no locks
        _warn_of_no_locks(file.parent)
        yield True
        return
    try:
        yield True
    finally:
        lock.release()


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


def others_at_work(folder: Path, mine: Path | None = None) -> bool:
    """Tell whether jobs other than ``mine``, or what workers they left, are at work; forget those that were killed."""
    files = [*folder.glob("job-*.lock"), *folder.glob("*.begun")]
    return any([_is_held(file) for file in files if file != mine])


@contextlib.contextmanager
def at_work(folder: Path) -> Iterator[Path]:
    """Be one of the jobs that are at work in a folder; yield the file that says so."""
    mine = folder / f"job-{secrets.token_hex(8)}.lock"
    with claimed(mine):
        yield mine


@functools.cache
def _warn_of_no_locks(folder: Path) -> None:
    warnings.warn(
        f"The file system of {folder.absolute().parent.name!r} has no locks, so that jobs there cannot see one another."
        " Start one at a time, or choose a folder elsewhere.",
        SkmimoodWarning, stacklevel=5,
    )  # fmt: skip


def _is_held(file: Path) -> bool:
    with claimed(file, wait=False) as is_free:
        return not is_free
