"""Rules of parameters as data: whether a value is valid, and what is wanted in words."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np

Rule = tuple[Callable[[Any], Any], str]
"""Whether a value is valid, and what is wanted in words."""

MAX_LEVELS = 10
"""Of a network, each at half the resolution of the one before; slices are padded to a multiple of 2**9 pixels then."""


def is_count(value: Any) -> bool:
    """Return whether ``value`` is a positive integer."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= 1)


def fault_of(name: str, value: Any, rule: Rule) -> str | None:
    """Return what is wrong with the value of a parameter, or None."""
    is_valid, wanted = rule
    try:
        valid = bool(is_valid(value))
    except (TypeError, ValueError, RuntimeError):
        valid = False
    return None if valid else f"{name} must be {wanted}; got {value!r}"


def one_of(choices: Collection[str]) -> Rule:
    """Return the rule of a named choice."""
    return lambda name: name in choices, f"one of {choices}"


def or_none(rule: Rule) -> Rule:
    """Return a rule that None follows too."""
    is_valid, wanted = rule
    return lambda value: value is None or is_valid(value), f"None or {wanted}"


BOOLEAN: Rule = (lambda value: isinstance(value, bool | np.bool_), "True or False")
COUNT: Rule = (is_count, "a positive integer")
COUNT_OR_ZERO: Rule = (
    lambda n: is_count(n) or (n == 0 and not isinstance(n, bool | float)),
    "0 or a positive integer",
)
LEVELS: Rule = (lambda n: is_count(n) and n <= MAX_LEVELS, f"an integer from 1 to {MAX_LEVELS}")
ODD: Rule = (lambda n: is_count(n) and n % 2 == 1, "an odd number of pixels, 1 for no filter")
POSITIVE: Rule = (lambda number: number > 0, "a positive number")
NOT_NEGATIVE: Rule = (lambda number: number >= 0, "a number of at least 0")
FINITE_POSITIVE: Rule = (lambda number: 0 < number < np.inf, "a positive number")
FINITE_NOT_NEGATIVE: Rule = (lambda number: 0 <= number < np.inf, "a number of at least 0")
NATS: Rule = (lambda nats: nats >= 0, "a number of nats, at least 0")
# Wider kernels fill the memory.
SMOOTHING: Rule = (lambda sigma: 0 <= sigma <= 1000, "a number from 0 to 1000")
PROBABILITY: Rule = (lambda p: 0 <= p <= 1, "a probability in [0, 1]")
RATE: Rule = (lambda rate: 0 < rate < 1, "a number between 0 and 1, both excluded")
SHARE: Rule = (lambda share: 0 <= share < 1, "a number in [0, 1)")
