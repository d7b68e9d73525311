"""Slices as rows of scan, healed scan, anomaly map and mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import Self

from skmimood.plotting.display import (
    MAP_INCHES,
    Display,
    before_last,
    literal,
    name_rows_and_columns,
    show_pictures,
)
from skmimood.plotting.pictures import (
    COLOUR_MAP,
    COLUMNS,
    TRUTH_COLOUR,
    ColourScale,
    gallery_tiles,
    overlay,
)
from skmimood.preprocessing.channels import first_channel
from skmimood.scans.results import Gallery

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from skmimood.scans.results import ScanResult


class SliceDisplay(Display):
    """Slices as rows of scan, healed scan, anomaly map and mask, on one colour scale with a bar.

    Parameters
    ----------
    gallery : Gallery of k slices
        What is shown.
    scale : ColourScale or float
        ``ColourScale.of(detector)``, or the pixel threshold.
    title : str, optional
        Of the figure; left out where an ``ax`` is given.
    row_labels : sequence of k str, optional
        By default the numbers of the slices.
    truth : ndarray of shape (k, H, W), bool, optional
        Known lesions, shown in a column of their own.

    Attributes
    ----------
    ax_ : ndarray of Axes, shape (k, number of columns)
    figure_ : matplotlib.figure.Figure

    Examples
    --------
    >>> from skmimood.plotting import ColourScale, SliceDisplay
    >>> result = detector.detect_scan("patient.nii.gz")  # doctest: +SKIP
    >>> display = SliceDisplay.from_result(result, ColourScale.of(detector))  # doctest: +SKIP
    >>> display.figure_.savefig("patient.png")  # doctest: +SKIP
    """

    def __init__(
        self, gallery: Gallery, scale: ColourScale | float, *, title: str | None = None,
        row_labels: Sequence[str] | None = None, truth: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        self.gallery = gallery
        self.scale = scale if isinstance(scale, ColourScale) else ColourScale(float(scale))
        self.title = title
        self.row_labels = row_labels
        self.truth = truth

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: Any = None, *, row_labels: Sequence[str] | None = None, ax: Any = None
    ) -> Self:
        """Map slices ``X`` (k, H, W) by a fitted pipeline or detector of slices, and show them.

        Of slices (k, C, H, W) the first channel is shown. ``y`` (k, H, W) are known lesions, if there are any.
        """
        inputs, last = before_last(estimator, X)
        maps, healed = last.detect(inputs)
        return cls.from_predictions(X, maps, healed, last.threshold_, y=y, row_labels=row_labels, ax=ax)

    @classmethod
    def from_predictions(
        cls, X: Any, maps: np.ndarray, healed: np.ndarray, scale: ColourScale | float, *, y: Any = None,
        row_labels: Sequence[str] | None = None, ax: Any = None,
    ) -> Self:  # fmt: skip
        """Show slices ``X``, their ``maps`` and their ``healed`` slices, all (k, H, W), or of C channels the first."""
        scale = scale if isinstance(scale, ColourScale) else ColourScale(float(scale))
        images = first_channel(np.asarray(X))
        gallery = Gallery(images, first_channel(healed), maps, maps > scale.threshold, np.arange(len(images)))
        return cls(gallery, scale, row_labels=row_labels, truth=y).plot(ax)

    @classmethod
    def from_result(cls, result: ScanResult, scale: ColourScale | float, *, ax: Any = None) -> Self:
        """Show the most anomalous slices of a scan, as :meth:`skmimood.ScanDetector.detect` found them."""
        verdict = "anomalous" if result.is_anomalous else "not anomalous"
        title = f"{result.id}: score {result.score:.3g}, p = {result.pvalue:.3g}, {verdict}"
        return cls(result.gallery, scale, title=title).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw the slices on a figure of their own, within ``ax``, or on k x columns Axes."""
        tiles, columns = gallery_tiles(self.gallery, self.scale), list(COLUMNS)
        if self.truth is not None:
            truth = overlay(self.gallery.images, self.truth, TRUTH_COLOUR)
            tiles, columns = np.insert(tiles, 1, truth, axis=1), [columns[0], "known lesion", *columns[1:]]
        labels = self.row_labels
        if labels is None:
            labels = [f"slice {index}" for index in self.gallery.indices]
        n_rows, n_columns, height, width = max(len(tiles), 1), *tiles.shape[1:4]
        size = (MAP_INCHES * n_columns + 2.2, MAP_INCHES * height / width * n_rows + 0.5)
        self.ax_ = self._lay_out(ax, n_rows, n_columns, size)
        show_pictures(self.ax_, tiles)
        name_rows_and_columns(self.ax_, labels, columns)
        add_colour_bar(self.figure_, self.ax_, self.scale)
        if self.title is not None and self._is_own:
            self.figure_.suptitle(literal(self.title), fontsize=10)
        return self


def add_colour_bar(figure: Figure, axes: np.ndarray, scale: ColourScale) -> None:
    """Add the bar of a scale beside Axes."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    mappable = ScalarMappable(Normalize(0, scale.highest), COLOUR_MAP)
    bar = figure.colorbar(mappable, ax=axes, shrink=min(1.0, 2.5 / len(axes)), aspect=14, extend="max")
    middle = f"{scale.threshold:.3g}" + (" (threshold)" if scale.is_calibrated else "")
    bar.set_ticks([0, scale.threshold, scale.highest], labels=["0", middle, f"{scale.highest:.3g}"])
    bar.set_label("anomaly map", fontsize=8)
    bar.ax.tick_params(labelsize=7)
