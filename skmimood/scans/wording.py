"""How messages about several scans read."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from skmimood.exceptions import SkmimoodWarning

_NAMED = 5


def listing(names: Iterable[str]) -> str:
    """Join names for a message: the first five, and the number of the others."""
    names = list(names)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def warn(message: str) -> None:
    """Issue a :class:`SkmimoodWarning` that points at the caller's caller."""
    warnings.warn(message, SkmimoodWarning, stacklevel=3)
