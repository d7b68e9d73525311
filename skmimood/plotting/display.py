"""What all displays share: where they draw, and how a notebook shows them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.pipeline import Pipeline

from skmimood.exceptions import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAP_INCHES = 1.7  # side of the picture of a slice
PANEL_INCHES = (3.6, 3.0)


class Display:
    """Base of the displays.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        What was drawn on.
    ax_ : matplotlib.axes.Axes, or ndarray of Axes
        One, or as many as the display has panels.
    """

    figure_: Figure
    ax_: Any
    _is_own = False

    def _lay_out(self, ax: Any, n_rows: int, n_columns: int, size: tuple[float, float]) -> np.ndarray:
        """Return Axes of shape (n_rows, n_columns): of a figure of ``size`` inches, within ``ax``, or those given."""
        from matplotlib.axes import Axes
        from matplotlib.figure import Figure

        self._is_own = ax is None
        if ax is None:
            axes = Figure(figsize=size, layout="constrained").subplots(n_rows, n_columns, squeeze=False)
        elif not isinstance(ax, Axes):
            axes = np.asarray(ax, dtype=object)
            if axes.size != n_rows * n_columns:
                raise InputError(
                    f"ax must be one Axes or {n_rows} x {n_columns} of them; got {axes.size}. Pass ax=None for a "
                    "figure of the right size."
                )
            axes = axes.reshape(n_rows, n_columns)
        elif n_rows * n_columns == 1:
            axes = np.array([[ax]], dtype=object)
        else:
            ax.set_axis_off()
            place = ax.get_subplotspec() or ax.figure.add_gridspec(1, 1)[0]
            axes = place.subgridspec(n_rows, n_columns).subplots(squeeze=False)
        self.figure_ = axes[0, 0].figure
        return axes

    def _repr_png_(self) -> bytes | None:
        """Return the figure for a notebook, unless it is one of the caller's, which the notebook shows by itself."""
        if not self._is_own:
            return None
        stream = io.BytesIO()
        self.figure_.savefig(stream, format="png", dpi=100)
        return stream.getvalue()


def show_pictures(axes: np.ndarray, pictures: np.ndarray) -> None:
    """Show pictures (n_rows, n_columns, H, W, 3) on as many Axes, without ticks and frames."""
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for ax, picture in zip(axes.flat, pictures.reshape(-1, *pictures.shape[2:]), strict=False):
        ax.imshow(picture, interpolation="nearest")


def name_rows_and_columns(axes: np.ndarray, rows: Any, columns: Any) -> None:
    """Write names beside the rows and above the columns of pictures."""
    for ax, label in zip(axes[:, 0], rows, strict=False):
        ax.set_ylabel(literal(label), fontsize=8)
    for ax, name in zip(axes[0], columns, strict=True):
        ax.set_title(name, fontsize=9)


def literal(text: Any) -> str:
    """Keep matplotlib from reading dollar signs as mathematics."""
    return str(text).replace("$", r"\$")


def steps_of(estimator: Any) -> Iterator[tuple[str, Any]]:
    """Yield the name and the estimator of each step of a pipeline, or of the one estimator."""
    if isinstance(estimator, Pipeline):
        yield from estimator.steps
    else:
        yield type(estimator).__name__, estimator


def before_last(estimator: Any, X: Any) -> tuple[Any, Any]:
    """Return what the last step of a fitted pipeline gets of ``X``, and the last step."""
    *earlier, (_, last) = steps_of(estimator)
    for _, step in earlier:
        X = step.transform(X)
    return X, last


def label_axes(ax: Axes, x: str, y: str, title: str = "") -> None:
    """Label both axes of a panel, with a title if there is one."""
    ax.set(xlabel=x, ylabel=y)
    if title:
        ax.set_title(literal(title), fontsize=10)
