"""Which files are meant by a folder, a glob or a list, and how a scan is called."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.spatialimages import SpatialImage

from skmimood.exceptions import InputError

Source = str | os.PathLike | SpatialImage

EXTENSIONS = (".nii.gz", ".nii")


def find_scans(
    X: Source | Iterable[Source], *, suffix: str | None = None, exclude: str | Sequence[str] = ()
) -> list[Source]:
    """List the scans meant by a folder, a glob, a path, an image or a list of those.

    Parameters
    ----------
    X : str, path, nibabel image, or iterable of those
        Folders are searched recursively for ``.nii`` and ``.nii.gz``; names with a leading dot are ignored.
    suffix : str, optional
        Keep only files whose name, without extension, ends with this part: ``"T1"`` and ``"_T1"`` both keep
        ``sub_T1.nii.gz``. Case does not matter.
    exclude : str or sequence of str
        Drop files whose name ends with any of these parts.

    Returns
    -------
    list of Path or nibabel image
        In sorted order within each folder or glob.

    Raises
    ------
    InputError
        If a path does not exist, nothing was found, or two scans share one id.
    """
    if isinstance(X, (str, os.PathLike, SpatialImage)):
        entries: list[Any] = [X]
    elif isinstance(X, Iterable) and not isinstance(X, (np.ndarray, bytes)):
        entries = list(X)
    else:
        entries = [X]
    dropped = (exclude,) if isinstance(exclude, str) else tuple(exclude)
    found: list[Source] = []
    for entry in entries:
        if isinstance(entry, SpatialImage):
            found.append(entry)
        elif isinstance(entry, (str, os.PathLike)):
            found.extend(path for path in _expand(entry) if _is_wanted(scan_id(path), suffix, dropped))
        else:
            raise InputError(
                f"Scans must be paths or nibabel images; got {type(entry).__name__}. "
                "Wrap an array as nibabel.Nifti1Image(array, affine)."
            )
    if not found:
        raise InputError(_nothing_found(X, suffix, dropped))
    _refuse_shared_ids(found)
    return found


def scan_id(source: Source, index: int = 0) -> str:
    """Return the file name without ``.nii`` or ``.nii.gz``; ``"scan-000"`` for an image without a file."""
    name = file_name(source)
    if name is None:
        return f"scan-{index:03d}"
    extension = next((e for e in EXTENSIONS if name.lower().endswith(e)), "")
    return name[: len(name) - len(extension)]


def find_companion(source: Source, suffix: str) -> Path | None:
    """Find the mask that lies beside a scan.

    Parameters
    ----------
    source : str, path or nibabel image
        The scan; an image in memory without a file has no companion.
    suffix : str
        For ``sub_T1.nii.gz`` and ``"brainmask"``, first ``sub_T1_brainmask`` is looked for, then
        ``sub_brainmask``.

    Returns
    -------
    Path or None
        None if there is no such file.
    """
    path = source.get_filename() if isinstance(source, SpatialImage) else source
    if path is None:
        return None
    path = Path(path).expanduser()
    stem = scan_id(path)
    ending = suffix if suffix[:1] in "_-." else f"_{suffix}"
    stems = [stem, stem.rpartition("_")[0]] if "_" in stem else [stem]
    for candidate, extension in itertools.product(stems, EXTENSIONS):
        companion = path.with_name(f"{candidate}{ending}{extension}")
        if companion.name != path.name and os.path.isfile(companion):
            return companion
    return None


def file_name(source: Source) -> str | None:
    """Return the name of a scan's file without its folder; None for an image without a file."""
    path = source.get_filename() if isinstance(source, SpatialImage) else source
    return None if path is None else Path(path).name


def _expand(entry: str | os.PathLike) -> list[Path]:
    path = Path(entry).expanduser()
    if path.is_dir():
        return sorted(walk_images(path))
    if os.path.lexists(path):  # a broken link is listed too: its reading then says what is wrong with it
        return [path]
    if glob.has_magic(str(entry)):
        matches = sorted(glob.glob(str(path), recursive=True))
        return [file for match in matches for file in _expand_match(Path(match))]
    raise InputError(f"No such file or folder: {os.fspath(entry)!r}. Check the path.")


def _expand_match(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(walk_images(path))
    return [path] if _is_scan_name(path.name) else []


def walk_images(folder: Path) -> Iterator[Path]:
    """Yield the ``.nii`` and ``.nii.gz`` files under a folder, in no order, without names with a leading dot."""

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
            yield from (Path(directory, name) for name in files if _is_scan_name(name))
        seen.add(real)


def _is_scan_name(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def _is_wanted(stem: str, suffix: str | None, exclude: Sequence[str]) -> bool:
    return (suffix is None or _ends_with(stem, suffix)) and not any(_ends_with(stem, e) for e in exclude)


def _ends_with(stem: str, part: str) -> bool:
    part, stem = part.lstrip("_-.").lower(), stem.lower()
    return stem == part or stem.endswith(tuple(f"{separator}{part}" for separator in "_-."))


def _nothing_found(X: Any, suffix: str | None, exclude: Sequence[str]) -> str:
    where = f" under {os.fspath(X)!r}" if isinstance(X, (str, os.PathLike)) else " in the list"
    kept = "" if suffix is None else f" whose name ends in {suffix!r}"
    dropped = f", leaving out names that end in {', '.join(map(repr, exclude))}" if exclude else ""
    return f"No .nii or .nii.gz{where}{kept}{dropped}. Check the path and the suffix."


def _refuse_shared_ids(found: Sequence[Source]) -> None:
    first: dict[str, Source] = {}
    for index, source in enumerate(found):
        identity = scan_id(source, index)
        if identity in first:
            names = " and ".join(repr(_full_name(each)) for each in (first[identity], source))
            raise InputError(
                f"Two scans share the id {identity!r}: {names}. Rename or leave out one of them."
            )
        first[identity] = source


def _full_name(source: Source) -> str:
    path = source.get_filename() if isinstance(source, SpatialImage) else source
    return "image in memory" if path is None else os.fspath(path)
