"""What every estimator of slices shares: parameters as annotated attributes, checked all at once, and one `fit`."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, get_type_hints

from sklearn.base import BaseEstimator, clone
from typing_extensions import Self, dataclass_transform

from skmimood.exceptions import InputError
from skmimood.validation.images import check_one_channel, healthy_samples
from skmimood.validation.old_names import new_names, take_old_names
from skmimood.validation.rules import Rule, fault_of


@dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(field,))
class CheckedParameters(BaseEstimator):
    """Base of everything with parameters, which are the annotated attributes of a class and of its bases.

    The constructor is that of a dataclass, so what is learnt has no annotation in the class. An annotation such as
    ``Annotated[int, COUNT]`` says by a rule what the value must be.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclass(cls, eq=False, repr=False, kw_only=True)  # a constructor that a class writes itself stays

    def _values(self, *names: str) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names}

    def _parameter_faults(self) -> Iterator[str]:
        """Say what is wrong with each parameter; subclasses add what depends on several."""
        for name, rule in _rules_of(type(self)):  # type: ignore[arg-type]  # a class is hashable
            if fault := fault_of(name, getattr(self, name), rule):
                yield fault

    def _check_parameters(self) -> None:
        """Raise `InputError` naming every parameter that is wrong, before anything is computed."""
        faults = list(self._parameter_faults())
        if faults:
            raise InputError(f"{type(self).__name__}: {'; '.join(faults)}.")


@functools.cache
def _rules_of(cls: type[CheckedParameters]) -> list[tuple[str, Rule]]:
    """Return the rules in the annotations of a class and of its bases, which every prediction checks."""
    hints = get_type_hints(cls, include_extras=True)
    return [(name, rule) for name, hint in hints.items() for rule in getattr(hint, "__metadata__", ())]


class ParameterGroup(CheckedParameters):
    """Base of parameters that go together, as one nested parameter; two are equal if all their values are."""

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.get_params() == other.get_params()

    def __hash__(self) -> int:
        return hash((type(self), *self.get_params().items()))


class SliceEstimator(CheckedParameters):
    """Base of the estimators whose input is slices or their tokens; subclasses implement ``_fit``.

    ``_defaults`` holds the nested parameters of a class and what None stands for there. None stays None until one of
    the nested values is set; then the instance gets a copy of its own. ``_check_input`` is `check_images` in those that
    take slices of several channels.
    """

    _defaults: ClassVar[Mapping[str, ParameterGroup]] = {}
    _check_input: ClassVar[Any] = staticmethod(check_one_channel)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        take_old_names(cls, cls._defaults)

    def fit(self, X: Any, y: Any = None, groups: Any = None) -> Self:
        """Learn from healthy slices; a last step also calibrates ``threshold_``, if possible on held-out ones.

        Parameters
        ----------
        X : array-like of shape (n, H, W) or (n, C, H, W), or TokenizedScans of n slices
            Slices in [0, 1], H and W at least 8, or the output of the step before. C, from 1 to 8, are channels, which
            not every detector takes.
        y : array-like of shape (n, H, W) or (n,), optional
            Lesion masks or labels; every sample whose mask is not empty is dropped.
        groups : array-like of shape (n,), optional
            Label of the subject or scan of each slice: of one label, all slices train or all validate. By default the
            last slices validate.

        Returns
        -------
        self

        Raises
        ------
        InputError
            If a parameter is wrong, X is not what it should be, or no healthy sample is left.
        """
        self._check_parameters()
        healthy, held_out = healthy_samples(self._check_input(X), y, groups, self._validation_fraction())
        self._fit(healthy, held_out)
        self._keep_shape(healthy)
        self._finish(healthy, held_out)
        return self

    def _validation_fraction(self) -> float:
        """Return the share of the healthy slices that should be held out."""
        return 0.0

    def _fit(self, healthy: Any, held_out: float) -> None:
        """Learn from healthy samples, of which the share ``held_out`` at the end validates."""
        raise NotImplementedError

    def _keep_shape(self, healthy: Any) -> None:
        """Keep the shape that later samples must have too."""

    def _finish(self, healthy: Any, held_out: float) -> None:
        """Learn what takes the fitted estimator."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters; ``deep`` adds those of nested estimators, as ``training__max_iter``."""
        parameters = super().get_params(deep)
        for name, default in self._defaults.items() if deep else ():
            if getattr(self, name) is None:
                parameters |= {f"{name}__{key}": value for key, value in default.get_params().items()}
        return parameters

    def set_params(self, **parameters: Any) -> Any:
        """Set parameters, nested ones as ``training__max_iter=100``."""
        parameters = new_names(self, parameters)
        for name, default in self._defaults.items():
            if parameters.get(name, getattr(self, name)) is None:
                of_class = {f"{name}__{key}": value for key, value in default.get_params().items()}
                given = {key: parameters[key] for key in parameters if key.startswith(f"{name}__")}
                if given.items() <= of_class.items():  # None says so already
                    parameters = {key: value for key, value in parameters.items() if key not in given}
                else:
                    parameters[name] = clone(default)
        return super().set_params(**parameters)

    def _nested(self, name: str) -> Any:
        """Return a nested parameter, not to be changed; for None it is the default of the class."""
        value = getattr(self, name)
        return self._defaults[name] if value is None else value

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
