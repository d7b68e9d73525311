"""The scans of a healthy set: read, scaled and measured, without copies, and divided for calibration."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from nibabel.orientations import apply_orientation, io_orientation

from skmimood.exceptions import InputError, ScanReadError, listing, warn
from skmimood.maps.conformal import scores_needed
from skmimood.nifti import Scan, Source, find_companion, read_mask, read_scan
from skmimood.nifti.files import companion_names
from skmimood.nifti.names import file_path, present_parts
from skmimood.preprocessing import (
    Plane,
    ct_brain_mask,
    ct_window,
    fill_holes,
    find_better_plane,
    foreground_mask,
    has_gaps,
    in_plane_extent,
    intensity_range,
    main_parts,
    scale_intensity,
    share_missing,
    voxel_sides,
)
from skmimood.scans.copies import Copies
from skmimood.scans.domain import ScanFeatures, intensity_histogram, tissue_layout
from skmimood.scans.modalities import ONE_MODALITY, Modalities
from skmimood.scans.sources import ListedScan

StatusName = Literal["used", "calibration", "skipped", "duplicate"]

BRAIN_MASK = "given by brain masks"
_CT_BRAIN = "ct-brain"
_FOUND = {
    "auto": "found from the intensities",
    "none": "every voxel",
    _CT_BRAIN: "the brain found inside the skull in CT",
}
_OR_WITHOUT_MASK = (
    "; or, if the skull is off already, let the brain be found from the intensities (--mask-suffix auto, or "
    'set_params(mask="auto") in Python). The model needs no refit.'
)
_MOST_FOREGROUND = 0.9  # of the volume; an upright head in the tightest box leaves more
_SMALL_HOLES = 0.005  # of the mask: so much lies in the folds of any brain


@dataclass(frozen=True)
class ScanStatus:
    """What became of one scan in ``fit``.

    Attributes
    ----------
    id : str
        What the scan is called: see :func:`skmimood.nifti.scan_ids`.
    status : {"used", "calibration", "skipped", "duplicate"}
        Learned from, held out for the thresholds, left out for a fault, or left out as a copy of another.
    reason : str
        Why it was left out; empty for the others.
    n_slices : int
        Number of slices that took part.
    shape, spacing : tuple of int, tuple of float
        Of the file's array, in voxels and in mm; empty if it could not be read.
    group : str
        Whose scan it is: see :func:`skmimood.scans.subjects.groups_of`. Empty in old models.
    foreground_ml, foreground_share : float
        Volume of the head or brain that was found, and its share of the scan's volume; 0 if there is none, or in
        old models.
    """

    id: str
    status: StatusName
    reason: str = ""
    n_slices: int = 0
    shape: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    group: str = ""
    foreground_ml: float = 0.0
    foreground_share: float = 0.0


@dataclass(frozen=True, eq=False)
class PreparedScan:
    """A scan as read, its foreground and known lesions (X, Y, Z) bool, and its intensities (X, Y, Z) in [0, 1].

    ``window`` are the scan's own intensities that became 0 and 1. Of a scan of several modalities this is the first,
    with the foreground of all, and ``others`` are the others.
    """

    scan: Scan
    foreground: np.ndarray
    intensities: np.ndarray
    window: tuple[float, float]
    lesions: np.ndarray | None = None
    others: tuple[PreparedScan, ...] = ()


@dataclass(frozen=True, eq=False)
class Candidate:
    """What is kept of a usable scan after screening: everything but its voxels; ``line`` has its id and group."""

    listed: ListedScan
    features: ScanFeatures
    warnings: tuple[str, ...]
    line: ScanStatus

    @property
    def id(self) -> str:
        """What the scan is called."""
        return self.line.id

    def status(self, status: StatusName, reason: str = "", n_slices: int = 0) -> ScanStatus:
        """Return this scan's line in the status table."""
        return replace(self.line, status=status, reason=reason, n_slices=n_slices)

    def read(self, reader: ScanReader) -> PreparedScan:
        """Read the voxels again."""
        return reader.read(self.listed)


@dataclass(frozen=True)
class ScanReader:
    """How scans are read and where their foreground comes from; see :class:`skmimood.ScanDetector`."""

    mask: str
    max_bytes: int
    volume: int | None
    max_invalid: float
    plane: Plane
    modalities: Modalities = ONE_MODALITY

    def read(self, listed: ListedScan) -> PreparedScan:
        """Read a scan with its foreground and its lesions; `ScanReadError` if it cannot be used."""
        self.modalities.check_complete(listed.id, listed.source)
        if not isinstance(sources := listed.source, tuple):
            return self._prepare(listed, self._scan(listed))
        if listed.brain_mask is None and kind_of_foreground(self.mask) == BRAIN_MASK:
            listed = replace(listed, brain_mask=self._mask_beside(listed))
        parts = [replace(listed, source=part) for part in sources]
        scans = [self._scan(part) for part in parts]
        self.modalities.check_grids(listed.id, scans)
        alone = replace(listed, lesions=None)
        others = [
            self._prepare(replace(alone, source=part.source), scan)
            for part, scan in zip(parts[1:], scans[1:], strict=True)
        ]
        return self._joined(self._prepare(parts[0], scans[0]), others)

    def _joined(self, first: PreparedScan, others: Sequence[PreparedScan]) -> PreparedScan:
        """Join the modalities of one scan: the foreground is what any shows, and what is invalid in one is in all."""
        parts = (first, *others)
        foreground = np.any([part.foreground for part in parts], axis=0)
        invalid = [part.scan.invalid for part in parts if part.scan.invalid is not None]
        lost = np.any(invalid, axis=0) if invalid else None
        if lost is not None:
            foreground &= ~lost
        known, remarks = first.scan.warnings, []
        for place, part in enumerate(others, start=1):
            remarks += [
                f"{self.modalities.name(place)}: {one}" for one in part.scan.warnings if one not in known
            ]
        scan = replace(first.scan, invalid=lost, warnings=(*known, *remarks))
        return replace(first, scan=scan, foreground=foreground, others=tuple(others))

    def _prepare(self, listed: ListedScan, scan: Scan) -> PreparedScan:
        if scan.data.min() == scan.data.max():
            but = "" if scan.invalid is None else " but NaN and infinite ones"
            raise ScanReadError(
                scan.id, f"empty: every voxel{but} is {scan.data.flat[0]:g}. Leave this scan out."
            )
        foreground, remarks = self._foreground(listed, scan)
        if scan.invalid is not None:
            share = share_missing(foreground, scan.invalid)
            if share > self.max_invalid:
                raise ScanReadError(
                    scan.id,
                    f"has NaN or infinite values in {share:.2%} of the head (limit {self.max_invalid:.2%}). Repair "
                    "it, or raise max_invalid to take them as background.",
                )
            remarks += ("some of them lie in the head, where the map is NaN",) * (share > 0)
            foreground = foreground & ~scan.invalid
        if not foreground.any():
            raise ScanReadError(scan.id, "empty: no foreground was found. Leave it out or repair its mask.")
        lesions = None
        if listed.lesions is not None:
            lesions, more = read_mask(listed.lesions, scan, max_bytes=self.max_bytes)
            remarks += more
        if better := find_better_plane(scan, self.plane):
            thick = f"the thick axis lies in the {self.plane} slices, which are coarse along it; the {better} are not"
            remarks += (thick,)
        scan = replace(scan, warnings=(*scan.warnings, *remarks))
        is_ct = self.mask == _CT_BRAIN
        window = ct_window(scan.data) if is_ct else intensity_range(scan.data[foreground])
        is_stripped = is_ct or kind_of_foreground(self.mask, listed.brain_mask) == BRAIN_MASK
        intensities = scale_intensity(scan.data, foreground, window=window, strip=is_stripped)
        if not np.ptp(scan.data[foreground]) or not intensities.any():
            raise ScanReadError(scan.id, "empty: its foreground has no contrast. Leave this scan out.")
        return PreparedScan(scan, foreground, intensities, window, lesions)

    def voxels(self, listed: ListedScan) -> np.ndarray | None:
        """Read the voxels (X, Y, Z) of a scan's first modality once more; None if that is not possible."""
        with contextlib.suppress(ScanReadError):
            return self._scan(replace(listed, source=present_parts(listed.source)[0])).data
        return None

    def _scan(self, listed: ListedScan) -> Scan:
        return read_scan(
            listed.source, max_bytes=self.max_bytes, volume=self.volume, max_invalid=1.0, name=listed.id
        )

    def _foreground(self, listed: ListedScan, scan: Scan) -> tuple[np.ndarray, tuple[str, ...]]:
        if listed.brain_mask is None and self.mask == "auto":
            return _found(scan)
        if listed.brain_mask is None and self.mask == _CT_BRAIN:
            return ct_brain_mask(scan), ()
        if listed.brain_mask is None and self.mask == "none":
            return np.ones(scan.data.shape, dtype=bool), ()
        found = self._mask_beside(listed) if listed.brain_mask is None else listed.brain_mask
        mask, remarks = read_mask(found, scan, kind="brain", max_bytes=self.max_bytes)
        brain, repairs = _repaired(mask)
        return brain, remarks + repairs

    def _mask_beside(self, listed: ListedScan) -> Source:
        path = file_path(listed.source)
        if path is None:
            raise InputError(
                f'an image in memory has no file "{self.mask}" beside it. Hand its mask over as brain_mask or '
                f"brain_masks{_OR_WITHOUT_MASK}"
            )
        if companion := find_companion(path, self.mask):
            return companion
        names = companion_names(path, self.mask)
        raise ScanReadError(
            listed.id,
            f'no mask named "{self.mask}" lies beside it: there is no {" or ".join(names)} (.nii.gz or .nii). Put one '
            "there, name its ending (--mask-suffix, or set_params(mask=...) in Python), or hand it over as brain_mask"
            f"{_OR_WITHOUT_MASK}",
        )


def _found(scan: Scan) -> tuple[np.ndarray, tuple[str, ...]]:
    """Find the foreground by intensity, with a remark if it shows no background around it."""
    foreground = foreground_mask(scan.data)
    share = float(foreground.mean())
    remark = f"the foreground found fills {share:.0%} of the volume; use a brain mask if it is not all head"
    return foreground, (remark,) * (share > _MOST_FOREGROUND)


def kind_of_foreground(mask: str, brain_mask: Any = None) -> str:
    """Return where foregrounds come from, by a ``ScanDetector``'s ``mask`` and what was handed over beside it."""
    return _FOUND.get(mask, BRAIN_MASK) if brain_mask is None else BRAIN_MASK


def remarks_on_foreground(mask: str, brain_mask: Any, learned_mask: str) -> tuple[str, ...]:
    """Say so if the foreground of a scan comes from elsewhere than that of the training scans."""
    kind, learned = kind_of_foreground(mask, brain_mask), kind_of_foreground(learned_mask)
    remark = (
        f"the foreground is {kind} here and was {learned} in training; the map holds only if the skull is off in "
        "both, or on in both"
    )
    return (remark,) if kind != learned else ()


def _repaired(mask: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Leave out the islands of a brain mask and fill its holes; return it with remarks on what was not small."""
    main = main_parts(mask)
    whole = fill_holes(main)
    found = {
        "islands far from the main part of the brain mask were left out": (main != mask).any(),
        "holes in the brain mask were filled (left out by a lesion, or ventricles?)": whole.sum() - main.sum()
        > _SMALL_HOLES * main.sum(),
        "the brain mask is empty in planes between others; the map is 0 there": has_gaps(whole),
    }
    return whole, tuple(remark for remark, is_so in found.items() if is_so)


def screen(scans: Iterable[ListedScan], reader: ScanReader) -> tuple[list[Candidate], list[ScanStatus]]:
    """Look at every scan once; return those that can be used and lines on the others; warn of what is wrong or odd.

    Each scan is judged alone, but for copies, so nothing leaks from scans that are held out later.
    """
    usable: list[Candidate] = []
    rejected: list[ScanStatus] = []
    copies: Copies[ListedScan] = Copies(reader.voxels)
    for listed in scans:
        line = ScanStatus(listed.id, "skipped", group=listed.group)
        try:
            prepared = reader.read(listed)
            features = measure(prepared, reader.plane)
        except ScanReadError as error:
            rejected.append(replace(line, reason=error.reason))
            continue
        scan = prepared.scan
        spacing = tuple(round(float(step), 4) for step in scan.spacing)
        line = replace(line, shape=scan.shape, spacing=spacing)
        original = copies.find(listed, scan.data)
        if original is not None:
            reason = f"has the same voxels as {original.id}, turned, scaled or rounded perhaps"
            rejected.append(replace(line, status="duplicate", reason=reason))
        else:
            line = replace(line, foreground_ml=features.volume, foreground_share=features.share)
            usable.append(Candidate(listed, features, scan.warnings, line))
    warn_about_left_out(rejected)
    _warn_about_oddities(usable)
    return usable, rejected


def measure(prepared: PreparedScan, plane: Plane) -> ScanFeatures:
    """Measure a scan as a whole; of several modalities the intensities of the first."""
    voxel = abs(float(np.linalg.det(prepared.scan.affine_mm[:3, :3])))
    orientation = io_orientation(prepared.scan.affine)
    upright = [apply_orientation(part, orientation) for part in (prepared.intensities, prepared.foreground)]
    return ScanFeatures(
        intensity_histogram(prepared.intensities, prepared.foreground),
        float(prepared.foreground.sum()) * voxel / 1000.0,
        in_plane_extent(prepared.scan, prepared.foreground, plane),
        tissue_layout(*upright),
        float(prepared.foreground.mean()),
        voxel_sides(prepared.scan, plane),
    )


def split(
    candidates: Sequence[Candidate],
    n_rejected: int,
    calibration_fraction: float,
    scan_fpr: float,
    rng: np.random.Generator,
) -> tuple[list[Candidate], list[Candidate]]:
    """Draw the scans to learn from and the scans to hold out for calibration; both keep the given order.

    Whole groups are drawn, by names and seed, whatever the order of the scans. More than ``calibration_fraction`` are
    held out if a scan threshold at ``scan_fpr`` needs more, unless fewer than half would be left to learn from.
    """
    if len(candidates) < 3:
        raise InputError(
            "fit needs at least 3 different usable scans, 2 to learn from and 1 held out for the thresholds; "
            f"got {len(candidates)} of {len(candidates) + n_rejected}. Add healthy scans."
        )
    groups = list(dict.fromkeys(one.line.group for one in sorted(candidates, key=lambda one: one.id)))
    n = len(groups)
    if n < 3:
        raise InputError(
            "fit needs scans of at least 3 subjects, 2 to learn from and 1 held out for the thresholds; the "
            f"{len(candidates)} usable scans are of {n}: {listing(groups)}. Add scans of others, or tell by groups "
            "whose they are."
        )
    wanted, needed = max(1, round(calibration_fraction * n)), scores_needed(scan_fpr)
    n_held_out = min(max(wanted, needed) if 2 * needed <= n else wanted, n - 2)
    held_out = {groups[k] for k in rng.permutation(n)[:n_held_out]}
    learning = [one for one in candidates if one.line.group not in held_out]
    return learning, [one for one in candidates if one.line.group in held_out]


def warn_about_left_out(lines: Iterable[ScanStatus]) -> None:
    """Warn once about all scans that do not take part, with the reasons."""
    left_out = [f"{line.id} ({line.reason})" for line in lines if line.status in ("skipped", "duplicate")]
    if left_out:
        warn(f"Scans left out: {len(left_out)}: {listing(left_out)}")


def _warn_about_oddities(candidates: Iterable[Candidate]) -> None:
    remarks: dict[str, list[str]] = {}
    for candidate in candidates:
        for remark in candidate.warnings:
            remarks.setdefault(re.sub(r"^\d+ ", "some ", remark), []).append(candidate.id)
    if remarks:
        warn("; ".join(f"{remark}: {listing(ids)}" for remark, ids in remarks.items()))
