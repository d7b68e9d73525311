"""The errors that skmimood raises on purpose, each with a fault and a remedy in its message, and its warnings."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

_NAMED = 5


class SkmimoodError(Exception):
    """Base class of all errors that skmimood raises on purpose."""


class InputError(SkmimoodError, ValueError):
    """An argument, array or set of scans that cannot be worked with."""


class ScanReadError(SkmimoodError, ValueError):
    """One scan cannot be read or used; the other scans of a set are not affected.

    Parameters
    ----------
    name : str
        The file's name without its directory, so that logs carry no path.
    reason : str
        What is wrong with it, and what to do.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class ScanWriteError(SkmimoodError, OSError):
    """A result cannot be written; nothing was left half-written."""


class ModelLoadError(SkmimoodError, ValueError):
    """A saved model is damaged, incomplete or of another version; nothing was loaded."""


class ModelSaveError(SkmimoodError, OSError):
    """A model cannot be saved; what stood at the path before is still there."""


class TrainingDivergedError(SkmimoodError, RuntimeError):
    """The training loss became NaN or infinite again after the learning rate had been lowered."""


class DeviceError(SkmimoodError, RuntimeError):
    """The computing device is not there or has too little memory for the batch."""


class WorkerError(SkmimoodError, RuntimeError):
    """The processes that work for a job died before they began; what was finished before is kept."""


class SkmimoodWarning(UserWarning):
    """Something that works but deserves a look."""


class CodebookCollapseWarning(SkmimoodWarning):
    """The tokenizer uses few of its codes."""


def warn(message: str, stacklevel: int = 3) -> None:
    """Issue a `SkmimoodWarning` that points at the caller of the calling function."""
    warnings.warn(message, SkmimoodWarning, stacklevel)


def listing(names: Iterable[str]) -> str:
    """Join names for a message: the first five, and the number of the others."""
    names = list(names)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
