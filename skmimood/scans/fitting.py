"""What ``ScanDetector.fit`` does with its scans: pixel size, training slices, scores of the held-out ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn import config_context
from sklearn.base import clone
from sklearn.utils.validation import has_fit_parameter

from skmimood.exceptions import InputError, ScanReadError, listing, warn
from skmimood.maps.conformal import HealthyReference
from skmimood.nifti.names import file_name
from skmimood.pipeline import PRESET_IMAGE_SIZE, preset_of
from skmimood.preprocessing import Plane
from skmimood.runtime.progress import each
from skmimood.runtime.streams import shared_seed
from skmimood.scans import cohort
from skmimood.scans.cohort import Candidate, ScanReader, ScanStatus, warn_about_left_out
from skmimood.scans.domain import find_high_scores, learn_domain, warn_about_suspects
from skmimood.scans.mapping import Frame
from skmimood.scans.modalities import Modalities, n_modalities
from skmimood.scans.reference import HealthyScan, refer
from skmimood.scans.sources import ListedScan
from skmimood.scans.state import CLUSTER_MASS, SavedDetector, as_pair, inference_settings

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


_SLICES_OF_A_SCAN = 60
_MARGIN = 2  # pixels kept free around the largest training foreground


def expected_seconds(pipeline: Pipeline, n_scans: int) -> dict[str, float]:
    """Guess how long the stages of ``ScanDetector.fit`` take on one core at preset tiny; only their ratios matter."""
    n_slices = _SLICES_OF_A_SCAN * n_scans
    stages = {"reading": 0.1 * n_scans, "slicing": 0.2 * n_scans}
    for _, step in pipeline.steps:
        parameters = step.get_params()
        if "n_painted" in parameters:
            stages["moved copies"] = 0.005 * n_slices
            stages["painted copies"] = 0.002 * n_slices * parameters["n_painted"]
        if "training__max_iter" in parameters:
            stages[type(step).__name__] = 0.2 * parameters["training__max_iter"]
    return {**stages, "calibrating": 2.0 * min(max(9, n_scans // 6), max(1, n_scans // 2))}


class SliceReservoir:
    """A uniform random sample of at most ``capacity`` slices from a stream of unknown length, in one array.

    The sample is in the stream's order, so that a share at its end comes from the last scans only. ``rng`` draws which
    slices stay once the reservoir is full.
    """

    def __init__(self, capacity: int, size: tuple[int, ...], rng: np.random.Generator) -> None:
        self._slices = np.empty((capacity, *size), dtype=np.float32)
        self._arrivals = np.empty(capacity, dtype=np.int64)  # place in the stream of each slice kept
        self._rng = rng
        self._seen = 0

    def add(self, slices: np.ndarray) -> None:
        """Offer slices of shape (n, *size), each of which ends up in the sample with the same probability."""
        capacity = len(self._slices)
        for one in slices:
            place = self._seen if self._seen < capacity else int(self._rng.integers(self._seen + 1))
            if place < capacity:
                self._slices[place], self._arrivals[place] = one, self._seen
            self._seen += 1

    @property
    def slices(self) -> np.ndarray:
        """The sample in the order of arrival, shape (n, *size) float32."""
        sample, arrivals = self._slices[: self._seen], self._arrivals[: self._seen]
        order = np.argsort(arrivals)
        for row in range(sample.shape[1]):  # not all at once, which would take a second copy
            sample[:, row] = sample[order, row]
        arrivals.sort()
        return sample

    @property
    def places(self) -> np.ndarray:
        """Place in the stream of each of `slices`, shape (n,) int64, ascending."""
        return np.sort(self._arrivals[: self._seen])


def warn_about_size(pipeline: Pipeline, size: tuple[int, int]) -> None:
    """Warn if a pipeline is that of a preset which is made for slices of another ``size`` (height, width)."""
    preset = preset_of(pipeline)
    side = None if preset is None else PRESET_IMAGE_SIZE[preset]
    if side is not None and size != (side, side):
        warn(
            f"preset {preset!r} is made for slices of {side} x {side} pixels and size is {size[0]} x {size[1]}, so "
            f"that it may find less. Set size={side}, or take another preset."
        )


def fit_pipeline(pipeline: Pipeline, plane: Plane, slices: np.ndarray, groups: np.ndarray) -> Pipeline:
    """Fit a clone on slices, mirrored for training only where left and right are their two sides.

    Steps that ask for ``groups`` (n,) get them.
    """
    pipeline = clone(pipeline)
    if plane == "sagittal":
        flips = [name for name in pipeline.get_params() if name.endswith("__flip")]
        pipeline.set_params(**dict.fromkeys(flips, False))
    asking = [
        name for name, step in pipeline.steps if hasattr(step, "fit") and has_fit_parameter(step, "groups")
    ]
    with config_context(enable_metadata_routing=False):  # by which parameters are named otherwise
        return pipeline.fit(slices, **{f"{name}__groups": groups for name in asking})


def warn_about_learned(
    scans: Iterable[ListedScan], fit_status: Iterable[ScanStatus], *, by_name: bool
) -> None:
    """Warn about scans whose subjects, or with ``by_name`` whose names too, were learned from."""
    learned = set()
    for line in fit_status:
        if line.status == "used":  # a subject's name comes after that of the data set
            learned |= {line.id, line.group, line.group.rpartition("/")[2]} if by_name else {line.group}
    # Images without a file have no name to tell them by, unless they were given a group.
    named = [one for one in scans if file_name(one.source) is not None or one.group != one.id]
    if known := [
        one.id for one in named if not learned.isdisjoint({one.id, one.group} if by_name else {one.group})
    ]:
        warn(
            f"Scans of these names, or others of their subjects, were learned from, so they are not held out: "
            f"{listing(known)}. The thresholds will be too low; calibrate on subjects that took no part in fit. If "
            "these are other people of the same names, as in data of another site, tell them apart by groups."
        )


class FittingDetector(SavedDetector):
    """What ``ScanDetector.fit`` does with its scans."""

    def _begin(self) -> None:
        """Forget the last fit, of which a fit that fails must not leave half."""
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)
        self.plane_, self.mask_ = self.plane, self.mask

    def _learn(self, scans: Sequence[ListedScan]) -> None:
        self.n_modalities_ = n_modalities(scans[0].source)
        rng = np.random.default_rng(shared_seed(self.random_state))
        candidates, rejected = self._screen(scans)
        shares = self.calibration_fraction, self.scan_fpr
        training, held_out = cohort.split(candidates, len(rejected), *shares, rng)
        features = [{one.id: one.features for one in part} for part in (training, held_out)]
        domain, self.suspects_ = learn_domain(*features)
        self.__dict__.update(domain.attributes())
        height, width = as_pair(self.size)
        self.size_ = int(height), int(width)
        warn_about_size(self.pipeline, self.size_)
        self.spacing_ = self._choose_spacing(training)
        slices, groups, used = self._collect_slices(training, rng)
        self.pipeline_ = fit_pipeline(self.pipeline, self.plane, slices, groups)
        self.n_scans_, self.n_slices_ = sum(line.status == "used" for line in used), len(slices)
        del slices  # up to a gigabyte that the calibration can do without
        reference, calibrated, scores = self._refer(held_out)
        self.suspects_ |= find_high_scores(scores)
        warn_about_suspects(self.suspects_)
        lines = {line.id: line for line in (*rejected, *used, *calibrated)}
        self.fit_status_ = [lines[scan.id] for scan in scans]
        self._set_thresholds(reference, self.fpr, self.scan_fpr)

    def _choose_spacing(self, training: Sequence[Candidate]) -> float:
        """Return the pixel size that was given, or the smallest that crops no training foreground but of suspects."""
        size = self.size_
        if self.spacing is None:
            sound = [candidate for candidate in training if candidate.id not in self.suspects_] or training
            extents = np.asarray([candidate.features.extent for candidate in sound])
            return float((extents.max(axis=0) / (np.asarray(size) - _MARGIN)).max())
        frame = Frame(self.plane_, float(self.spacing), size)
        cropped = [candidate.id for candidate in training if frame.crops(candidate.features.extent)]
        if cropped:
            warn(
                f"{size[0]} x {size[1]} pixels of {frame.spacing:g} mm crop the foreground of {listing(cropped)}. "
                "Raise spacing or size, or leave spacing to be learned."
            )
        return frame.spacing

    def _collect_slices(
        self, training: Sequence[Candidate], rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, list[ScanStatus]]:
        """Return the slices to learn from, their groups, (n,) str, and what became of each scan.

        The slices are (n, H, W) or, of several modalities, (n, C, H, W), float32.
        """
        reader, frame, least = self._reader(), self._frame(), self.min_foreground
        n_most = min(self.max_slices, sum(max(one.line.shape) for one in training))
        channels = (self.n_modalities_,) if self.n_modalities_ > 1 else ()
        reservoir = SliceReservoir(n_most, (*channels, *frame.size), rng)
        lines = []
        for candidate in self._progress(training, "slicing"):
            try:
                slices = frame.healthy_slices(candidate.read(reader), least)
            except ScanReadError as error:  # it could be read a moment ago
                lines.append(candidate.status("skipped", error.reason))
                continue
            reservoir.add(slices)
            if len(slices):
                lines.append(candidate.status("used", n_slices=len(slices)))
            else:
                lines.append(candidate.status("skipped", "no slice without lesions has enough foreground"))
        if not len(reservoir.slices):
            raise InputError(
                "no slice of the scans to learn from is free of lesions and filled by foreground to "
                f"{least:.0%}. Lower min_foreground, or look at the scans."
            )
        warn_about_left_out(lines)
        groups = np.repeat([line.group for line in lines], [line.n_slices for line in lines])
        return reservoir.slices, groups[reservoir.places], lines

    def _refer(
        self, held_out: Sequence[Candidate]
    ) -> tuple[HealthyReference, list[ScanStatus], dict[str, float]]:
        """Score healthy scans that were not learned from.

        Return the reference, what became of each scan, and the score of each that could be used.
        """
        lines: list[ScanStatus] = []
        scored: dict[str, HealthyScan] = {}
        reader, frame = self._reader(), self._frame()
        for candidate in self._progress(held_out, "calibrating"):
            try:
                maps = frame.map(candidate.read(reader), self.pipeline_, self.slice_smoothing)
            except ScanReadError as error:
                lines.append(candidate.status("skipped", error.reason))
                continue
            if not maps.values.size:
                lines.append(candidate.status("skipped", "every slice holds a lesion"))
                continue
            lines.append(candidate.status("calibration", n_slices=int(maps.has_foreground.sum())))
            scored[candidate.id] = HealthyScan.of(maps, candidate.line.group)
        reference, scores = refer(scored)
        warn_about_left_out(lines)
        return reference, lines, scores

    def _reader(self) -> ScanReader:
        foreground = self.mask, self.max_bytes, self.volume, self.max_invalid, self.plane_
        return ScanReader(*foreground, Modalities(self.n_modalities_, self.modality))

    def _frame(self) -> Frame:
        return Frame(self.plane_, self.spacing_, self.size_)

    def _progress(self, items: Sequence[Any], what: str) -> Iterable[Any]:
        return each(items, what, "scans", shown=self.verbose)

    def _screen(self, scans: Sequence[ListedScan]) -> tuple[list[cohort.Candidate], list[ScanStatus]]:
        return cohort.screen(self._progress(scans, "reading"), self._reader())

    def _set_thresholds(self, reference: HealthyReference, fpr: float, scan_fpr: float) -> None:
        self.reference_ = reference
        self.slice_smoothing_ = float(self.slice_smoothing)
        self.scan_statistic_ = CLUSTER_MASS
        self.calibrated_with_ = inference_settings(self.pipeline_)
        self.scan_threshold_ = reference.scan_threshold(scan_fpr)
        self.pixel_threshold_ = reference.pixel_threshold(fpr)
