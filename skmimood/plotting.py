"""Pictures of results: scan, healed scan, anomaly map and mask side by side, on one colour scale.

Figures are :class:`matplotlib.figure.Figure` objects outside pyplot: save them with ``figure.savefig("scan.png")``, or
let a notebook show them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from skmimood.exceptions import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from skmimood.scans.results import Gallery, ScanResult

__all__ = ["COLUMNS", "ColourScale", "gallery_tiles", "overlay", "plot_gallery", "plot_scan"]

COLUMNS = ("scan", "healed", "map", "mask")
"""The pictures of one slice, from left to right."""

COLOUR_MAP = "inferno"
_MASK_COLOUR = (1.0, 0.62, 0.0)
_TRUTH_COLOUR = (0.25, 0.78, 0.95)
_FILL = 0.28  # opacity inside an outline
_SLICE_INCHES = 1.7


@dataclass(frozen=True)
class ColourScale:
    """The one colour scale of all maps of a model.

    Parameters
    ----------
    threshold : float
        Map value in the middle of the scale: the pixel threshold.
    is_calibrated : bool, default=True
        False if ``threshold`` replaces a pixel threshold that is infinite or not positive.
    """

    threshold: float
    is_calibrated: bool = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.threshold) and self.threshold > 0):
            raise InputError(
                f"The threshold of a colour scale must be positive and finite; got {self.threshold!r}. "
                "Use ColourScale.of(detector), which finds a stand-in."
            )

    @property
    def highest(self) -> float:
        """Map value of the brightest colour: twice the threshold."""
        return 2.0 * self.threshold

    @classmethod
    def of(cls, detector: Any) -> ColourScale:
        """Return the scale of a fitted :class:`skmimood.ScanDetector`.

        It depends only on the pixel threshold, not on the scans that are shown. If that is infinite or not positive,
        half the highest score of a healthy pixel replaces it.
        """
        threshold = float(detector.pixel_threshold_)
        if math.isfinite(threshold) and threshold > 0:
            return cls(threshold)
        highest = float(detector.reference_.pixel_values[-1])
        return cls(highest / 2 if highest > 0 else 0.5, is_calibrated=False)


def plot_scan(result: ScanResult, scale: ColourScale | float) -> Figure:
    """Show the most anomalous slices of a scan.

    Parameters
    ----------
    result : ScanResult
        From :meth:`skmimood.ScanDetector.detect_scan`.
    scale : ColourScale or float
        ``ColourScale.of(detector)``, or the pixel threshold.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> from skmimood.plotting import ColourScale, plot_scan
    >>> result = detector.detect_scan("patient.nii.gz")  # doctest: +SKIP
    >>> plot_scan(result, ColourScale.of(detector)).savefig("patient.png")  # doctest: +SKIP
    """
    verdict = "anomalous" if result.is_anomalous else "not anomalous"
    title = f"{result.id}: score {result.score:.3g}, p = {result.pvalue:.3g}, {verdict}"
    return plot_gallery(result.gallery, scale, title=title)


def plot_gallery(
    gallery: Gallery,
    scale: ColourScale | float,
    *,
    title: str | None = None,
    row_labels: Sequence[str] | None = None,
    truth: np.ndarray | None = None,
) -> Figure:
    """Show slices as rows of scan, healed scan, map and mask, with a colour bar.

    Parameters
    ----------
    gallery : Gallery of k slices
        From a :class:`skmimood.scans.ScanResult`.
    scale : ColourScale or float
        ``ColourScale.of(detector)``, or the pixel threshold.
    title : str, optional
        Of the figure.
    row_labels : sequence of k str, optional
        By default the numbers of the slices.
    truth : ndarray of shape (k, H, W), bool, optional
        Known lesions, shown in a column of their own.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    scale = scale if isinstance(scale, ColourScale) else ColourScale(float(scale))
    tiles, columns = gallery_tiles(gallery, scale), list(COLUMNS)
    if truth is not None:
        tiles = np.insert(tiles, 1, overlay(gallery.images, truth, _TRUTH_COLOUR), axis=1)
        columns.insert(1, "known lesion")
    if row_labels is None:
        row_labels = [f"slice {index}" for index in gallery.indices]
    n_rows, n_columns, height, width = max(len(tiles), 1), *tiles.shape[1:4]
    size = (_SLICE_INCHES * n_columns + 1.9, _SLICE_INCHES * height / width * n_rows + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False, subplot_kw={"xticks": [], "yticks": []})
    for ax in axes.flat:
        ax.spines[:].set_visible(False)
    for ax, tile in zip(axes.flat, tiles.reshape(-1, height, width, 3), strict=False):
        ax.imshow(tile, interpolation="nearest")
    for ax, label in zip(axes[:, 0], row_labels, strict=False):
        ax.set_ylabel(_literal(label), fontsize=8)
    for ax, name in zip(axes[0], columns, strict=True):
        ax.set_title(name, fontsize=9)
    _add_colour_bar(figure, axes, scale)
    if title is not None:
        figure.suptitle(_literal(title), fontsize=10)
    return figure


def gallery_tiles(gallery: Gallery, scale: ColourScale) -> np.ndarray:
    """Return the pictures of a gallery, shape (k, 4, H, W, 3), uint8: scan, healed scan, map and mask."""
    pictures = _grey(gallery.images), _grey(gallery.healed), _coloured(gallery.maps, scale)
    return np.stack([*pictures, overlay(gallery.images, gallery.masks)], axis=1)


def overlay(
    images: np.ndarray, masks: np.ndarray, colour: tuple[float, float, float] = _MASK_COLOUR
) -> np.ndarray:
    """Outline and tint masks (k, H, W) on slices (k, H, W) in [0, 1]; return pictures (k, H, W, 3), uint8."""
    from scipy.ndimage import binary_erosion, generate_binary_structure

    masks = np.asarray(masks, dtype=bool)
    outline = masks & ~binary_erosion(masks, generate_binary_structure(2, 1)[np.newaxis])  # within slices
    opacity = np.where(outline, 1.0, np.where(masks, _FILL, 0.0))[..., np.newaxis]
    mixed = (1 - opacity) * _grey(images) + opacity * 255 * np.asarray(colour)
    return mixed.round().astype(np.uint8)


def colour_ramp(width: int = 256) -> np.ndarray:
    """Return the colours from the lowest value to the highest, shape (1, width, 3), uint8."""
    return _coloured(np.linspace(0, 2, width)[np.newaxis], ColourScale(1.0))


def _grey(images: np.ndarray) -> np.ndarray:
    levels = (255 * np.clip(images, 0, 1)).round().astype(np.uint8)
    return np.repeat(levels[..., np.newaxis], 3, axis=-1)


def _coloured(maps: np.ndarray, scale: ColourScale) -> np.ndarray:
    import matplotlib

    colours = matplotlib.colormaps[COLOUR_MAP](np.clip(maps / scale.highest, 0, 1), bytes=True)
    return np.asarray(colours)[..., :3]


def _add_colour_bar(figure: Figure, axes: np.ndarray[Any, Any], scale: ColourScale) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    mappable = ScalarMappable(Normalize(0, scale.highest), COLOUR_MAP)
    bar = figure.colorbar(mappable, ax=axes, shrink=min(1.0, 2.5 / len(axes)), aspect=14, extend="max")
    middle = f"{scale.threshold:.3g}" + (" (threshold)" if scale.is_calibrated else "")
    bar.set_ticks([0, scale.threshold, scale.highest], labels=["0", middle, f"{scale.highest:.3g}"])
    bar.ax.tick_params(labelsize=7)


def _literal(text: str) -> str:
    """Keep matplotlib from reading dollar signs as mathematics."""
    return text.replace("$", r"\$")
