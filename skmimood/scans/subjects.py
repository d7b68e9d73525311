"""Whose scans they are: scans of one subject stay together in training, stopping and calibration."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from skmimood.datasets import read_splits
from skmimood.datasets.tables import read_mapping
from skmimood.exceptions import InputError, warn
from skmimood.nifti import Source, bids, file_stem, scan_ids, subject_of
from skmimood.nifti.names import as_text, file_path, subject_in_name
from skmimood.runtime.paths import expand
from skmimood.validation.images import check_groups

SPLITS = "splits.csv"


def groups_of(sources: Sequence[Source], groups: Any = None) -> list[str]:
    """Return the group of each scan: scans of one group are of one subject, or belong together otherwise.

    Parameters
    ----------
    sources : list of path or image
    groups : sequence of labels, optional
        One for each scan. By default the subject: as the nearest ``splits.csv`` in a folder above lists it, else as
        BIDS, HCP or FreeSurfer name it in the file's name or a folder above. A scan of which nothing is known is a
        group of its own. A subject's name that occurs in several BIDS data sets is ``"<data set>/<name>"``.
    """
    if groups is not None:
        return [str(label) for label in check_groups(groups, len(sources))]
    listed = functools.lru_cache(maxsize=None)(_listed_in)
    is_data_set = functools.lru_cache(maxsize=None)(bids.is_data_set)
    paths = [path and path.absolute() for path in map(file_path, sources)]
    subjects = [
        (path and _listed_subject(path, listed)) or subject_of(source) or name
        for source, path, name in zip(sources, paths, scan_ids(sources), strict=True)
    ]
    # The uppermost, as the others may be of derivatives.
    data_sets = [next(filter(is_data_set, reversed(path.parents)), None) if path else None for path in paths]
    homes: dict[str, set[Path]] = {}
    for subject, data_set in zip(subjects, data_sets, strict=True):
        if data_set is not None:
            homes.setdefault(subject, set()).add(data_set)
    return [
        f"{data_set.relative_to(os.path.commonpath(homes[subject])).as_posix()}/{subject}"
        if data_set is not None and len(homes[subject]) > 1
        else subject
        for subject, data_set in zip(subjects, data_sets, strict=True)
    ]


def groups_in_table(sources: Sequence[Source], table: Path) -> list[str]:
    """Return the group of each scan from a table with the columns subject and group, else as `groups_of` does.

    A scan belongs to the subject that its name, or the name of a folder above, starts with.
    """
    table = expand(table)
    if not table.is_file():
        raise InputError(f"There is no table {str(table)!r}. Pass one with the columns subject and group.")
    groups = read_mapping(table, "subject", "group")
    paths = [path and path.absolute() for path in map(file_path, sources)]
    subjects = [subject_among(path, Path(path.anchor), groups) if path else None for path in paths]
    if not any(subjects):
        raise InputError(
            f"{table.name} lists none of the scans. Compare its column subject with the file names."
        )
    own = groups_of(sources)
    return [groups[subject] if subject else name for subject, name in zip(subjects, own, strict=True)]


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


def _listed_subject(path: Path, listed: Callable[[Path], frozenset[str] | None]) -> str | None:
    """Return the subject by the nearest folder above a scan that lists any, or a session of that subject."""
    for folder in path.parents:
        if (subjects := listed(folder)) is not None:
            subject = subject_among(path, folder, subjects)
            return subject and (subject_in_name(subject) or subject)
    return None


def _listed_in(folder: Path) -> frozenset[str] | None:
    """Return the subjects of a folder's ``splits.csv``, None if it has none that can be read."""
    if not (folder / SPLITS).is_file():
        return None
    try:
        return frozenset().union(*read_splits(folder / SPLITS).values())
    except InputError as error:
        warn(f"Scans are not grouped by {SPLITS}: {error}")
        return None
