"""Where the marks of the report's charts lie: scores of scans beside healthy ones, and a scan along its slices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, ROW = 1100, 56  # of the chart of scores and of one of its two rows, in pixels
SPARK = (150, 34)  # width and height of a sparkline

_GOLDEN = 0.618033988749895  # steps of this share spread marks of equal scores evenly
_SPREAD = 0.6  # of a row that marks fill
_LEAST_GAP = 70  # pixels between the labels of an axis


@dataclass(frozen=True)
class ScoreAxis:
    """A scale from scores to pixels: linear around 0, logarithmic far beyond ``unit``."""

    lowest: float
    highest: float
    unit: float

    @classmethod
    def of(cls, scores: Sequence[float]) -> ScoreAxis:
        """Return an axis that holds some finite scores and 0."""
        typical = float(np.median(np.abs(scores))) if len(scores) else 0.0
        highest = max((*scores, 0.0)) or 1.0
        return cls(min((*scores, 0.0)), highest, typical or highest)

    def place(self, score: float) -> float:
        """Return where a score lies, in pixels from the left."""
        start, here, end = (math.asinh(value / self.unit) for value in (self.lowest, score, self.highest))
        return round(WIDTH * (here - start) / (end - start), 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Return places and labels of round scores that stand far enough apart."""
        decade = math.floor(math.log10(self.highest))
        rounds = [m * 10.0**power for power in range(decade - 4, decade + 1) for m in (1, 2, 5)]
        chosen = [0.0]
        for score in rounds:
            is_free = self.place(score) - self.place(chosen[-1]) >= _LEAST_GAP
            if is_free and self.place(score) <= WIDTH:
                chosen.append(score)
        return [(self.place(score), f"{score:g}") for score in chosen]


def scattered(axis: ScoreAxis, scores: Sequence[float]) -> list[tuple[float, float]]:
    """Return a place (x, y) in a row for each score; equal ones lie above one another."""
    heights = [ROW / 2 + ROW * _SPREAD * ((k * _GOLDEN) % 1 - 0.5) for k in range(len(scores))]
    return [(axis.place(score), round(height, 1)) for score, height in zip(scores, heights, strict=True)]


def sparkline(profile: np.ndarray, highest: float) -> str:
    """Return the points of a line along the slices of a scan, for ``<polyline>``; it is cut at ``highest``."""
    width, height = SPARK
    places = np.linspace(1, width - 1, len(profile))
    heights = (height - 2) * (1 - np.clip(profile / highest, 0, 1)) + 1
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(places, heights, strict=True))
