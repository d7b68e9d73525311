"""Figures of results, in the style of scikit-learn's displays.

``SomeDisplay.from_estimator(...)`` and ``SomeDisplay.from_predictions(...)`` compute what is shown, draw it and return
the display, whose ``plot(ax=None)`` draws it again; ``ax_`` and ``figure_`` are what was drawn on. Without ``ax`` a
figure outside pyplot is made, which nothing but the display knows: save it with ``display.figure_.savefig("a.png")``,
or let a notebook show the display. Given Axes of a figure of your own, the display takes their place.
"""

from skmimood.plotting.codebook import CodebookDisplay
from skmimood.plotting.losses import LossCurveDisplay
from skmimood.plotting.pictures import COLUMNS, ColourScale, colour_ramp, gallery_tiles, overlay
from skmimood.plotting.rates import FalsePositiveRateDisplay
from skmimood.plotting.restorations import RestorationDisplay
from skmimood.plotting.search import SearchCurveDisplay
from skmimood.plotting.slices import SliceDisplay

__all__ = [
    "COLUMNS",
    "CodebookDisplay",
    "ColourScale",
    "FalsePositiveRateDisplay",
    "LossCurveDisplay",
    "RestorationDisplay",
    "SearchCurveDisplay",
    "SliceDisplay",
    "colour_ramp",
    "gallery_tiles",
    "overlay",
]
