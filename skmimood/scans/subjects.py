"""Whose scans they are: scans of one subject stay together in training, stopping and calibration."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from skmimood.datasets import read_splits
from skmimood.datasets.tables import read_pairs
from skmimood.exceptions import InputError
from skmimood.nifti import Source, file_stem, scan_ids, subject_of
from skmimood.nifti.names import as_text, file_path
from skmimood.runtime.paths import expand
from skmimood.scans.wording import warn
from skmimood.validation.images import check_groups

SPLITS = "splits.csv"


def groups_of(sources: Sequence[Source], groups: Any = None) -> list[str]:
    """Return the group of each scan: scans of one group are of one subject, or belong together otherwise.

    Parameters
    ----------
    sources : list of path or image
    groups : sequence of labels, optional
        One for each scan. By default the subject: as BIDS, HCP or FreeSurfer name it in the file's name or a folder
        above, else as the nearest ``splits.csv`` in a folder above lists it. A scan of which nothing is known is
        a group of its own.

    Raises
    ------
    InputError
        If there are more or fewer labels than scans, or one is missing.
    """
    if groups is not None:
        return [str(label) for label in check_groups(groups, len(sources))]
    listed = functools.lru_cache(maxsize=None)(_listed_in)
    return [
        subject_of(source) or _listed_subject(source, listed) or name
        for source, name in zip(sources, scan_ids(sources), strict=True)
    ]


def groups_in_table(sources: Sequence[Source], table: Path) -> list[str]:
    """Return the group of each scan as a table with the columns subject and group tells it, else as `groups_of` does.

    A scan belongs to the subject that its name, or the name of a folder above, starts with.

    Raises
    ------
    InputError
        If the table cannot be read, or lists none of the scans.
    """
    table = expand(table)
    if not table.is_file():
        raise InputError(f"There is no table {str(table)!r}. Pass one with the columns subject and group.")
    listed = dict(read_pairs(table, "subject", "group"))
    subjects = [_among_folders_above(source, listed) for source in sources]
    if not any(subjects):
        raise InputError(
            f"{table.name} lists none of the scans. Compare its column subject with the file names."
        )
    own = groups_of(sources)
    return [listed[subject] if subject else name for subject, name in zip(subjects, own, strict=True)]


def subject_among(path: Path, folder: Path, subjects: Collection[str]) -> str | None:
    """Return the subject that a scan's name, or the name of a folder between it and ``folder``, starts with."""
    inside = path.parent.relative_to(folder).parts if path.is_relative_to(folder) else ()
    for name in map(as_text, (file_stem(path), *reversed(inside))):
        # The longest first: "sub-1" must not take the scans of "sub-1_b".
        parts = [name[:end] for end in range(len(name), 0, -1) if end == len(name) or name[end] in "_-."]
        found = next((part for part in parts if part in subjects), None)
        if found is not None:
            return found
    return None


def _among_folders_above(source: Source, subjects: Collection[str]) -> str | None:
    path = file_path(source)
    return None if path is None else subject_among(path.absolute(), Path(path.absolute().anchor), subjects)


def _listed_subject(source: Source, listed: Callable[[Path], frozenset[str] | None]) -> str | None:
    path = file_path(source)
    if path is None:
        return None
    path = path.absolute()
    for folder in path.parents:
        subjects = listed(folder)
        if subjects is not None:
            return subject_among(path, folder, subjects)
    return None


def _listed_in(folder: Path) -> frozenset[str] | None:
    """Return the subjects of a folder's ``splits.csv``, None if it has none that can be read."""
    if not (folder / SPLITS).is_file():
        return None
    try:
        return frozenset(
            subject for subjects in read_splits(folder / SPLITS).values() for subject in subjects
        )
    except InputError as error:
        warn(f"Scans are not grouped by {SPLITS}: {error}")
        return None
