"""Which files are meant by a folder, a glob or a list, and which mask lies beside a scan."""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.spatialimages import SpatialImage

from skmimood.exceptions import InputError
from skmimood.nifti.bids import is_data_set, of_subjects
from skmimood.nifti.dicom import dicom_files, is_dicom
from skmimood.nifti.itk import ITK_EXTENSIONS, voxel_file
from skmimood.nifti.names import (
    EXTENSIONS,
    PICTURES,
    Source,
    as_text,
    check_source,
    conversion,
    entities,
    file_path,
    file_stem,
)
from skmimood.runtime.paths import expand

_NAMED = 8  # endings that a message names
_WITH_CONTRAST = re.compile(r"([^_]+)-(?:t1[nc]?|t2[wf]?|pd|flair)", re.IGNORECASE)  # BraTS 2023, IXI
_VERSION = re.compile(  # of a mask
    r"([_.-]?(\d+|v\d+|final|new|edited|corrected|manual|auto|deep|presurf))+$", re.IGNORECASE
)
LABEL_ENDINGS = (  # of the names of masks, segmentations and the like
    "mask", "brainmask", "brainmask_fs", "headmask", "brainextractionmask", "msk", "lesionmask", "tumormask",
    "seg", "segm", "segmentation", "dseg", "aseg", "pve", "pveseg", "probseg", "lesionseg", "tumorseg", "manualseg",
    "manualsegmentation", "segmentationlabel", "synthseg", "noccseg", "mixeltype", "lesionsmooth", "label", "labels",
    "labelmap", "aparc", "wmparc", "parc", "parcellation", "ribbon", "consensus", "annotation", "gt", "groundtruth",
    "truth", "tumor", "tumour", "lesion", "lesions", "roi", "rois", "prob", "wmh", "gtv", "atlas", "tissue", "tissues",
)  # fmt: skip
# Words that scans are called by too: ``sub-1_tumor_2`` is a mask, but ``tumor_001`` and ``patient_prob3`` are not.
_ALSO_OF_SCANS = frozenset(LABEL_ENDINGS[LABEL_ENDINGS.index("tumor") :])
RESULT_ENDINGS = ("anomaly", "pvalue", "healed", "statmap")
_CONTRASTS = re.compile(  # and other words that a name has besides the subject
    r"(?:^|(?<=[_.-]))(t[12](w|c|ce|gd|n|f|wks|star)?|flair|pdw?|mra|dwi|adc|swi|ct|mprage"
    r"|brain|raw|orig|norm|nu|preproc|acpc|dc2?|restore)(?=[_.-]|$)[_.-]*",
    re.IGNORECASE,
)


def find_scans(
    X: Source | Iterable[Source], *, suffix: str | None = None, exclude: str | Sequence[str] = ()
) -> list[Source]:
    """List the scans meant by a folder, a glob, a path, an image or a list of those.

    Parameters
    ----------
    X : str, path, nibabel image, or iterable of those
        Folders are searched recursively for volumes by their extensions; if there is none, for folders of DICOM files,
        each of which is a scan; if there is none either, for pictures. Of a BIDS data set only the folders of its
        subjects are searched. Names with a leading dot are ignored. A tuple in a list is one scan of several
        modalities.
    suffix : str, optional
        Keep only files whose name, without extension, ends with this part: ``"T1"`` and ``"_T1"`` both keep
        ``sub_T1.nii.gz``. Case does not matter.
    exclude : str or sequence of str
        Drop files whose name ends with any of these parts, or with that and its version: ``"_seg"`` drops
        ``sub_seg2`` and ``sub_seg_final`` too. Numbers after words such as tumor, which scans are called by too, are
        no versions: ``"_tumor"`` keeps ``tumor_001``.

    Returns
    -------
    list of Path or nibabel image
        In sorted order within each folder or glob.

    Raises
    ------
    InputError
        If a path does not exist or nothing was found.
    """
    dropped = (exclude,) if isinstance(exclude, str) else tuple(exclude)
    found: list[Source] = []
    for entry in as_entries(X):
        check_source(entry)
        if isinstance(entry, SpatialImage | tuple):
            found.append(entry)
        else:
            found.extend(path for path in _expand(entry) if is_wanted(file_stem(path), suffix, dropped))
    if not found:
        raise InputError(_nothing_found(X, suffix, dropped))
    return found


def as_entries(X: Any) -> list[Any]:
    """Return the entries of a list, array or series of paths and images; anything else is one entry itself."""
    is_one = isinstance(X, (str, os.PathLike, SpatialImage, bytes)) or hasattr(X, "columns")  # a data frame
    if is_one or not isinstance(X, Iterable):
        return [X]
    if isinstance(X, np.ndarray):
        return [X] if X.dtype.kind not in "OU" else list(X.ravel())
    return list(X)


def find_companion(source: Source, suffix: str) -> Path | None:
    """Find the mask that lies beside a scan.

    Parameters
    ----------
    source : str, path or nibabel image
        The scan; an image in memory without a file has no companion.
    suffix : str
        What the mask's name ends in. For ``sub_T1.nii.gz`` and ``"brainmask"``, first ``sub_T1_brainmask`` is looked
        for, then ``sub_brainmask``, then ``brainmask`` alone, if the folder holds scans of one subject only. For
        BIDS's ``sub-01_space-MNI_desc-preproc_T1w`` and ``"_desc-brain_mask"``, it is
        ``sub-01_space-MNI_desc-brain_mask``: all entities but ``desc`` and ``label`` must agree. For
        ``BraTS-GLI-00001-000-t2w`` and ``"seg"``, it is ``BraTS-GLI-00001-000-seg``. The order of a name's parts
        and upper or lower case do not matter where no file fits exactly.

    Returns
    -------
    Path or None
        None if there is no such file.
    """
    path = file_path(source)
    if path is None:
        return None
    *names, bare = _companion_names(path, suffix)
    if (found := _find_named(path, names)) or not _is_of_one_subject(path.parent, suffix):
        return found
    return _find_named(path, [bare])


def companion_names(path: Path, suffix: str) -> list[str]:
    """Return the names, without extension, that a mask beside a scan may have, the likeliest first."""
    names = _companion_names(path, suffix)
    return names if _is_of_one_subject(path.parent, suffix) else names[:-1]


def _companion_names(path: Path, suffix: str) -> list[str]:
    stem = file_stem(path)
    ending = suffix if suffix[:1] in "_-." else f"_{suffix}"
    stems = [stem, *([stem.rpartition("_")[0], "_".join(entities(stem))] if "_" in stem else [])]
    names = [f"{each}{ending}" for each in stems if each]
    if scanned := _WITH_CONTRAST.fullmatch(stem):
        names += [f"{scanned[1]}{mark}{ending.lstrip('_-.')}" for mark in "-_"]
    return [*dict.fromkeys(names), ending.lstrip("_-.")]


def _is_of_one_subject(folder: Path, suffix: str) -> bool:
    """Tell whether the names of all scans in a folder, which do not end in `suffix`, differ in contrasts only."""
    stems = (file_stem(name) for name in _names_of_scans(folder))
    scans = (stem for stem in stems if is_wanted(stem, None, (suffix, *LABEL_ENDINGS, *RESULT_ENDINGS)))
    subjects = (_CONTRASTS.sub("", stem).strip("_.-") for stem in scans)
    first = next(subjects, None)
    return all(subject == first for subject in subjects)


def _find_named(path: Path, names: Sequence[str]) -> Path | None:
    """Return the image beside ``path`` of the first of ``names`` that is there, exactly or with the same parts."""
    extensions = PICTURES if _is_picture_name(path.name) else EXTENSIONS
    for name, extension in itertools.product(names, extensions):
        companion = path.with_name(name + extension)
        if companion.name != path.name and os.path.isfile(companion):
            return companion
    beside = sorted(set(_names_of_scans(path.parent)) - {path.name}, reverse=True)
    present = {_parts(file_stem(name)): path.with_name(name) for name in beside}
    found = (present.get(_parts(name)) for name in names)
    return next((each for each in found if each is not None and os.path.isfile(each)), None)


def _names_of_scans(folder: Path) -> list[str]:
    try:
        return list(filter(_is_scan_name, os.listdir(folder)))
    except OSError:
        return []


def _parts(name: str) -> frozenset[str]:
    return frozenset(as_text(name).casefold().split("_"))


def _expand(entry: str | os.PathLike) -> list[Path]:
    path = expand(entry)
    if path.is_dir():
        found = sorted(walk_images(path)) or sorted(_walk_series(path)) or sorted(_walk_pictures(path))
        return of_subjects(path, found) if is_data_set(path) else found
    if os.path.lexists(path):  # a broken link is listed too: reading it then raises an error
        is_of_series = not _is_scan_name(path.name) and is_dicom(path) and len(dicom_files(path.parent)) > 1
        return [path.parent if is_of_series else path]
    if glob.has_magic(str(entry)):
        matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
        chosen = [match for match in matches if _is_scan_name(match.name) or is_dicom(match)]
        files = set(chosen or [match for match in matches if _is_picture_name(match.name)])
        wanted = (match for match in matches if match in files or match.is_dir())
        return list(dict.fromkeys(file for match in wanted for file in _expand(match)))
    raise InputError(f"No such file or folder: {os.fspath(entry)!r}. Check the path.")


def files_of(scan: Path) -> list[Path]:
    """Return the files that a scan is read from: all of a DICOM series, and what a header alone names as its voxels."""
    if scan.is_dir():
        return dicom_files(scan)
    voxels = voxel_file(scan) if scan.suffix.lower() in ITK_EXTENSIONS else None
    return [scan] if voxels is None or not voxels.is_file() else [scan, voxels]


def walk_images(folder: Path) -> Iterator[Path]:
    """Yield the files of volumes under a folder, in no order, without names with a leading dot."""
    return (directory / name for directory, names in _walk(folder) for name in names if _is_scan_name(name))


def _walk_series(folder: Path) -> Iterator[Path]:
    """Yield a folder and those below it that hold DICOM files."""
    return (
        directory for directory, names in _walk(folder) if any(is_dicom(directory / name) for name in names)
    )


def _walk_pictures(folder: Path) -> Iterator[Path]:
    return (
        directory / name for directory, names in _walk(folder) for name in names if _is_picture_name(name)
    )


def _walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield a folder and those below it, with the names of their files."""

    def refuse(error: OSError) -> None:
        raise InputError(
            f"Cannot list {error.filename!r}: {error.strerror}. Check its permissions."
        ) from None

    seen: set[str] = set()
    for directory, subfolders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(directory)
        # Links may lead back to a folder above.
        subfolders[:] = [] if real in seen else [name for name in subfolders if not name.startswith(".")]
        if real not in seen:
            yield Path(directory), files
        seen.add(real)


def _is_scan_name(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def _is_picture_name(name: str) -> bool:
    return name.lower().endswith(PICTURES) and not name.startswith(".")


def is_series(entry: Any) -> bool:
    """Tell whether an entry of a list names the folder of a DICOM series itself."""
    if not isinstance(entry, (str, os.PathLike)) or not (path := expand(entry)).is_dir():
        return False
    return bool(dicom_files(path)) and not any(_is_scan_name(name) for name in os.listdir(path))


def is_wanted(stem: str, suffix: str | None, exclude: Sequence[str]) -> bool:
    """Tell whether a file's name without extension ends with ``suffix`` and with none of ``exclude``."""
    name = _VERSION.sub("", stem)
    version = stem[len(name) :]
    is_numbered = version.lstrip("_.-").isdigit()

    def is_named(ending: str) -> bool:
        word = ending.lstrip("_.-").lower()
        may_be_scan = is_numbered and word in _ALSO_OF_SCANS and (name.lower() == word or version.isdigit())
        return _ends_with(stem, word) or (_ends_with(name, word) and not may_be_scan)

    return (suffix is None or _ends_with(stem, suffix)) and not any(map(is_named, exclude))


def _ends_with(stem: str, part: str) -> bool:
    part, stem = part.lstrip("_-.").lower(), stem.lower()
    return stem == part or stem.endswith(tuple(f"{separator}{part}" for separator in "_-.+"))


def _nothing_found(X: Any, suffix: str | None, exclude: Sequence[str]) -> str:
    is_path = isinstance(X, (str, os.PathLike))
    where = f" under {os.fspath(X)!r}" if is_path else " in the list"
    kept = "" if suffix is None else f" whose name ends in {suffix!r}"
    more = f" or {len(exclude) - _NAMED} other endings" if len(exclude) > _NAMED else ""
    named = ", ".join(map(repr, exclude[:_NAMED]))
    dropped = f", leaving out names that end in {named}{more}" if exclude else ""
    advice = (is_path and _advice_on_foreign(expand(X))) or "Check the path and the suffix."
    return f"No scan ({', '.join(EXTENSIONS)}, DICOM or pictures){where}{kept}{dropped}. {advice}"


def _advice_on_foreign(folder: Path) -> str | None:
    """Say how the first image under a folder that is of another format becomes NIfTI."""
    names = (name for _, _, files in os.walk(folder) for name in files)
    return next((f"It holds {name}: {advice}" for name in names if (advice := conversion(name))), None)
