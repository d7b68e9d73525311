"""Seconds and memory of things that are compared: in turn, repeated, on one device."""

from __future__ import annotations

import ctypes
import re
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import torch
from sklearn.base import BaseEstimator

_PROCESS = Path("/proc/self")


@dataclass(frozen=True)
class Subject:
    """Something to be timed.

    Attributes
    ----------
    name : str
        What it is called.
    run : callable
        Does it once. A number that it returns is added to its seconds: those of what it left out.
    """

    name: str
    run: Callable[[], float | None]


def maps_of(name: str, estimator: BaseEstimator, images: np.ndarray) -> Subject:
    """Return the maps that a fitted estimator makes of slices (n, H, W), as something to be timed."""

    def run() -> None:
        estimator.decision_function(images)

    return Subject(name, run)


@dataclass
class Timing:
    """What was measured of one subject.

    Attributes
    ----------
    runs : list of float
        Seconds of each run that counts.
    peak_memory : int or None
        Bytes, the most of all runs; see `measure`.
    """

    runs: list[float] = field(default_factory=list)
    peak_memory: int | None = None

    @property
    def seconds(self) -> float:
        """Median of the runs."""
        return median(self.runs)


def interleave(
    subjects: Sequence[Subject], device: torch.device, *, repeats: int, patience: float
) -> dict[str, Timing]:
    """Run all subjects in turn, after a warm-up of each, so that a machine that slows down slows all of them.

    Parameters
    ----------
    subjects : sequence of Subject
    device : torch.device
        Waited for before the clock is read.
    repeats : int
        Runs of each that count.
    patience : float
        Seconds. What takes longer is run once, without warm-up: its first call matters little then.

    Returns
    -------
    dict of name to Timing
    """
    timings = {subject.name: Timing() for subject in subjects}
    for number in range(repeats + 1):
        for subject in subjects:
            timing = timings[subject.name]
            if number > 0 and timing.runs and timing.runs[0] > patience:
                continue
            seconds, memory = measure(subject.run, device)
            if number == 1:
                timing.runs.clear()  # the warm-up
            timing.runs.append(seconds)
            timing.peak_memory = None if memory is None else max(memory, timing.peak_memory or 0)
    return timings


def measure(run: Callable[[], float | None], device: torch.device) -> tuple[float, int | None]:
    """Return seconds and peak memory in bytes of one run.

    The memory is on CUDA the peak of what is allocated there, weights included; on a CPU by what the process' resident
    memory rises above its size at the start, and None where the system does not tell.
    """
    before = _reset_peak(device)
    start = clock(device)
    left_out = run() or 0.0
    seconds = clock(device) - start + left_out
    return seconds, _peak(device, before)


def clock(device: torch.device) -> float:
    """Return the time in seconds once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def memory_kind(device: torch.device) -> str:
    """Say what the peak memory of `measure` is."""
    return "CUDA, allocated" if device.type == "cuda" else "growth of resident memory"


def peak_resident() -> int:
    """Return the peak resident memory of this process in bytes.

    Linux counts a parent's memory into what `resource` tells of a process that it has started, so its own file is read.
    """
    try:
        return _resident("VmHWM")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _reset_peak(device: torch.device) -> int | None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return 0
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed before would hide what is used now
        (_PROCESS / "clear_refs").write_text("5")  # Linux: the peak starts anew
    except (AttributeError, OSError):
        return None
    return _resident("VmRSS")


def _peak(device: torch.device, before: int | None) -> int | None:
    if before is None:
        return None
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _resident("VmHWM") - before


def _resident(name: str) -> int:
    found = re.search(rf"{name}:\s*(\d+) kB", (_PROCESS / "status").read_text())
    return int(found[1]) * 1024 if found else 0
