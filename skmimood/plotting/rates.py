"""Whether thresholds hold what they promise on healthy scans that nobody has seen."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from scipy.stats import betabinom
from typing_extensions import Self

from skmimood.exceptions import InputError
from skmimood.maps.conformal import HealthyReference
from skmimood.plotting.display import PANEL_INCHES, Display, label_axes

LEVELS = ("pixel", "scan")


class FalsePositiveRateDisplay(Display):
    """False-positive rate on unseen healthy scans against the rate that was asked for.

    Calibrated thresholds lie on the diagonal. Of scans, few are there on either side: the band holds 95 % of the
    empirical rates that come about although all is well, since with n held-out healthy scores and m new ones the number
    above the threshold follows a beta-binomial law. Pixels of one scan depend on one another, so they have no band.

    Parameters
    ----------
    nominal : ndarray of shape (k,)
        Rates in (0, 1) that were asked for.
    empirical : ndarray of shape (k,)
        Shares of the unseen healthy pixels or scans above the thresholds of these rates.
    n_reference, n_unseen : int
        Numbers of independent scores behind the thresholds, and of unseen ones; 0 for pixels.
    level : {"pixel", "scan"}
        What was counted.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure
    """

    def __init__(
        self, nominal: np.ndarray, empirical: np.ndarray, *, n_reference: int = 0, n_unseen: int = 0,
        level: str = "scan",
    ) -> None:  # fmt: skip
        self.nominal = nominal
        self.empirical = empirical
        self.n_reference = n_reference
        self.n_unseen = n_unseen
        self.level = level

    @classmethod
    def from_estimator(cls, detector: Any, X: Any, *, level: str = "pixel", ax: Any = None) -> Self:
        """Map healthy scans ``X`` that took no part in the fit of a `ScanDetector`, and count.

        ``X`` is what `ScanDetector.fit` takes; ``level`` is "pixel" or "scan". The detector is not changed.
        """
        unseen = copy.copy(detector).calibrate(X).reference_
        return cls.from_predictions(detector.reference_, unseen, level=level, ax=ax)

    @classmethod
    def from_predictions(
        cls, reference: HealthyReference, unseen: HealthyReference, *, level: str = "pixel", ax: Any = None
    ) -> Self:
        """Compare the scores that thresholds come from with those of unseen healthy scans.

        Parameters
        ----------
        reference, unseen : HealthyReference
            Of other subjects each.
        level : {"pixel", "scan"}, default="pixel"
            What to count.
        ax : Axes, optional
            Where to draw; by default on a figure of its own.

        Returns
        -------
        FalsePositiveRateDisplay
        """
        if level not in LEVELS:
            raise InputError(f"level must be one of {LEVELS}; got {level!r}.")
        if level == "scan":
            n, m = reference.n_scans, unseen.n_scans
            nominal = np.arange(1, n + 1) / (n + 1)
            thresholds = reference.scan_scores[::-1]  # of the rates 1 / (n + 1), 2 / (n + 1), ...
            empirical = (unseen.scan_scores[:, np.newaxis] > thresholds).mean(axis=0)
            return cls(nominal, empirical, n_reference=n, n_unseen=m, level=level).plot(ax)
        lowest = max(1 / (reference.n_pixels + 1), 1e-4)
        nominal = np.geomspace(lowest, 0.5, 50)
        thresholds = np.array([reference.pixel_threshold(rate) for rate in nominal])
        return cls(nominal, unseen.pixels_above(thresholds) / unseen.n_pixels, level=level).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw the empirical rates over the nominal ones; those of pixels with logarithmic axes."""
        self.ax_ = self._lay_out(ax, 1, 1, PANEL_INCHES)[0, 0]
        self.ax_.plot(self.nominal, self.nominal, "--", color="0.4", lw=1, label="as promised")
        if self.n_unseen:
            rank = np.round(self.nominal * (self.n_reference + 1))
            law = betabinom(self.n_unseen, rank, self.n_reference + 1 - rank)
            low, high = law.ppf(0.025) / self.n_unseen, law.ppf(0.975) / self.n_unseen
            self.ax_.fill_between(self.nominal, low, high, alpha=0.2, label="95 % of calibrations")
        self.ax_.plot(self.nominal, self.empirical, "o-", ms=3, label=f"unseen healthy {self.level}s")
        if self.level == "pixel":
            self.ax_.set(xscale="log", yscale="log")
        label_axes(self.ax_, "rate asked for", f"share of healthy {self.level}s above")
        self.ax_.legend(frameon=False, fontsize=8)
        return self
