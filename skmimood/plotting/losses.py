"""How the trainings went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from typing_extensions import Self

from skmimood.exceptions import InputError
from skmimood.plotting.display import PANEL_INCHES, Display, label_axes, steps_of

_N_POINTS = 100  # of the curve of the training loss, each the mean of the steps since the last


class LossCurveDisplay(Display):
    """Loss of each network over the steps of its training, and over the slices that validate it; one panel a network.

    Parameters
    ----------
    histories : dict of str to dict
        ``history_`` of each network, by name: ``loss`` (n_iter,), ``validation_loss`` and ``validation_step``
        (n_validations,).

    Attributes
    ----------
    ax_ : ndarray of Axes, shape (number of networks,)
    figure_ : matplotlib.figure.Figure

    Examples
    --------
    >>> from skmimood.plotting import LossCurveDisplay
    >>> display = LossCurveDisplay.from_estimator(pipe)  # doctest: +SKIP
    """

    def __init__(self, histories: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        self.histories = histories

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None) -> Self:
        """Show the trainings of a fitted pipeline or estimator.

        ``ax`` is one Axes, whose place is divided, or as many as there are networks. `InputError` if nothing in it
        was trained.
        """
        histories = {}
        for name, step in steps_of(estimator):
            history = getattr(step, "history_", {})
            for prefix in (key.removesuffix("loss") for key in history if key.endswith("loss")):
                if not prefix.endswith("validation_"):
                    part = {
                        key.removeprefix(prefix): history[key] for key in history if key.startswith(prefix)
                    }
                    histories[" ".join([name, *prefix.split("_")]).strip()] = part
        if not histories:
            raise InputError(
                f"No network of {type(estimator).__name__} was trained. Pass a fitted pipeline, or an estimator "
                "with history_."
            )
        return cls(histories).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw one panel a network, with logarithmic losses where they are positive."""
        n = len(self.histories)
        self.ax_ = self._lay_out(ax, 1, n, (PANEL_INCHES[0] * n, PANEL_INCHES[1]))[0]
        for one, (name, history) in zip(self.ax_, self.histories.items(), strict=True):
            one.plot(*_means(np.asarray(history["loss"])), color="0.6", label="training")
            one.plot(history["validation_step"], history["validation_loss"], "o-", ms=3, label="validation")
            if min(map(np.min, (history["loss"], *history["validation_loss"]))) > 0:
                one.set_yscale("log")
            label_axes(one, "step", "loss" if one is self.ax_[0] else "", name)
        self.ax_[0].legend(frameon=False)
        return self


def _means(losses: np.ndarray) -> tuple[list[float], list[float]]:
    """Return steps and means of at most ``_N_POINTS`` runs of losses."""
    parts = np.array_split(np.arange(len(losses)), min(len(losses), _N_POINTS))
    return [float(part.mean()) + 1 for part in parts], [float(losses[part].mean()) for part in parts]
