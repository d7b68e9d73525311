"""Seconds and memory of things that are compared: in turn, repeated, on one device."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import torch

_PROCESS = Path("/proc/self")
Name = TypeVar("Name", bound=Hashable)


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
    subjects: Mapping[Name, Callable[[], Any]], device: torch.device, *, repeats: int, patience: float
) -> dict[Name, Timing]:
    """Run subjects in turn, ``repeats`` times after a warm-up, but once if it takes more than ``patience`` seconds."""
    timings = {name: Timing() for name in subjects}
    for number in range(repeats + 1):
        for name, run in subjects.items():
            timing = timings[name]
            if number > 0 and timing.runs[0] > patience:
                continue
            seconds, memory = measure(run, device)
            if number == 1:
                timing.runs.clear()  # the warm-up
            timing.runs.append(seconds)
            timing.peak_memory = None if memory is None else max(memory, timing.peak_memory or 0)
    return timings


def measure(run: Callable[[], Any], device: torch.device) -> tuple[float, int | None]:
    """Return seconds and peak memory in bytes of one run; a number that it returns is the seconds of what it left out.

    On CUDA the memory is the peak of what is allocated, weights included. On a CPU it is the rise of the process'
    resident memory, and None where the system does not report it.
    """
    is_cuda = device.type == "cuda"
    before = _reset_peak(device)
    start = clock(device)
    returned = run()
    seconds = clock(device) - start + (returned if isinstance(returned, float) else 0)
    after = torch.cuda.max_memory_allocated(device) if is_cuda else resident("VmHWM")
    return seconds, None if before is None or after is None else after - before


def program_seconds(*arguments: str) -> float:
    """Run ``skmimood`` and return its seconds, start included."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "skmimood", *arguments], check=True)
    return time.perf_counter() - start


def import_seconds() -> float:
    """Time ``import skmimood`` in a fresh interpreter, without the interpreter's own start."""
    code = "import time; start = time.perf_counter(); import skmimood; print(time.perf_counter() - start)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)


def clock(device: torch.device) -> float:
    """Return the time in seconds once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def resident(name: str) -> int | None:
    """Return the resident memory of this process in bytes, now (VmRSS) or at its peak (VmHWM); None but on Linux."""
    status = _PROCESS / "status"
    found = re.search(rf"{name}:\s*(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) * 1024 if found else None


def _reset_peak(device: torch.device) -> int | None:
    """Let the peak start anew; return what is in use now and not to be counted."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return 0
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed before would hide what is used now
        (_PROCESS / "clear_refs").write_text("5")  # Linux: the peak starts anew
    except (AttributeError, OSError):
        return None
    return resident("VmRSS")
