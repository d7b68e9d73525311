"""Phantom volumes written as files, laid out as public data sets are."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from skmimood import nifti
from skmimood.datasets.phantom import (
    Recipe,
    check_count,
    check_kinds,
    check_modality,
    check_size,
    seed_sequence,
)
from skmimood.exceptions import InputError, ScanWriteError
from skmimood.runtime.paths import expand

_SCALE = 1000  # stored int16 value of intensity 1


@dataclass(frozen=True)
class PhantomDataset:
    """The files that `write_phantom_dataset` wrote, in the order of the subjects.

    Attributes
    ----------
    healthy : tuple of Path
        Scans without lesions.
    scans, masks : tuple of Path
        Scans with lesions, and the lesion mask of each.
    brain_masks : tuple of Path
        Brain masks of all scans, healthy ones first; empty for layouts without them.
    splits : Path or None
        Table with the columns subject and split, for layouts that have one.
    """

    healthy: tuple[Path, ...]
    scans: tuple[Path, ...]
    masks: tuple[Path, ...]
    brain_masks: tuple[Path, ...]
    splits: Path | None


@dataclass(frozen=True)
class _Layout:
    """How a public data set names its files.

    In `subject`, ``{i}`` is the number of the subject; `folder` may contain ``{subject}`` and ``{group}``,
    which is "healthy" or "patients". Patients are numbered from `first_patient`, or on from the healthy
    subjects if None. `scan`, `mask` and `brain` are names without `extension`, where ``{part}`` is the modality
    as `parts` calls it.
    """

    modality: str
    subject: str
    folder: str
    first_healthy: int = 0
    first_patient: int | None = None
    parts: Mapping[str, str] | None = None
    scan: str = "{subject}_{part}"
    mask: str = "{subject}_seg"
    brain: str = "{subject}_brainmask"
    extension: str = ".nii.gz"
    skull: bool = False
    brain_mask: bool = False
    empty_masks: bool = False
    splits: bool = False


_UPPER = {"t1": "T1", "t2": "T2", "flair": "FLAIR"}

_LAYOUTS = {
    "flat": _Layout("t2", "sub-{i:03d}", "{group}", first_healthy=1, first_patient=101, parts=_UPPER),
    "brats": _Layout("t2", "BraTS2021_{i:05d}", "{subject}", empty_masks=True),
    "brats2020": _Layout(
        "t2", "BraTS20_Training_{i:03d}", "{subject}", first_healthy=1, extension=".nii", empty_masks=True
    ),
    "brats2023": _Layout(
        "t2",
        "BraTS-GLI-{i:05d}-000",
        "{subject}",
        parts={"t1": "t1n", "t2": "t2w", "flair": "t2f"},
        scan="{subject}-{part}",
        mask="{subject}-seg",
        empty_masks=True,
    ),
    "lgg": _Layout("flair", "TCGA_PH_{i:04d}", "{subject}", skull=True, empty_masks=True, splits=True),
    "ixi": _Layout(
        "t1", "IXI{i:03d}-Phantom-{i:04d}", "", parts=_UPPER, skull=True, brain_mask=True, splits=True
    ),
    "mslub": _Layout(
        "flair",
        "patient{i:02d}",
        "cross_sectional/coregistered/{subject}",
        first_healthy=1,
        parts={"t1": "T1W", "t2": "T2W", "flair": "FLAIR"},
        scan="{part}",
        mask="consensus_gt",
        brain="brainmask",
        skull=True,
        brain_mask=True,
        empty_masks=True,
    ),
}


def write_phantom_dataset(
    directory: str | os.PathLike,
    *,
    layout: str = "flat",
    n_healthy: int = 12,
    n_lesions: int = 5,
    size: int | tuple[int, int] = 96,
    n_slices: int = 24,
    modality: str | None = None,
    lesions: bool | str | Sequence[str] = True,
    random_state: int | np.random.RandomState | None = None,
) -> PhantomDataset:
    """Write phantom volumes as NIfTI files, as one of several public data sets lays its files out.

    =============== ========================================================================================
    layout          files
    =============== ========================================================================================
    ``"flat"``      ``healthy/sub-001_T2.nii.gz``; ``patients/sub-101_T2.nii.gz`` and ``_seg``
    ``"brats"``     ``BraTS2021_00000/BraTS2021_00000_t2.nii.gz`` and ``_seg`` (empty for healthy subjects)
    ``"brats2020"`` ``BraTS20_Training_001/BraTS20_Training_001_t2.nii`` and ``_seg`` (empty if healthy)
    ``"brats2023"`` ``BraTS-GLI-00000-000/BraTS-GLI-00000-000-t2w.nii.gz`` and ``-seg`` (empty if healthy)
    ``"lgg"``       ``TCGA_PH_0000/TCGA_PH_0000_flair.nii.gz`` and ``_seg`` (empty if healthy), with skull;
                    ``splits.csv`` with the healthy subjects as train, and the others as val and test in turn
    ``"ixi"``       ``IXI000-Phantom-0000_T1.nii.gz`` and ``_brainmask``, with skull, and ``_seg`` for patients;
                    ``splits.csv`` with the healthy subjects as train and the others as test
    ``"mslub"``     ``cross_sectional/coregistered/patient01/FLAIR.nii.gz``, ``consensus_gt`` (empty if healthy)
                    and ``brainmask``, with skull
    =============== ========================================================================================

    Parameters
    ----------
    directory : str or path
        Where to write; made if absent. Files that exist are never replaced.
    layout : {"flat", "brats", "brats2020", "brats2023", "lgg", "ixi", "mslub"}, default="flat"
        How folders and files are named.
    n_healthy, n_lesions : int, default=12 and 5
        Number of healthy subjects and of subjects with lesions; one of them may be 0.
    size : int or (int, int), default=96
        Height and width of the slices in pixels, at least 32.
    n_slices : int, default=24
        Number of axial slices, which together always cover the brain.
    modality : {"t2", "t1", "flair"}, optional
        Contrast, which is also in the file names; by default the one in the table above.
    lesions : bool, str or sequence of str, default=True
        Kinds of lesions, as in `make_brain_phantom`; not False.
    random_state : int, RandomState or None, default=None
        Seed. The same seed gives the same files.

    Returns
    -------
    PhantomDataset
        The paths.

    Raises
    ------
    InputError
        If an argument is out of its range.
    ScanWriteError
        If a file exists already, before anything is written, or cannot be written.
    MissingTemplateError
        If nilearn is not installed.

    Notes
    -----
    Voxels are int16 from 0 to about 1000 with RAS axes; the origin is the anterior commissure's level in
    the middle of the brain.
    """
    if layout not in _LAYOUTS:
        raise InputError(f"layout must be one of {', '.join(_LAYOUTS)}; got {layout!r}.")
    plan = _LAYOUTS[layout]
    modality = check_modality(plan.modality if modality is None else modality)
    recipe = Recipe(check_size(size), modality, check_count("n_slices", n_slices), plan.skull)
    n_healthy, n_lesions = check_count("n_healthy", n_healthy, 0), check_count("n_lesions", n_lesions, 0)
    kinds = check_kinds(lesions)
    if n_healthy + n_lesions == 0 or not kinds:
        raise InputError(
            f"There must be subjects and lesions to write; got n_healthy={n_healthy}, n_lesions={n_lesions}, "
            f"lesions={lesions!r}. For healthy subjects alone pass n_lesions=0."
        )
    seeds = seed_sequence(random_state)
    root = expand(directory)
    subjects = list(_subjects(root, plan, modality, n_healthy, n_lesions))
    splits = root / "splits.csv" if plan.splits else None
    _refuse_existing(subjects, splits)
    for i, (subject, seed) in enumerate(zip(subjects, seeds.spawn(len(subjects)), strict=True)):
        _write_subject(
            subject, recipe, kinds[(i - n_healthy) % len(kinds)] if subject.is_patient else None, seed
        )
    if splits is not None:
        splits.write_text(_split_table(subjects, layout))
    patients = [subject for subject in subjects if subject.is_patient]
    return PhantomDataset(
        healthy=tuple(subject.scan for subject in subjects if not subject.is_patient),
        scans=tuple(subject.scan for subject in patients),
        masks=tuple(subject.mask for subject in patients if subject.mask is not None),
        brain_masks=tuple(subject.brain_mask for subject in subjects if subject.brain_mask is not None),
        splits=splits,
    )


@dataclass(frozen=True)
class _Subject:
    """One subject and the files that it gets."""

    name: str
    is_patient: bool
    scan: Path
    mask: Path | None
    brain_mask: Path | None


def _subjects(root: Path, plan: _Layout, modality: str, n_healthy: int, n_lesions: int) -> Iterator[_Subject]:
    for i in range(n_healthy + n_lesions):
        is_patient = i >= n_healthy
        number = i + plan.first_healthy
        if is_patient and plan.first_patient is not None:
            number = i - n_healthy + max(plan.first_patient, n_healthy + plan.first_healthy)
        name = plan.subject.format(i=number)
        group = "patients" if is_patient else "healthy"
        folder = root / plan.folder.format(subject=name, group=group)
        part = plan.parts[modality] if plan.parts else modality
        scan, mask, brain_mask = (
            folder / (stem.format(subject=name, part=part) + plan.extension)
            for stem in (plan.scan, plan.mask, plan.brain)
        )
        yield _Subject(
            name=name,
            is_patient=is_patient,
            scan=scan,
            mask=mask if is_patient or plan.empty_masks else None,
            brain_mask=brain_mask if plan.brain_mask else None,
        )


def _refuse_existing(subjects: Sequence[_Subject], splits: Path | None) -> None:
    files = [file for subject in subjects for file in (subject.scan, subject.mask, subject.brain_mask)]
    for path in (*files, splits):
        if path is not None and os.path.lexists(path):
            raise ScanWriteError(
                f"{path.name} exists already. Choose an empty directory; nothing was written."
            )


def _write_subject(subject: _Subject, recipe: Recipe, kind: str | None, seed: np.random.SeedSequence) -> None:
    sample = recipe.make(kind, seed)
    try:
        subject.scan.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ScanWriteError(
            f"Cannot make the folder {subject.scan.parent.name!r}: {error.strerror}. Choose another one."
        ) from None
    _write_volume(np.rint(_SCALE * sample.image).astype(np.int16), recipe, subject.scan)
    if subject.mask is not None:
        _write_volume(sample.mask.astype(np.uint8), recipe, subject.mask)
    if subject.brain_mask is not None:
        _write_volume(sample.brain.astype(np.uint8), recipe, subject.brain_mask)


def _write_volume(slices: np.ndarray, recipe: Recipe, path: Path) -> None:
    """Write slices (D, H, W), whose rows run backwards, as a volume (X, Y, Z) with RAS axes."""
    image = nib.Nifti1Image(slices[:, ::-1].transpose(2, 1, 0), recipe.affine())
    image.header.set_xyzt_units("mm")
    image.set_qform(recipe.affine(), code=1)
    nifti.write_image(image, path)


def _split_table(subjects: Sequence[_Subject], layout: str) -> str:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["subject", "split"])
    n_patients = 0
    for subject in subjects:
        split = "train"
        if subject.is_patient:
            split = "val" if layout == "lgg" and n_patients % 2 == 0 else "test"
            n_patients += 1
        writer.writerow([subject.name, split])
    return table.getvalue()
