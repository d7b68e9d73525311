"""From one prepared scan to its anomaly map, through the fitted slice pipeline."""

from __future__ import annotations

import math
import pickle
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import cloudpickle
import numpy as np
from joblib import Parallel, delayed

from skmimood.exceptions import warn
from skmimood.maps.conformal import ScoreHistogram, average_precision_of_counts
from skmimood.maps.healing import blend
from skmimood.maps.volumes import cluster_mass, filter_across
from skmimood.nifti import make_image
from skmimood.preprocessing import GridPlan, Plane
from skmimood.preprocessing.channels import first_channel, with_channels
from skmimood.preprocessing.heads import have_heads
from skmimood.scans.cohort import PreparedScan
from skmimood.scans.results import Gallery

if TYPE_CHECKING:
    from nibabel import Nifti1Image
    from sklearn.pipeline import Pipeline


R = TypeVar("R")

_CHUNK = 16  # slices that go through the pipeline together: bounds memory, changes no result
_TOP_SHARE = 0.01
_GALLERY_SIZE = 4
_HEADLESS_SHARE = 1e-3  # of the foreground that may lie in slices without a head: the ends of any brain


@dataclass(frozen=True, eq=False)
class ScanMaps:
    """The anomaly map of one scan, on its own grid and on the network's.

    ``anomaly`` (X, Y, Z) float32 is 0 outside ``scored`` (bool), the foreground without slices of known lesions.
    ``images``, ``restored`` and ``maps`` (n, H, W) float32 are all slices, of several modalities the first two (n, C,
    H, W); the last two are 0 in slices that do not hold foreground, as ``has_foreground`` (n,) says. ``plan`` brings
    slices back to the scan's grid, ``voxel_ml`` is the volume of a pixel of theirs. ``flags`` are remarks.
    """

    anomaly: np.ndarray
    scored: np.ndarray
    images: np.ndarray
    restored: np.ndarray
    maps: np.ndarray
    has_foreground: np.ndarray
    plan: GridPlan
    voxel_ml: float
    flags: tuple[str, ...] = ()

    @property
    def values(self) -> np.ndarray:
        """Map values of the scored voxels, shape (n_voxels,) float32."""
        return self.anomaly[self.scored]

    def mass(self) -> Callable[[float], float]:
        """Return the `cluster_mass` as a function of the threshold, which holds nothing but the maps."""
        return partial(cluster_mass, self.maps, voxel_ml=self.voxel_ml)

    def gallery(self, indices: np.ndarray, pixel_threshold: float) -> Gallery:
        """Return the slices at ``indices``, healed as `draw_healed` heals the scan; the first of several modalities."""
        images, maps = first_channel(self.images[indices]), self.maps[indices]
        healed = blend(images, first_channel(self.restored[indices]), maps, pixel_threshold)
        profile = np.asarray([top_mean(part) for part in self.maps], dtype=np.float32)
        return Gallery(images, healed, maps, maps > pixel_threshold, indices, profile)

    def most_anomalous(self) -> np.ndarray:
        """Return the indices of the most anomalous slices."""
        candidates = np.flatnonzero(self.has_foreground)
        scores = np.asarray([top_mean(self.maps[index]) for index in candidates])
        return candidates[np.argsort(-scores, kind="stable")[:_GALLERY_SIZE]]


@dataclass(frozen=True, eq=False)
class Frame:
    """The network's view: ``plane`` of the slices, pixel ``spacing`` in mm, ``size`` (height, width) in pixels."""

    plane: Plane
    spacing: float
    size: tuple[int, int]

    def remarks(self, extent: tuple[float, float]) -> tuple[str, ...]:
        """Say so if a foreground of ``extent`` (height, width) in mm is cropped."""
        height, width = extent
        remark = (
            f"foreground of {height:.0f} x {width:.0f} mm is larger than the frame; the map is 0 outside it"
        )
        return (remark,) if self.crops(extent) else ()

    def crops(self, extent: tuple[float, float]) -> bool:
        """Tell whether a foreground of ``extent`` (height, width) in mm reaches beyond the frame."""
        return any(mm > n * self.spacing * (1 + 1e-6) for mm, n in zip(extent, self.size, strict=True))

    def healthy_slices(self, prepared: PreparedScan, min_foreground: float) -> np.ndarray:
        """Slices without lesions whose frame the foreground fills to some share, float32.

        They are (n, H, W) or, of several modalities, (n, C, H, W).
        """
        plan = self.plan(prepared)
        shares = plan.forward(_without_lesions(prepared, plan), order=0).mean(axis=(1, 2))
        return _slices(prepared, plan)[(shares >= min_foreground) & (shares > 0)]

    def map(self, prepared: PreparedScan, pipeline: Pipeline, slice_smoothing: float) -> ScanMaps:
        """Run the slices of a scan that hold foreground through a fitted pipeline, and smooth across them in mm."""
        plan = self.plan(prepared)
        scored = _without_lesions(prepared, plan)
        inside = plan.forward(scored, order=0) > 0.5
        has_foreground: np.ndarray = np.any(inside, axis=(1, 2))
        images = _slices(prepared, plan)
        maps, restored = np.zeros(inside.shape, np.float32), np.zeros_like(images)
        places = np.flatnonzero(has_foreground)
        for start in range(0, len(places), _CHUNK):
            chunk = places[start : start + _CHUNK]
            slices = pipeline[:-1].transform(images[chunk]) if len(pipeline) > 1 else images[chunk]
            maps[chunk], restored[chunk] = pipeline[-1].map_and_restore(slices)
        headless = _headless(images, maps, has_foreground)
        maps = filter_across(maps, plan.slice_thickness, slice_smoothing, has_foreground & ~headless)
        # The native map is cut to the foreground there: cut on this grid, it would fade out along the edge.
        anomaly = plan.inverse(maps)
        anomaly[~scored] = 0.0
        maps[~inside] = 0.0
        flags = _remarks_on_headless(headless, inside)
        voxel_ml = self.spacing**2 * plan.slice_thickness / 1000
        return ScanMaps(anomaly, scored, images, restored, maps, has_foreground, plan, voxel_ml, flags)

    def plan(self, prepared: PreparedScan) -> GridPlan:
        """Lay the frame over a scan, centred on its foreground."""
        return GridPlan.for_scan(
            prepared.scan, prepared.foreground, plane=self.plane, spacing=self.spacing, size=self.size
        )


def _slices(prepared: PreparedScan, plan: GridPlan) -> np.ndarray:
    """Cut the slices of a scan, (n, H, W), or (n, C, H, W) of several modalities."""
    parts = [plan.forward(part.intensities) for part in (prepared, *prepared.others)]
    return np.stack(parts, axis=1) if prepared.others else parts[0]


def draw_scan(prepared: PreparedScan) -> Nifti1Image:
    """Return the scan as an image, with its window as display range."""
    image = make_image(prepared.scan.data, prepared.scan)
    image.header["cal_min"], image.header["cal_max"] = prepared.window
    return image


def draw_healed(prepared: PreparedScan, maps: ScanMaps, pixel_threshold: float, modality: int) -> Nifti1Image:
    """Draw the healed scan of a modality, counted from 0, on its own grid; see `ScanResult.healed`."""
    part, foreground = (prepared, *prepared.others)[modality], prepared.foreground
    scan, (low, high) = part.scan, part.window
    slices = with_channels(maps.restored)[:, modality]
    restored = low + (high - low) * maps.plan.inverse(slices)
    healed = blend(scan.data, restored, maps.anomaly, pixel_threshold)
    return make_image(np.where(foreground & maps.plan.reach(maps.has_foreground), healed, scan.data), scan)


def average_precision(
    scans: Iterable[PreparedScan], frame: Frame, pipeline: Pipeline, slice_smoothing: float
) -> float:
    """Return the average precision over the voxels of all scans together; NaN, with a warning, if none has a lesion."""
    healthy, diseased = ScoreHistogram(), ScoreHistogram()
    for prepared in scans:
        truth = prepared.lesions
        if truth is None:
            truth = np.zeros(prepared.foreground.shape, dtype=bool)
        if prepared.scan.warnings:
            warn(f"{prepared.scan.id}: {'; '.join(prepared.scan.warnings)}.")
        anomaly = frame.map(replace(prepared, lesions=None), pipeline, slice_smoothing).anomaly
        diseased.add(anomaly[truth])
        healthy.add(anomaly[~truth])
    return average_precision_of_counts(diseased, healthy)


def top_mean(values: np.ndarray) -> float:
    """Mean of the highest 1 % of the values, of at least one."""
    flat = values.reshape(-1)
    n_top = max(1, math.ceil(_TOP_SHARE * flat.size))
    return float(np.partition(flat, flat.size - n_top)[flat.size - n_top :].mean(dtype=np.float64))


def _headless(images: np.ndarray, maps: np.ndarray, has_foreground: np.ndarray) -> np.ndarray:
    """Tell which slices with foreground have a map of 0 since they show no head, shape (n,)."""
    headless = has_foreground & ~np.any(maps, axis=(1, 2))
    if headless.any():
        headless[headless] = ~have_heads(images[headless])
    return headless


def _remarks_on_headless(headless: np.ndarray, inside: np.ndarray) -> tuple[str, ...]:
    """Say so if slices that show no head hold more than a trace of the foreground ``inside`` the frame."""
    if inside[headless].sum() <= _HEADLESS_SHARE * inside.sum():
        return ()
    return (f"{headless.sum()} slices with foreground show no head (too dim or small); their map is 0",)


def _without_lesions(prepared: PreparedScan, plan: GridPlan) -> np.ndarray:
    if prepared.lesions is None:
        return prepared.foreground
    has_lesion: np.ndarray = np.any(prepared.lesions, axis=plan.axes[1:], keepdims=True)
    return prepared.foreground & ~has_lesion


def map_in_workers(work: Callable[..., R], tasks: Iterable[tuple], n_jobs: int | None) -> Iterator[R]:
    """Yield ``work(*task)`` for each task, in order, from joblib's workers, each of which unpickles ``work`` once.

    It travels as an array, which loky maps into its workers' memory, and dask sends to each worker once.
    """
    pickled = uuid.uuid4().hex, np.frombuffer(cloudpickle.dumps(work), np.uint8)
    calls = (delayed(_unpickle_and_call)(*pickled, task) for task in tasks)
    results: Iterator[R] = Parallel(n_jobs, return_as="generator", batch_size=1, pre_dispatch="n_jobs")(calls)
    return results


def _unpickle_and_call(key: str, pickled: np.ndarray, task: tuple) -> Any:
    work = _unpickled.get(key) or pickle.loads(pickled.data)
    if key not in _unpickled:
        _unpickled.clear()
        _unpickled[key] = work
    return work(*task)


_unpickled: dict[str, Callable] = {}  # in a worker, the last that it was sent
