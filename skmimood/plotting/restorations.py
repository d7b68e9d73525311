"""What MIM-OOD does with a slice, step by step: figure 5 of its paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from typing_extensions import Self

from skmimood.exceptions import InputError
from skmimood.plotting.display import (
    MAP_INCHES,
    Display,
    before_last,
    name_rows_and_columns,
    show_pictures,
)
from skmimood.plotting.pictures import TRUTH_COLOUR, ColourScale, coloured, grey, overlay
from skmimood.plotting.slices import add_colour_bar
from skmimood.preprocessing.channels import first_channel
from skmimood.tokens.base import BaseRestorer


class RestorationDisplay(Display):
    """Slices as rows of scan, anomaly of the tokens, restorations, healed scan and anomaly map.

    This is figure 5 of Naval Marimont et al. (2023): what is found among the tokens, what is put in its place, and what
    comes of that.

    Parameters
    ----------
    images, healed, maps : ndarray of shape (k, H, W), float32
        Slices in [0, 1], healed slices, and anomaly maps.
    restorations : ndarray of shape (k, R, H, W), float32
        Decoded restorations, in the intensities of the slices.
    scale : ColourScale or float
        Of the maps; or the pixel threshold.
    anomaly : ndarray of shape (k, h, w), float32, optional
        The detector's score of each token. Its colours go from 0 to the highest of these scores.
    truth : ndarray of shape (k, H, W), bool, optional
        Known lesions, shown in a column of their own.
    row_labels : sequence of k str, optional
        By default the numbers of the slices.

    Attributes
    ----------
    ax_ : ndarray of Axes, shape (k, number of columns)
    figure_ : matplotlib.figure.Figure

    References
    ----------
    Naval Marimont, Siomos and Tarroni, MIM-OOD, DGM4MICCAI 2023, section 3.4 and figure 5.
    """

    def __init__(
        self, images: np.ndarray, restorations: np.ndarray, healed: np.ndarray, maps: np.ndarray,
        scale: ColourScale | float, *, anomaly: np.ndarray | None = None, truth: np.ndarray | None = None,
        row_labels: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        self.images = images
        self.restorations = restorations
        self.healed = healed
        self.maps = maps
        self.scale = scale if isinstance(scale, ColourScale) else ColourScale(float(scale))
        self.anomaly = anomaly
        self.truth = truth
        self.row_labels = row_labels

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: Any = None, *, n_restorations: int = 2,
        row_labels: Sequence[str] | None = None, ax: Any = None,
    ) -> Self:  # fmt: skip
        """Restore slices by a fitted pipeline, and show how.

        Parameters
        ----------
        estimator : Pipeline
            Fitted; its last step is `MaskedTokenInpainter` or `AutoregressiveRestorer`.
        X : array-like of shape (k, H, W) or (k, C, H, W)
            Slices; of several channels the first is shown.
        y : array-like of shape (k, H, W), optional
            Known lesions.
        n_restorations : int, default=2
            How many of the R restorations to show.
        row_labels : sequence of k str, optional
            By default the numbers of the slices.
        ax : Axes, or k x columns Axes, optional
            Where to draw; by default on a figure of their own.

        Returns
        -------
        RestorationDisplay

        Raises
        ------
        InputError
            If the last step restores no tokens.
        """
        scans, last = before_last(estimator, X)
        if not isinstance(last, BaseRestorer):
            raise InputError(
                f"The last step must restore tokens, as MaskedTokenInpainter does; got {type(last).__name__}. "
                "SliceDisplay shows the maps of any detector."
            )
        tokens = last.restore(scans)[:, :n_restorations]
        decoded = [
            first_channel(scans.tokenizer.inverse_transform(replace(scans, tokens=one)))
            for one in tokens.swapaxes(0, 1)
        ]
        maps, healed = last.detect(scans)
        display = cls(
            first_channel(scans.images), np.stack(decoded, axis=1), first_channel(healed), maps, last.threshold_,
            anomaly=scans.anomaly, truth=y, row_labels=row_labels,
        )  # fmt: skip
        return display.plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw the slices on a figure of their own, within ``ax``, or on k x columns Axes."""
        columns = {"scan": grey(self.images)}
        if self.truth is not None:
            columns["known lesion"] = overlay(self.images, self.truth, TRUTH_COLOUR)
        if self.anomaly is not None:
            columns["token anomaly"] = self._token_pictures(self.anomaly)
        for number, restored in enumerate(self.restorations.swapaxes(0, 1), start=1):
            columns[f"restoration {number}"] = grey(restored)
        columns |= {"healed": grey(self.healed), "map": coloured(self.maps, self.scale)}
        pictures = np.stack(list(columns.values()), axis=1)
        n_rows, n_columns, height, width = pictures.shape[:4]
        size = (MAP_INCHES * n_columns + 2.2, MAP_INCHES * height / width * n_rows + 0.5)
        self.ax_ = self._lay_out(ax, n_rows, n_columns, size)
        show_pictures(self.ax_, pictures)
        name_rows_and_columns(self.ax_, self.row_labels or [f"slice {row}" for row in range(n_rows)], columns)
        add_colour_bar(self.figure_, self.ax_, self.scale)
        return self

    def _token_pictures(self, anomaly: np.ndarray) -> np.ndarray:
        """Return scores of tokens (k, h, w) as pictures (k, H, W, 3) on a scale of their own."""
        height, width = self.images.shape[1:]
        factor = -(-height // anomaly.shape[1])
        pixels = anomaly.repeat(factor, axis=1).repeat(factor, axis=2)[:, :height, :width]
        return coloured(pixels, ColourScale(max(float(anomaly.max()), 1e-6) / 2))
