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
    """Something to be timed: ``run`` does it once, and returns the seconds of what it left out, if anything."""

    name: str
    run: Callable[[], float | None]


def maps_of(name: str, estimator: BaseEstimator, images: np.ndarray) -> Subject:
    """Return the maps that a fitted estimator makes of slices (n, H, W), as something to be timed."""

    def run() -> None:
        estimator.decision_function(images)

    return Subject(name, run)


@dataclass
class Timing:
    """Seconds of each run that counts, and the most bytes that any took; see `measure`."""

    runs: list[float] = field(default_factory=list)
    peak_memory: int | None = None

    @property
    def seconds(self) -> float:
        """Median of the runs."""
        return median(self.runs)


def interleave(
    subjects: Sequence[Subject], device: torch.device, *, repeats: int, patience: float
) -> dict[str, Timing]:
    """Run all subjects in turn, so that a machine that slows down slows all of them; return timings by name.

    Each runs ``repeats`` times after a warm-up, but only once if it takes more than ``patience`` seconds.
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

    On CUDA the memory is the peak of what is allocated, weights included. On a CPU it is the rise of the process'
    resident memory, and None where the system does not report it.
    """
    before = _reset_peak(device)
    start = clock(device)
    left_out = run() or 0.0
    seconds = clock(device) - start + left_out
    if before is None:
        return seconds, None
    is_cuda = device.type == "cuda"
    return seconds, torch.cuda.max_memory_allocated(device) if is_cuda else _resident("VmHWM") - before


def clock(device: torch.device) -> float:
    """Return the time in seconds once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def memory_kind(device: torch.device) -> str:
    """Say what the peak memory of `measure` is."""
    return "CUDA, allocated" if device.type == "cuda" else "growth of resident memory"


def peak_resident() -> int:
    """Return the peak resident memory of this process in bytes."""
    try:
        return _resident("VmHWM")  # getrusage counts the memory of the process that started this one
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _reset_peak(device: torch.device) -> int | None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return 0
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed before would hide what is used now
        (_PROCESS / "clear_refs").write_text("5")  # Linux: the peak starts anew
    except (AttributeError, OSError):
        return None
    return _resident("VmRSS")


def _resident(name: str) -> int:
    found = re.search(rf"{name}:\s*(\d+) kB", (_PROCESS / "status").read_text())
    return int(found[1]) * 1024 if found else 0
