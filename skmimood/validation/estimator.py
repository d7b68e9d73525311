"""What every estimator of slices shares: parameters are checked all at once, and scikit-learn is told of 3-D input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sklearn.base import BaseEstimator

from skmimood.exceptions import InputError


class SliceEstimator(BaseEstimator):
    """Base of the estimators whose input is slices or their tokens."""

    def _check_parameters(self) -> None:
        """Raise `InputError` naming every parameter that is wrong, before anything is computed."""
        faults = list(self._parameter_faults())
        if faults:
            raise InputError(f"{type(self).__name__}: {'; '.join(faults)}.")

    def _parameter_faults(self) -> Iterator[str]:
        """Say what is wrong with each parameter; subclasses add their own."""
        yield from ()

    def _faults(self, name: str, is_valid: Callable[[Any], Any], wanted: str) -> Iterator[str]:
        value = getattr(self, name)
        try:
            valid = is_valid(value)
        except TypeError:
            valid = False
        if not valid:
            yield f"{name} must be {wanted}; got {value!r}"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags
