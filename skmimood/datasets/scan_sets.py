"""A set of scans on disk with their masks: paths only, and how files are found and paired by their names."""

from __future__ import annotations

import dataclasses
import itertools
import numbers
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skmimood.exceptions import InputError, listing
from skmimood.nifti import EXTENSIONS, read_grid, walk_images
from skmimood.runtime.paths import expand


@dataclass(frozen=True)
class ScanSet:
    """Scans of one modality and their masks, as paths; nothing is read before it is needed.

    Attributes
    ----------
    name : str
        What the set is called.
    modality : str or None
        Contrast of the scans, such as ``"t2"``; None if it is not known.
    subjects : tuple of str
        Subject of each scan.
    scans : tuple of Path
        The scans.
    masks : tuple of Path or None
        Mask of what is anomalous in each scan. None means that there is no such file: a healthy scan in a
        healthy set, but an unknown truth in the validation sets of challenges, which publish no masks.
    brain_masks : tuple of Path or None
        Mask of each brain, None where there is none.
    licence : str
        Terms under which the set is published.
    labels : tuple of int or None, default=None
        Mask values that count as anomalous; None for every value above 0. They have to be applied when a mask is
        read, ``skmimood.nifti.read_labels(mask, scan, labels=scan_set.labels)``; `ScanDetector` ignores them.
    """

    name: str
    modality: str | None
    subjects: tuple[str, ...] = field(repr=False)
    scans: tuple[Path, ...] = field(repr=False)
    masks: tuple[Path | None, ...] = field(repr=False)
    brain_masks: tuple[Path | None, ...] = field(repr=False)
    licence: str
    labels: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.scans)

    def select(self, subjects: Iterable[str]) -> ScanSet:
        """Return the scans of some subjects, in the order of this set.

        Raises
        ------
        InputError
            If a subject has no scan in this set.
        """
        wanted = dict.fromkeys([subjects] if isinstance(subjects, str) else subjects)
        present = set(self.subjects)
        missing = [subject for subject in wanted if subject not in present]
        if missing:
            raise InputError(
                f"{self.name} has no scan of {listing(map(repr, missing))} among its {len(self)}. "
                "Compare the names with the files, or leave these subjects out."
            )
        is_kept = [subject in wanted for subject in self.subjects]
        names = ("subjects", "scans", "masks", "brain_masks")
        columns: dict[str, Any] = {
            name: tuple(itertools.compress(getattr(self, name), is_kept)) for name in names
        }
        return dataclasses.replace(self, **columns)

    def check(self) -> None:
        """Compare the headers of all scans and masks; no voxel is read.

        Raises
        ------
        InputError
            If a subject appears twice, or a mask does not lie on the grid of its scan: other shape, or a voxel
            more than a tenth of a voxel elsewhere.
        ScanReadError
            If a file is missing or its header is damaged.
        """
        refuse_repeats(self.subjects, self.scans)
        for subject, scan, *masks in zip(
            self.subjects, self.scans, self.masks, self.brain_masks, strict=True
        ):
            for mask in filter(None, masks):
                _check_grid(subject, scan, mask)


@dataclass(frozen=True)
class Origin:
    """What a public set is called, an example of its files, where it comes from and its licence, for messages."""

    name: str
    example: str
    source: str
    licence: str

    def error(self, fault: str) -> InputError:
        """Return an error that says which layout was expected."""
        return InputError(f"{fault}. Expected are files such as {self.example}. {self.source}")


def find_subjects(
    root: str | os.PathLike, origin: Origin, subject_of: Callable[[Path], str | None]
) -> list[tuple[str, Path]]:
    """Find the scans under a folder with the subject of each, sorted; `subject_of` a path is None if it is no scan."""
    folder = expand(root)
    if not folder.is_dir():
        raise origin.error(f"There is no folder {os.fspath(root)!r}")
    named = [(subject_of(path), path) for path in walk_images(folder)]
    found = sorted((subject, path) for subject, path in named if subject is not None)
    if not found:
        raise origin.error(f"No scan of {origin.name} is under {os.fspath(root)!r}")
    return found


def find_beside(scan: Path, *stems: str | None) -> Path | None:
    """Return the first image of these names, without extension, that lies in the folder of a scan."""
    for stem in filter(None, stems):
        for extension in EXTENSIONS:
            path = scan.with_name(stem + extension)
            if path != scan and path.is_file():
                return path
    return None


def pair(
    found: Sequence[tuple[str, Path]],
    origin: Origin,
    modality: str | None,
    mask_of: Callable[[str, Path], Path | None],
    brain_mask_of: Callable[[str, Path], Path | None] = lambda subject, scan: None,
    *,
    labels: Collection[int] | None = None,
    all_or_none: bool = False,
) -> ScanSet:
    """Make a set of scans and the masks that `mask_of` and `brain_mask_of` (subject, scan) find.

    With `all_or_none`, masks of some scans only are refused, where no mask is no sign of health.
    """
    subjects, scans = (tuple(column) for column in zip(*found, strict=True))
    refuse_repeats(subjects, scans)
    masks = tuple(mask_of(*each) for each in found)
    bare = [subject for subject, mask in zip(subjects, masks, strict=True) if mask is None]
    if all_or_none and 0 < len(bare) < len(masks):
        raise InputError(
            f"{origin.name} has no mask of {listing(map(repr, bare))}, but masks of the other scans. Get these "
            "masks, or keep scans without masks in another folder: a scan without a mask would count as healthy."
        )
    brain_masks = tuple(brain_mask_of(*each) for each in found)
    labels = None if labels is None else _check_labels(labels)
    return ScanSet(origin.name, modality, subjects, scans, masks, brain_masks, origin.licence, labels)


def refuse_repeats(subjects: Sequence[str], scans: Sequence[Path]) -> None:
    """Raise InputError if two scans are of one subject."""
    first: dict[str, Path] = {}
    for subject, scan in zip(subjects, scans, strict=True):
        if subject in first:
            raise InputError(
                f"There are two scans of subject {subject!r}: {str(first[subject])!r} and {str(scan)!r}. "
                "Leave only one of them there, or pass the folder of one."
            )
        first[subject] = scan


def _check_labels(labels: Collection[int]) -> tuple[int, ...]:
    values = tuple(labels) if isinstance(labels, Collection) else ()
    if not values or any(not isinstance(value, numbers.Integral) or value < 1 for value in values):
        raise InputError(f"labels must be mask values above 0, such as (1, 4); got {labels!r}.")
    return tuple(map(int, values))


def _check_grid(subject: str, scan: Path, mask: Path) -> None:
    # The subject is named too: in some sets, all subjects' files have the same names.
    grids = [read_grid(path, name=f"{path.name} of {subject}") for path in (scan, mask)]
    if not grids[1].matches(grids[0]):
        raise InputError(
            f"{mask.name} of {subject} does not lie on the grid of {scan.name} (shapes {grids[1].shape} and "
            f"{grids[0].shape}). Resample it onto the scan, or repair its affine."
        )
