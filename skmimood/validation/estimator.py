"""What every estimator of slices shares: all parameters are checked at once, nested ones have defaults of the class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from sklearn.base import BaseEstimator, clone

from skmimood.exceptions import InputError
from skmimood.validation.old_names import add_old_attributes, check_old_names, new_names
from skmimood.validation.rules import Rule, fault_of


class CheckedParameters(BaseEstimator):
    """Base of everything with parameters; ``_rules`` of a class and of its bases say what they must be."""

    _rules: ClassVar[Mapping[str, Rule]] = {}

    def _values(self, *names: str) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names}

    def _parameter_faults(self) -> Iterator[str]:
        """Say what is wrong with each parameter; subclasses add what depends on several."""
        rules: dict[str, Rule] = {}
        for base in reversed(type(self).__mro__):
            rules |= vars(base).get("_rules", {})
        own = self._get_param_names()
        faults = (fault_of(name, getattr(self, name), rule) for name, rule in rules.items() if name in own)
        yield from filter(None, faults)


class ParameterGroup(CheckedParameters):
    """Base of parameters that go together, as one nested parameter; two are equal if all their values are."""

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.get_params() == other.get_params()


class SliceEstimator(CheckedParameters):
    """Base of the estimators whose input is slices or their tokens.

    ``_defaults`` holds the nested parameters of a class and what None stands for there, of which each instance gets a
    copy of its own when it is first needed.
    """

    _defaults: ClassVar[Mapping[str, ParameterGroup]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        add_old_attributes(cls, cls._defaults)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters; ``deep`` adds those of nested estimators, as ``training__max_iter``."""
        for name in self._defaults:
            self._nested(name)
        return super().get_params(deep)

    def set_params(self, **parameters: Any) -> Any:
        """Set parameters, nested ones as ``training__max_iter=100``."""
        parameters = new_names(self, parameters)
        for name in self._defaults:
            if name in parameters and parameters[name] is None:
                parameters[name] = clone(self._defaults[name])
        return super().set_params(**parameters)

    def _set_old(self, parameters: Mapping[str, Any]) -> None:
        """Set what a constructor was given by its old name."""
        if not parameters:
            return
        check_old_names(self, parameters)
        for name in self._defaults:
            setattr(self, name, clone(self._nested(name), safe=False))  # what was passed stays as it is
        self.set_params(**parameters)

    def _nested(self, name: str) -> Any:
        """Return a nested parameter; None becomes the default of the class."""
        if getattr(self, name) is None:
            setattr(self, name, clone(self._defaults[name]))
        return getattr(self, name)

    def _check_parameters(self) -> None:
        """Raise `InputError` naming every parameter that is wrong, before anything is computed."""
        faults = list(self._parameter_faults())
        if faults:
            raise InputError(f"{type(self).__name__}: {'; '.join(faults)}.")

    def _parameter_faults(self) -> Iterator[str]:
        yield from super()._parameter_faults()
        for name, default in self._defaults.items():
            nested, wanted = self._nested(name), type(default)
            if isinstance(nested, wanted):
                yield from (f"{name}: {fault}" for fault in nested._parameter_faults())
            else:
                yield f"{name} must be a {wanted.__name__} or None; got {nested!r}"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags
