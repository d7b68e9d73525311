"""Parameters that moved into `Training` and `ResidualMaps`: their old names work for one more release, with a warning.

To end it, delete this module and its uses.
"""

from __future__ import annotations

import functools
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
    old = {name: group for name, group in MOVED.items() if group in groups}
    for name, group in old.items():
        setattr(cls, name, _OldName(name, group))
    construct = cls.__init__

    @functools.wraps(construct)
    def construct_with(self: Any, *arguments: Any, **parameters: Any) -> None:
        moved = {name: parameters.pop(name) for name in list(parameters) if name in old}
        construct(self, *arguments, **parameters)
        for group in {old[name] for name in moved}:
            setattr(self, group, clone(self._nested(group), safe=False))  # what was passed stays as it is
        if moved:
            self.set_params(**moved)

    if old:
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
        return estimator.get_params()[_new_name(estimator, self.name, stacklevel=3)]

    def __set__(self, estimator: Any, value: Any) -> None:
        estimator.set_params(**{_new_name(estimator, self.name, stacklevel=3): value})


def _new_name(estimator: Any, name: str, *, stacklevel: int) -> str:
    old = vars(type(estimator)).get(name)
    if not isinstance(old, _OldName):
        return name
    warnings.warn(
        f"{name} of {type(estimator).__name__} has moved: use {old.group}__{name} in set_params and grids, and "
        f"{old.group}={type(estimator)._defaults[old.group].__class__.__name__}({name}=...) in the constructor. "
        "The old name will be removed in the next release.",
        FutureWarning, stacklevel=stacklevel,
    )  # fmt: skip
    return f"{old.group}__{name}"
