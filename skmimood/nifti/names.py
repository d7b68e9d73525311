"""How scans are called, and whose they are: by their files' names, and by the folders above where these do not tell."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nibabel.spatialimages import SpatialImage

from skmimood.exceptions import InputError
from skmimood.runtime.paths import expand

Source = str | os.PathLike | SpatialImage | tuple
"""A scan: its file, its image or, of several modalities, a tuple of these, with None for one that is missing."""

# Extensions of volumes, and what results on their grids are written as.
_WRITTEN_AS = {
    **dict.fromkeys((".nii.gz", ".nii"), ".nii.gz"),
    **dict.fromkeys((".mgz", ".mgh"), ".mgz"),
    **dict.fromkeys((".nrrd", ".nhdr"), ".nrrd"),
    **dict.fromkeys((".mha", ".mhd"), ".mha"),
}
EXTENSIONS = tuple(_WRITTEN_AS)
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
_WRITTEN_AS |= dict.fromkeys(PICTURES, ".tif")
RESULT_EXTENSIONS = tuple(dict.fromkeys(_WRITTEN_AS.values()))

_FORMATS = {  # that are not read, and what converts them
    **dict.fromkeys((".par", ".rec"), ("Philips", "dcm2niix")),
    **dict.fromkeys((".hdr", ".img"), ("Analyze", "nib-convert")),
    ".mnc": ("MINC", "mnc2nii"),
}
_PATIENT_OF_VISIT = r"^(BraTS-[A-Z]+-\d+)(?=-\d{3}(?!\d))"
_SUBJECT_IN_NAME = re.compile(rf"(?:^|(?<=[_.]))(sub-.+?)(?=_|\.|-ses-|$)|{_PATIENT_OF_VISIT}", re.IGNORECASE)
_SUBJECT_IN_FOLDER = re.compile(rf"(sub-[a-z0-9+]+)(?:_ses-[a-z0-9+]+)?$|{_PATIENT_OF_VISIT}", re.IGNORECASE)
# Where HCP and FreeSurfer put the files of a subject, whose folder is above, and all names that they give them.
_HCP_NAME = r"(_restore)?(_brain)?([._]\d(\.\d+)?)?(_brain)?(_(lesion|seg|mask|roi))?"
_FREESURFER_NAME = (
    r"T1|rawavg|orig(_nu)?|nu(_noneck)?|norm|brain(mask)?([._](finalsurfs|auto|edit|manedit))*"
    r"|(T2|FLAIR)([._](pre)?norm)?"
)
_LAYOUTS = {
    ("t1w",): re.compile(rf"T[12]w_acpc_dc2?{_HCP_NAME}", re.IGNORECASE),
    ("mninonlinear",): re.compile(rf"T[12]w{_HCP_NAME}", re.IGNORECASE),
    ("mri",): re.compile(_FREESURFER_NAME, re.IGNORECASE),
    ("orig", "mri"): re.compile(r"\d{3}|(T2|FLAIR)raw", re.IGNORECASE),
}


def file_name(source: Source) -> str | None:
    """Return the name of a scan's file without its folder; None for an image without a file."""
    path = file_path(source)
    return None if path is None else path.name


def check_source(source: Any) -> None:
    """Raise `InputError` unless ``source`` is a path, a nibabel image, or a tuple of these with perhaps None."""
    parts = present_parts(source)
    for part in parts or (None,):
        if not isinstance(part, str | os.PathLike | SpatialImage):
            raise InputError(
                f"Scans must be paths or nibabel images; got {type(source if part is None else part).__name__}. "
                "Wrap an array as nibabel.Nifti1Image(array, affine); of a table, pass the column of paths."
            )


def present_parts(source: Source) -> tuple[Any, ...]:
    """Return the files or images of a scan, one for each of its modalities that is not missing."""
    return tuple(part for part in source if part is not None) if isinstance(source, tuple) else (source,)


def in_any_folder(source: Source) -> Source:
    """Return a scan in files by paths that hold in any working folder."""
    if isinstance(source, tuple):
        return tuple(part and Path(part).absolute() for part in source)
    return Path(str(source)).absolute()


def file_path(source: Source) -> Path | None:
    """Return where a scan's file lies, of several the first, as given; None for an image without a file."""
    check_source(source)
    first = present_parts(source)[0]
    path = first.get_filename() if isinstance(first, SpatialImage) else first
    return None if path is None else expand(path)


def file_stem(path: str | os.PathLike) -> str:
    """Return the name of a file without its folder and without the extension of a volume or picture, in any case."""
    name = Path(path).name
    return name[: len(name) - len(_extension(name))]


def result_extension(source: Source) -> str:
    """Return the extension of the maps of a scan: its own format's, or ``.nii.gz`` where that cannot hold them."""
    return _WRITTEN_AS.get(_extension(file_name(source) or ""), ".nii.gz")


def _extension(name: str) -> str:
    return next((each for each in _WRITTEN_AS if name.lower().endswith(each)), "")


def conversion(name: str) -> str | None:
    """Say how an image of another format, by its ending, becomes NIfTI; None if it has no such ending."""
    kind, tool = _FORMATS.get(Path(name).suffix.lower(), (None, None))
    return kind and f"{kind} images cannot be read. Convert them to .nii.gz, with {tool} for instance."


def as_text(name: str) -> str:
    """Return a file's name as the text that its bytes are in UTF-8, in any locale.

    Accents are joined to their letters (NFC). Bytes that are no UTF-8 stay as Python's surrogates.
    """
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "surrogateescape"))


def scan_id(source: Source, index: int = 0) -> str:
    """Return what one scan is called: its file's name without extension.

    In the layouts of HCP and FreeSurfer, which give each subject files of the same names, the subject's folder comes
    before it: ``"bert_001"`` for ``bert/mri/orig/001.nii.gz``. An image without a file is ``"scan-000"``, counted by
    ``index``. Of several scans, see `scan_ids`.
    """
    path = file_path(source)
    if path is None:
        return f"scan-{index:03d}"
    stem, folder = as_text(file_stem(path)), as_text(_folder_of_layout(path) or "")
    return stem if folder.lower() in stem.lower() else f"{folder}_{stem}"


def scan_ids(sources: Sequence[Source]) -> list[str]:
    """Return what scans are called when they are worked on together: each has a name of its own.

    Where several share what `scan_id` calls them, the folders that tell them apart are put before it:
    ``"patient01_FLAIR"`` and ``"patient02_FLAIR"`` for ``patient01/FLAIR.nii.gz`` and ``patient02/FLAIR.nii.gz``.
    The names do not depend on the order of the scans, and differ by more than upper and lower case.
    """
    names = [scan_id(source, index) for index, source in enumerate(sources)]
    paths = [path and Path(os.path.abspath(path)) for path in map(file_path, sources)]
    for places in _shared(names):
        for place, folders in zip(places, _telling_folders([paths[k] for k in places]), strict=True):
            names[place] = "_".join([*map(as_text, folders), names[place]])
    for places in _shared(names):  # a.nii beside a.nii.gz, or folders whose names join to one
        for place in places:
            path = paths[place]
            mark = hashlib.sha256(os.fsencode(path)).hexdigest()[:8] if path else "memory"
            names[place] = f"{names[place]}-{mark}"
    for places in _shared(names):  # one file given several times
        for number, place in enumerate(places[1:], start=2):
            names[place] = f"{names[place]}-{number}"
    return names


def subject_of(source: Source) -> str | None:
    """Return the subject of a scan by the names of its file and of the folders above; None if they do not tell.

    That is ``sub-XX`` of BIDS, the patient of a BraTS visit, or the subject's folder in HCP's and FreeSurfer's layouts.
    """
    path = file_path(source)
    if path is None:
        return None
    folders = (_SUBJECT_IN_FOLDER.match(folder.name) for folder in Path(os.path.abspath(path)).parents)
    in_folders = (match[match.lastindex or 0] for match in folders if match)
    return subject_in_name(file_stem(path)) or next(in_folders, None) or _folder_of_layout(path)


def subject_in_name(name: str) -> str | None:
    """Return the subject that a name begins with or holds, as `subject_of` does without folders."""
    match = _SUBJECT_IN_NAME.search(name)
    return match and match[match.lastindex or 0]


def entities(stem: str) -> list[str]:
    """Return the parts of a BIDS name that identify the scan, without those of its processing.

    ``["sub-01", "space-MNI"]`` for ``"sub-01_space-MNI_desc-preproc_T1w"``.
    """
    parts = stem.split("_")[:-1]
    return [part for part in parts if not part.lower().startswith(("desc-", "label-"))]


def _folder_of_layout(path: Path) -> str | None:
    """Return the subject's folder of a file that lies where HCP or FreeSurfer put it, under the name that they give it.

    Of several files that are mere numbers in one folder, as in ``mri/orig/001.nii.gz``, None: they may be patients.
    """
    stem, above = file_stem(path), Path(os.path.abspath(path)).parents
    for folders, shared in _LAYOUTS.items():
        is_there = tuple(folder.name.lower() for folder in above[: len(folders)]) == folders
        if is_there and shared.fullmatch(stem) and not (stem.isdigit() and _has_numbers_beside(path)):
            return above[len(folders)].name or None
    return None


def _has_numbers_beside(path: Path) -> bool:
    try:
        return any(file_stem(name).isdigit() for name in os.listdir(path.parent) if name != path.name)
    except OSError:
        return False


def _shared(names: Sequence[str]) -> list[list[int]]:
    """Return the places of each name that occurs more than once."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name.casefold(), []).append(place)
    return [found for found in places.values() if len(found) > 1]


def _telling_folders(paths: Sequence[Path | None]) -> list[list[str]]:
    """Return of each file the folders above, below the one that all lie in, that not all of them have."""
    above = [list(path.parent.parts) if path else [] for path in paths]
    levels = zip(*(parts for parts in above if parts), strict=False)
    n_common = len(list(itertools.takewhile(lambda level: len(set(level)) == 1, levels)))
    below = [parts[n_common:] for parts in above]
    everywhere = set(below[0]).intersection(*below)
    telling = [[part for part in parts if part not in everywhere] for parts in below]
    return telling if _n_different(telling) == _n_different(below) else below


def _n_different(lists: Iterable[Sequence[str]]) -> int:
    return len({tuple(map(str.casefold, parts)) for parts in lists})
