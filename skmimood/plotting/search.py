"""What a search over parameters found."""

from __future__ import annotations

from typing import Any

import numpy as np
from typing_extensions import Self

from skmimood.exceptions import InputError
from skmimood.plotting.display import PANEL_INCHES, Display, label_axes


class SearchCurveDisplay(Display):
    """Score over the values of one parameter of a search, one line for each value of another.

    Where the grid has more parameters, each point is the best over their values.

    Parameters
    ----------
    cv_results : dict of str to array
        ``cv_results_`` of a fitted search with one metric.
    parameter : str
        What goes along the axis, for instance ``"detector__threshold"``.
    by : str, optional
        What tells the lines apart, for instance ``"inpainter__n_steps"``.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure

    Examples
    --------
    >>> from skmimood.plotting import SearchCurveDisplay
    >>> display = SearchCurveDisplay.from_estimator(
    ...     search, "detector__threshold", by="inpainter__n_steps"
    ... )  # doctest: +SKIP
    """

    def __init__(self, cv_results: dict[str, Any], parameter: str, *, by: str | None = None) -> None:
        self.cv_results = cv_results
        self.parameter = parameter
        self.by = by

    @classmethod
    def from_estimator(cls, search: Any, parameter: str, *, by: str | None = None, ax: Any = None) -> Self:
        """Show a fitted `RestorationSearchCV`, or any search of scikit-learn with one metric."""
        return cls(search.cv_results_, parameter, by=by).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw the mean over the folds, and one standard deviation if there are several folds."""
        searched = sorted({name for candidate in self.cv_results["params"] for name in candidate})
        for name in filter(None, (self.parameter, self.by)):
            if name not in searched:
                raise InputError(f"{name} was not searched over; these were: {', '.join(searched)}.")
        curves = self._curves()
        if not curves:
            raise InputError(f"No candidate has both {self.parameter} and {self.by}. Leave out by.")
        self.ax_ = self._lay_out(ax, 1, 1, PANEL_INCHES)[0, 0]
        for value, curve in curves.items():
            x, mean, deviation = map(np.array, zip(*sorted(curve.values()), strict=True))
            label = None if self.by is None else f"{_last(self.by)} = {value}"
            (line,) = self.ax_.plot(x, mean, "o-", ms=4, label=label)
            if deviation.any():
                self.ax_.fill_between(
                    x, mean - deviation, mean + deviation, color=line.get_color(), alpha=0.15
                )
        if x.dtype.kind in "iuf" and x.min() > 0 and x.max() / x.min() >= 8:
            self.ax_.set_xscale("log")
        label_axes(self.ax_, _last(self.parameter), "score")
        if self.by is not None:
            self.ax_.legend(frameon=False, fontsize=8)
        return self

    def _curves(self) -> dict[Any, dict[Any, tuple[Any, float, float]]]:
        """Return, for each value of ``by`` and each of ``parameter``: that value, the best mean, its deviation."""
        curves: dict[Any, dict[Any, tuple[Any, float, float]]] = {}
        columns = (self.cv_results[name] for name in ("params", "mean_test_score", "std_test_score"))
        for candidate, mean, deviation in zip(*columns, strict=True):
            if self.parameter not in candidate or not (self.by is None or self.by in candidate):
                continue  # of another grid of the same search
            curve = curves.setdefault(candidate.get(self.by), {})
            value = candidate[self.parameter]
            if value not in curve or mean > curve[value][1]:
                curve[value] = (value, float(mean), float(deviation))
        return curves


def _last(name: str) -> str:
    return name.rpartition("__")[2]
