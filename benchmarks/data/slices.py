"""The slices that a benchmark trains and tests on: one compact file for all methods, made once from scans."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from scipy.ndimage import distance_transform_edt

from benchmarks import records
from skmimood.datasets.scan_sets import ScanSet
from skmimood.exceptions import InputError
from skmimood.nifti import Scan, read_labels, read_scan
from skmimood.preprocessing import (
    GridPlan,
    ct_brain_mask,
    ct_window,
    foreground_mask,
    in_plane_extent,
    scale_intensity,
)

MIN_TRAINING_SHARE = 0.05  # of the frame that the head fills in a slice to learn from
MIN_EVALUATED_SHARE = 0.15  # ... in a tumour-free slice to be evaluated
MAX_SLICES = {"train": 20_000, "val": 4_000, "test": 4_000}  # of more, each scan gives an even share
_MARGIN = 2  # pixels kept free around the largest training head, as in ScanDetector
_DEPTH = 13.0  # mm: what lies deeper in the head is its interior, beyond scalp and skull


@dataclass(frozen=True, eq=False)
class SliceSet:
    """Slices of one data set on the networks' grid, with all that is known about them; n slices of H x W pixels."""

    dataset: str
    images: np.ndarray  # (n, H, W), float32 in [0, 1], rounded to 1/255
    lesions: np.ndarray  # (n, H, W), bool
    head: np.ndarray  # (n, H, W), bool: the foreground
    region: np.ndarray  # (n, H, W), bool: its part that is evaluated alone besides all pixels
    patients: np.ndarray  # (n,), str
    splits: np.ndarray  # (n,): "train", "val" or "test"
    kinds: np.ndarray  # (n,): the kind of a planted lesion, or those of a haemorrhage in CT, else ""
    region_name: str  # "interior" (deeper in the head than 13 mm) or "brain"
    spacing: float  # pixel size in mm
    vanished: np.ndarray  # (n,), bool: the scan's own mask has a lesion here that has no pixel in ``lesions``
    index: np.ndarray  # (n,), int: place in the scan, from the feet to the head
    distance: np.ndarray  # (n,), float: mm from a slice to the next of its scan

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, chosen: Any) -> SliceSet:
        """Return the slices at an index array or a mask."""
        arrays: dict[str, Any] = {name: getattr(self, name)[chosen] for name in _array_names(self)}
        return replace(self, **arrays)

    @property
    def has_lesion(self) -> np.ndarray:
        """Which slices show a lesion, shape (n,)."""
        return np.any(self.lesions, axis=(1, 2))

    @property
    def is_healthy(self) -> np.ndarray:
        """Which slices have no lesion, neither on this grid nor on the scan's own voxels, shape (n,)."""
        return ~self.has_lesion & ~self.vanished

    def training(self) -> SliceSet:
        """Return the slices to fit on: of split train, without lesion."""
        return self[_is_training(self)]

    def evaluated(self, split: str) -> SliceSet:
        """Return the slices of ``split`` with lesions, and the healthy ones whose head fills enough of the frame."""
        return self[(self.splits == split) & _is_evaluated(self)]

    def tumour(self, split: str) -> SliceSet:
        """Return the slices of ``split`` with lesions."""
        return self[(self.splits == split) & self.has_lesion]

    def used(self, most: int) -> SliceSet:
        """Return the slices that are learned from or evaluated: all, or ``most`` evenly spread ones."""
        is_used = np.where(self.splits == "train", _is_training(self), _is_evaluated(self))
        chosen = np.flatnonzero(is_used)
        return self[chosen[np.linspace(0, len(chosen) - 1, min(most, len(chosen))).astype(int)]]

    def check(self) -> SliceSet:
        """Return the set; raise `InputError` where the protocol cannot be run on it."""
        twice = [name for name in np.unique(self.patients) if len({*self.splits[self.patients == name]}) > 1]
        if twice:
            raise InputError(
                f"{self.dataset}: {len(twice)} patient(s) are in more than one split, {twice[0]} for one. Give each "
                "patient one split in splits.csv; slices of one patient must never be on both sides."
            )
        if not _is_training(self).any():
            raise InputError(
                f"{self.dataset}: no slice to learn from: split 'train' has no slice without lesion whose head fills "
                f"{MIN_TRAINING_SHARE:.0%} of the frame. Add healthy scans to 'train'."
            )
        for split in ("val", "test"):
            in_split = self.splits == split
            if not (self.has_lesion | (self.kinds != ""))[in_split].any():
                raise InputError(
                    f"{self.dataset}: split {split!r} has no lesion, so nothing can be chosen or measured on it. Put "
                    "patients with lesion masks into it."
                )
        return self

    def fingerprint(self) -> str:
        """Return a digest of everything in the set."""
        return joblib.hash({name: np.ascontiguousarray(value) for name, value in vars(self).items()})

    def save(self, path: Path) -> None:
        """Write the set as one compressed file, at once."""
        with records.replacing(path) as file:
            np.savez_compressed(file, **vars(self) | {"images": _as_bytes(self.images)})

    @classmethod
    def load(cls, path: Path) -> SliceSet:
        """Read what `save` wrote; raise `InputError` if the file is something else."""
        try:
            with np.load(path, allow_pickle=False) as file:
                values: dict[str, Any] = {field.name: file[field.name] for field in fields(cls)}
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{path} does not hold slices ({error}). Write it anew: --slices FILE with --root DIR."
            ) from None
        values |= {name: values[name].item() for name in ("dataset", "region_name", "spacing")}
        return cls(**values | {"images": values["images"].astype(np.float32) / 255})


def rounded(images: np.ndarray) -> np.ndarray:
    """Round intensities in [0, 1] to 1/255, so that they can be kept as bytes."""
    return _as_bytes(images).astype(np.float32) / 255


def _as_bytes(images: np.ndarray) -> np.ndarray:
    return (images * 255).round().astype(np.uint8)


def _shares(slices: SliceSet) -> np.ndarray:
    return slices.head.mean((1, 2))


def _is_training(slices: SliceSet) -> np.ndarray:
    return (slices.splits == "train") & slices.is_healthy & (_shares(slices) > MIN_TRAINING_SHARE)


def _is_evaluated(slices: SliceSet) -> np.ndarray:
    return slices.has_lesion | (slices.is_healthy & (_shares(slices) > MIN_EVALUATED_SHARE))


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scan that has been read: foreground, intensities in [0, 1] and lesions, each (X, Y, Z)."""

    scan: Scan
    foreground: np.ndarray
    intensities: np.ndarray
    lesions: np.ndarray


def prepared(scans: ScanSet) -> Iterator[tuple[str, Prepared]]:
    """Read scan after scan with its masks; yield subject and scan.

    Brain masks strip the skull. Of head CT, the brain is found inside the skull and scaled by its window.
    """
    is_ct = scans.modality == "ct"
    columns = (scans.subjects, scans.scans, scans.masks, scans.brain_masks)
    for subject, path, mask, brain in zip(*columns, strict=True):
        scan = read_scan(path)
        if brain is not None:
            foreground = read_labels(brain, scan)
        else:
            foreground = ct_brain_mask(scan) if is_ct else foreground_mask(scan.data)
        if scan.invalid is not None:
            foreground &= ~scan.invalid
        lesions = np.zeros_like(foreground)
        if mask is not None:
            lesions = read_labels(mask, scan, labels=scans.labels)
        window = ct_window(scan.data) if is_ct else None
        intensities = scale_intensity(scan.data, foreground, window=window, strip=is_ct or brain is not None)
        yield subject, Prepared(scan, foreground, intensities, lesions)


def learn_spacing(training: ScanSet, size: int) -> float:
    """Return the smallest pixel size in mm with which no training head is cropped, as `ScanDetector` does."""
    extents = [in_plane_extent(one.scan, one.foreground) for _, one in prepared(training)]
    return float((np.max(extents, axis=0) / (size - _MARGIN)).max())


def slices_of(
    dataset: str, splits: Mapping[str, ScanSet], size: int, *, is_brain: bool,
    max_slices: Mapping[str, int] = MAX_SLICES, plant: Callable[[SliceSet, float, int], SliceSet] | None = None,
) -> SliceSet:  # fmt: skip
    """Read scans and take all their axial slices that are learned from or evaluated, of ``size`` pixels a side.

    ``is_brain`` says whether the foreground is the brain alone; then it is the region, else the head's interior.
    ``plant`` puts lesions into the slices of a held-out subject, given their distance in mm and the subject's number.
    """
    spacing = learn_spacing(splits["train"], size)
    parts = []
    for split, scans in splits.items():
        for number, (subject, one) in enumerate(prepared(scans)):
            slices = cut(dataset, subject, split, one, spacing, size, is_brain)
            if plant is not None and split != "train":
                parts.append(plant(slices, float(one.scan.spacing.max()), number))
            else:
                parts.append(slices.used(max(1, max_slices[split] // len(scans))))
    return join(parts)


def cut(
    dataset: str, subject: str, split: str, one: Prepared, spacing: float, size: int, is_brain: bool
) -> SliceSet:
    """Return all axial slices of a scan in a frame centred on its foreground."""
    plan = GridPlan.for_scan(one.scan, one.foreground, spacing=spacing, size=(size, size))
    head = plan.forward(one.foreground, order=0) > 0.5
    lesions = plan.forward(one.lesions.astype(np.float32)) > 0.5
    in_scan = np.broadcast_to(one.lesions.any(plan.axes[1:], keepdims=True), one.lesions.shape)
    vanished = np.any(plan.forward(in_scan, order=0), axis=(1, 2)) & ~np.any(lesions, axis=(1, 2))
    patients, splits, kinds = (np.full(len(head), name) for name in (subject, split, ""))
    region, region_name = (head, "brain") if is_brain else (interior(head, spacing), "interior")
    images = rounded(plan.forward(one.intensities))
    index, distance = np.arange(len(head)), np.full(len(head), plan.slice_thickness)
    return SliceSet(
        dataset,
        images,
        lesions,
        head,
        region,
        patients,
        splits,
        kinds,
        region_name,
        spacing,
        vanished,
        index,
        distance,
    )


def interior(head: np.ndarray, spacing: float) -> np.ndarray:
    """Return what lies deeper than 13 mm below the surface of heads (n, H, W), slice by slice."""
    around = np.pad(head, ((0, 0), (1, 1), (1, 1)))
    depth = np.stack([distance_transform_edt(one) for one in around])[:, 1:-1, 1:-1]
    return depth > _DEPTH / spacing


def join(parts: Sequence[SliceSet]) -> SliceSet:
    """Put slice sets of one data set behind one another."""
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(one, name) for one in parts]) for name in _array_names(parts[0])
    }
    return replace(parts[0], **joined)


def _array_names(slices: SliceSet) -> list[str]:
    return [name for name, value in vars(slices).items() if isinstance(value, np.ndarray)]
