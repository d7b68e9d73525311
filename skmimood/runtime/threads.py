"""The CPU threads of torch: beside other work on the machine, and in forked processes."""

from __future__ import annotations

import os
import sys
import threading

import torch

from skmimood.exceptions import DeviceError

_WAIT_POLICIES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
_MAX_SLEEPERS = 32
_LEAST_SHARE = 2**16  # elements a thread, enough for torch to give each its share

_are_used = False  # by a fit or prediction of this process
_are_lost = False  # they were used by the process that this one was forked from


def prepare_threads() -> None:
    """Let torch's threads sleep while they wait from now on; raise `DeviceError` if they were lost in a fork.

    Work that is divided among lost threads never ends.
    """
    global _are_used
    n_threads = torch.get_num_threads()
    if n_threads == 1:
        return
    if _are_lost:
        raise DeviceError(
            f"torch has {n_threads} threads, but this process was forked from one that had used them, and they do not "
            "outlive a fork. Call torch.set_num_threads(1), or start processes by 'spawn' or joblib's 'loky'."
        )
    is_chosen = any(name in os.environ for name in _WAIT_POLICIES)
    if not (_are_used or is_chosen) and sys.platform == "linux" and torch.backends.openmp.is_available():
        # One thread more than CPUs; of another team, whose first thread GNU's OpenMP does not count.
        n_sleepers = len(os.sched_getaffinity(0)) + 2 - n_threads
        if 1 < n_sleepers <= _MAX_SLEEPERS:
            _start_sleepers(n_sleepers, n_threads)
    _are_used = True


def _start_sleepers(n_sleepers: int, n_threads: int) -> None:
    """Start a team of OpenMP threads that sleeps as long as the process lives.

    A waiting thread of GNU's OpenMP tries 300,000 times before it sleeps, and so keeps other processes off its CPU. In
    a process with more threads than CPUs it tries 1,000 times. Environment variables do the same, but are read when
    torch is imported.
    """
    is_started = threading.Event()

    def start_team() -> None:
        try:
            torch.set_num_threads(n_sleepers)
            torch.zeros(n_sleepers * _LEAST_SHARE, dtype=torch.float32).add_(1)
            torch.set_num_threads(n_threads)  # of threads that are started from now on
        finally:
            is_started.set()
        threading.Event().wait()  # its team ends with a thread

    threading.Thread(target=start_team, name="skmimood-patience", daemon=True).start()
    is_started.wait()


def _after_fork() -> None:
    """Let a forked process compute with its one thread, as torch's own DataLoader does."""
    global _are_used, _are_lost
    _are_lost, _are_used = _are_lost or _are_used, False
    if torch.get_num_threads() > 1:
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork)
