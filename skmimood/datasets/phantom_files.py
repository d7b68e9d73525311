"""Phantom volumes written as files: a folder of healthy subjects and one of patients."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from skmimood.datasets.phantom import (
    Recipe,
    Sample,
    check_count,
    check_kinds,
    check_modality,
    check_size,
    seed_sequence,
)
from skmimood.exceptions import InputError, ScanWriteError
from skmimood.nifti import write_image
from skmimood.runtime.paths import expand

_SCALE = 1000  # stored int16 value of intensity 1
_FIRST_PATIENT = 101


@dataclass(frozen=True)
class PhantomDataset:
    """The files that `write_phantom_dataset` wrote, in the order of the subjects.

    Attributes
    ----------
    healthy : tuple of Path
        Scans without lesions.
    scans, masks : tuple of Path
        Scans with lesions, and the lesion mask of each.
    """

    healthy: tuple[Path, ...]
    scans: tuple[Path, ...]
    masks: tuple[Path, ...]


def write_phantom_dataset(
    directory: str | os.PathLike,
    *,
    n_healthy: int = 12,
    n_lesions: int = 5,
    size: int | tuple[int, int] = 96,
    n_slices: int = 24,
    modality: str = "t2",
    lesions: bool | str | Sequence[str] = True,
    random_state: int | np.random.RandomState | None = None,
) -> PhantomDataset:
    """Write phantom volumes as NIfTI files.

    Healthy subjects are ``healthy/sub-001_T2.nii.gz`` and on, patients ``patients/sub-101_T2.nii.gz`` and on, with
    ``sub-101_seg.nii.gz`` beside them. Voxels are int16 from 0 to about 1000 with RAS axes; the origin is in the
    middle of the brain, at the level of the anterior commissure.

    Parameters
    ----------
    directory : str or path
        Where to write; made if absent. Files that exist are never replaced.
    n_healthy, n_lesions : int, default=12 and 5
        Number of healthy subjects and of subjects with lesions; one of them may be 0.
    size : int or (int, int), default=96
        Height and width of the slices in pixels, at least 32.
    n_slices : int, default=24
        Number of axial slices, which together always cover the brain.
    modality : {"t2", "t1", "flair"}, default="t2"
        Contrast, which is also in the file names.
    lesions : bool, str or sequence of str, default=True
        Kinds of lesions, as in `make_brain_phantom`; not False.
    random_state : int, RandomState or None, default=None
        Seed. The same seed gives the same files.

    Raises
    ------
    InputError
        If an argument is out of its range.
    ScanWriteError
        If a file exists already, before anything is written, or cannot be written.
    MissingTemplateError
        If nilearn is not installed.
    """
    recipe = Recipe(
        check_size(size), check_modality(modality), check_count("n_slices", n_slices), skull=False
    )
    n_healthy, n_lesions = check_count("n_healthy", n_healthy, 0), check_count("n_lesions", n_lesions, 0)
    kinds = check_kinds(lesions)
    if n_healthy + n_lesions == 0 or not kinds:
        raise InputError(
            f"There must be subjects and lesions to write; got n_healthy={n_healthy}, n_lesions={n_lesions}, "
            f"lesions={lesions!r}. For healthy subjects alone pass n_lesions=0."
        )
    seeds = seed_sequence(random_state).spawn(n_healthy + n_lesions)
    root, ending = expand(directory), f"_{recipe.modality.upper()}.nii.gz"
    first = max(_FIRST_PATIENT, n_healthy + 1)
    healthy = [root / "healthy" / f"sub-{1 + i:03d}{ending}" for i in range(n_healthy)]
    scans = [root / "patients" / f"sub-{first + i:03d}{ending}" for i in range(n_lesions)]
    masks = [path.with_name(path.name.replace(ending, "_seg.nii.gz")) for path in scans]
    for path in (*healthy, *scans, *masks):
        if os.path.lexists(path):
            raise ScanWriteError(
                f"{path.name} exists already. Choose an empty directory; nothing was written."
            )
    for scan, seed in zip(healthy, seeds, strict=False):
        write_sample(recipe, recipe.make(None, seed), scan)
    for i, (scan, mask, seed) in enumerate(zip(scans, masks, seeds[n_healthy:], strict=True)):
        write_sample(recipe, recipe.make(kinds[i % len(kinds)], seed), scan, mask)
    return PhantomDataset(tuple(healthy), tuple(scans), tuple(masks))


def write_sample(
    recipe: Recipe, sample: Sample, scan: Path, mask: Path | None = None, brain_mask: Path | None = None
) -> None:
    """Write a phantom volume and, where paths are given, its lesion mask and brain mask."""
    try:
        scan.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ScanWriteError(
            f"Cannot make the folder {scan.parent.name!r}: {error.strerror}. Choose another one."
        ) from None
    intensities = np.rint(_SCALE * sample.image).astype(np.int16)
    volumes = (intensities, sample.mask.astype(np.uint8), sample.brain.astype(np.uint8))
    for slices, path in zip(volumes, (scan, mask, brain_mask), strict=True):
        if path is not None:  # rows run backwards, the volume's second axis runs forwards
            image = nib.Nifti1Image(slices[:, ::-1].transpose(2, 1, 0), recipe.affine())
            image.header.set_xyzt_units("mm")
            image.set_qform(recipe.affine(), code=1)
            write_image(image, path)
