"""How well maps of whole scans agree with known lesions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from skmimood.maps.conformal import ScoreHistogram, average_precision_of_counts
from skmimood.scans.cohort import PreparedScan
from skmimood.scans.mapping import Frame
from skmimood.scans.wording import warn

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


def average_precision(scans: Iterable[PreparedScan], frame: Frame, pipeline: Pipeline) -> float:
    """Return the average precision over the voxels of all scans together, which are held one at a time.

    A scan without a lesion mask has no lesion. NaN, with a warning, if none has. What is odd about a scan or its mask
    is warned about.
    """
    healthy, diseased = ScoreHistogram(), ScoreHistogram()
    for prepared in scans:
        truth = prepared.lesions
        if truth is None:
            truth = np.zeros(prepared.foreground.shape, dtype=bool)
        remarks = prepared.scan.warnings + ("the lesion mask is set everywhere",) * bool(truth.all())
        if remarks:
            warn(f"{prepared.scan.id}: {'; '.join(remarks)}.")
        anomaly = frame.map(replace(prepared, lesions=None), pipeline).anomaly
        diseased.add(anomaly[truth])
        healthy.add(anomaly[~truth])
    return average_precision_of_counts(diseased, healthy)
