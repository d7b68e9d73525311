"""What ``ScanDetector.fit`` does with its scans: pixel size, training slices, scores of the held-out ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from skmimood.calibration import HealthyReference
from skmimood.exceptions import InputError, ScanReadError
from skmimood.preprocessing import Plane
from skmimood.volumes.cohort import Candidate, ScanReader, ScanStatus, warn_about_left_out
from skmimood.volumes.mapping import Frame, top_mean
from skmimood.volumes.wording import listing, warn

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

Progress = Callable[[Sequence[Any], str], Iterable[Any]]  # items and what is done to them -> the items again

_MARGIN = 2  # pixels kept free around the largest training foreground


class SliceReservoir:
    """A uniform random sample of at most ``capacity`` slices from a stream of unknown length, in one array.

    Parameters
    ----------
    capacity : int
        Largest number of slices to keep.
    size : (int, int)
        Height and width.
    rng : numpy.random.Generator
        Draws which slices stay once the reservoir is full.
    """

    def __init__(self, capacity: int, size: tuple[int, int], rng: np.random.Generator) -> None:
        self._slices = np.empty((capacity, *size), dtype=np.float32)
        self._rng = rng
        self._seen = 0

    def add(self, slices: np.ndarray) -> None:
        """Offer slices of shape (n, H, W), each of which ends up in the sample with the same probability."""
        capacity = len(self._slices)
        for one in slices:
            place = self._seen if self._seen < capacity else int(self._rng.integers(self._seen + 1))
            if place < capacity:
                self._slices[place] = one
            self._seen += 1

    @property
    def slices(self) -> np.ndarray:
        """The sample, shape (n, H, W) float32."""
        return self._slices[: self._seen]


def choose_frame(
    training: Sequence[Candidate], plane: Plane, spacing: float | None, size: tuple[int, int]
) -> Frame:
    """Return the frame of given ``spacing``, or of the smallest that crops no training foreground."""
    if spacing is None:
        extents = np.asarray([candidate.features.extent for candidate in training])
        return Frame(plane, float((extents.max(axis=0) / (np.asarray(size) - _MARGIN)).max()), size)
    frame = Frame(plane, float(spacing), size)
    cropped = [candidate.id for candidate in training if frame.crops(candidate.features.extent)]
    if cropped:
        warn(
            f"{size[0]} x {size[1]} pixels of {spacing:g} mm crop the foreground of {listing(cropped)}. "
            "Raise spacing or size, or leave spacing to be learned."
        )
    return frame


def collect_slices(
    training: Sequence[Candidate],
    reader: ScanReader,
    frame: Frame,
    min_foreground: float,
    max_slices: int,
    rng: np.random.Generator,
    progress: Progress,
) -> tuple[np.ndarray, list[ScanStatus]]:
    """Return the slices to learn from, (n, H, W) float32, and what became of each scan.

    Raises
    ------
    InputError
        If there is no slice to learn from.
    """
    reservoir = SliceReservoir(min(max_slices, sum(max(one.shape) for one in training)), frame.size, rng)
    lines = []
    for candidate in progress(training, "slicing"):
        try:
            slices = frame.healthy_slices(candidate.read(reader), min_foreground)
        except ScanReadError as error:  # it could be read a moment ago
            lines.append(candidate.status("skipped", reason=error.reason))
            continue
        reservoir.add(slices)
        if len(slices):
            lines.append(candidate.status("used", n_slices=len(slices)))
        else:
            reason = "no slice without lesions has enough foreground"
            lines.append(candidate.status("skipped", reason=reason))
    if not len(reservoir.slices):
        raise InputError(
            "no slice of the scans to learn from is free of lesions and filled by foreground to "
            f"{min_foreground:.0%}. Lower min_foreground, or look at the scans."
        )
    warn_about_left_out(lines)
    return reservoir.slices, lines


def refer(
    held_out: Sequence[Candidate], reader: ScanReader, frame: Frame, pipeline: Pipeline, progress: Progress
) -> tuple[HealthyReference, list[ScanStatus], dict[str, float]]:
    """Score healthy scans that were not learned from.

    Returns
    -------
    reference : HealthyReference
    lines : list of ScanStatus
        What became of each scan.
    scores : dict of str to float
        Score of each scan that could be used.

    Raises
    ------
    InputError
        If none can be used.
    """
    lines: list[ScanStatus] = []
    scores: dict[str, float] = {}

    def scored() -> Iterator[tuple[np.ndarray, float]]:
        for candidate in progress(held_out, "calibrating"):
            try:
                maps = frame.map(candidate.read(reader), pipeline)
            except ScanReadError as error:
                lines.append(candidate.status("skipped", reason=error.reason))
                continue
            values = maps.values
            if not values.size:
                lines.append(candidate.status("skipped", reason="every slice holds a lesion"))
                continue
            scores[candidate.id] = top_mean(values)
            lines.append(candidate.status("calibration", n_slices=int(maps.has_foreground.sum())))
            yield values, scores[candidate.id]

    reference = HealthyReference.from_scans(scored())
    warn_about_left_out(lines)
    return reference, lines, scores
