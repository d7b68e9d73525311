"""Parameters that moved into `Training` and `ResidualMaps`: their old names work for one more release, with a warning.

To end it, delete this module and its uses.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Container, Mapping
from typing import Any

from sklearn.base import clone

# Old name -> the parameter that holds it now.
MOVED = {
    **dict.fromkeys(
        (
            "max_iter", "batch_size", "learning_rate", "weight_decay", "warmup_iter", "gradient_clip",
            "validation_fraction", "n_iter_no_change", "precision", "checkpoint_dir", "resume",
        ),
        "training",
    ),
    **dict.fromkeys(
        (
            "residual", "residual_weight", "weight_power", "combination", "sharpness",
            "min_filter", "mean_filter", "erosion",
        ),
        "maps",
    ),
}  # fmt: skip


def take_old_names(cls: Any, groups: Mapping[str, Any]) -> None:
    """Let the constructor and the attributes of ``cls`` take the old names of what is in its nested ``groups`` now."""
    own_fields = getattr(cls, "__dataclass_fields__", {})
    old = {name: group for name, group in MOVED.items() if group in groups and name not in own_fields}
    for name, group in old.items():
        setattr(cls, name, _OldName(name, group))
    construct = cls.__init__

    @functools.wraps(construct)
    def construct_with(self: Any, *arguments: Any, **parameters: Any) -> None:
        moved = {name: parameters.pop(name) for name in list(parameters) if name in old}
        construct(self, *arguments, **parameters)
        for group in {old[name] for name in moved}:
            setattr(self, group, clone(self._nested(group), safe=False))  # what was passed stays as it is
        for name, value in moved.items():
            _warn(self, name, old[name], stacklevel=3)
            setattr(getattr(self, old[name]), name, value)

    own = vars(cls).get("__init__")
    if old and not (own and set(old) & set(inspect.signature(own).parameters)):
        cls.__init__ = construct_with


def new_names(estimator: Any, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters with old names in the new spelling, with a warning for each."""
    found = {}
    for name, value in parameters.items():
        found[_new_name(estimator, name, stacklevel=4)] = value
    return found


def nested(groups: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flat parameters of an earlier model as the nested ones of now, without a warning."""
    found: dict[str, Any] = {}
    for name, value in parameters.items():
        group = MOVED.get(name, "")
        if group in groups:
            found.setdefault(group, {})[name] = value
        else:
            found[name] = value
    return found


def new_settings(settings: Mapping[str, Any], known: Container[str]) -> dict[str, Any]:
    """Return settings of the steps of an earlier model, such as ``inpainter__erosion``, under the ``known`` names."""

    def new_name(name: str) -> str:
        step, _, parameter = name.rpartition("__")
        new = f"{step}__{MOVED.get(parameter)}__{parameter}"
        return new if name not in known and new in known else name

    return {new_name(name): value for name, value in settings.items()}


class _OldName:
    """An attribute that is a parameter of a nested estimator now."""

    def __init__(self, name: str, group: str) -> None:
        self.name, self.group = name, group

    def __get__(self, estimator: Any, owner: type) -> Any:
        if estimator is None:
            return self
        _warn(estimator, self.name, self.group, stacklevel=3)
        return getattr(estimator._nested(self.group), self.name)

    def __set__(self, estimator: Any, value: Any) -> None:
        _warn(estimator, self.name, self.group, stacklevel=3)
        if getattr(estimator, self.group) is None:
            setattr(estimator, self.group, clone(estimator._defaults[self.group]))
        setattr(getattr(estimator, self.group), self.name, value)


def _new_name(estimator: Any, name: str, *, stacklevel: int) -> str:
    old = inspect.getattr_static(type(estimator), name, None)
    if not isinstance(old, _OldName):
        return name
    _warn(estimator, name, old.group, stacklevel=stacklevel + 1)
    return f"{old.group}__{name}"


def _warn(estimator: Any, name: str, group: str, *, stacklevel: int) -> None:
    kind = type(estimator).__name__
    warnings.warn(
        f"{name} of {kind} has moved: use {group}__{name} in set_params and grids, and "
        f"{kind}().set_params({group}__{name}=...) to construct. The old name will be removed in the next release.",
        FutureWarning, stacklevel=stacklevel,
    )  # fmt: skip
