"""Which scans of a folder belong to a named split, such as "train", of its ``splits.csv``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from skmimood.datasets import read_splits
from skmimood.exceptions import InputError, listing, warn
from skmimood.nifti import Source
from skmimood.runtime.paths import expand
from skmimood.scans.sources import find_named_or_chosen
from skmimood.scans.subjects import SPLITS, subject_among


def select_split(
    paths: Sequence[str | os.PathLike], split: str, *, suffix: str | None, exclude: Sequence[str]
) -> list[Source]:
    """List the scans of the subjects of one split.

    A scan belongs to the subject that its name, or the name of a folder that it lies in, starts with.

    Parameters
    ----------
    paths : sequence of folders
        Each with a ``splits.csv`` that has the columns subject and split.
    split : str
        Name of the split, in any case.
    suffix, exclude
        As in :func:`skmimood.nifti.find_scans`.

    Returns
    -------
    list of path

    Raises
    ------
    InputError
        If a table is missing or unusable, or there is no such split or no scan of it.
    """
    found: list[Source] = []
    for path in paths:
        folder = expand(path)
        subjects = _subjects(folder)
        chosen = {subject for subject in subjects if subjects[subject].casefold() == split.casefold()}
        without = set(chosen)
        if not without:
            names = ", ".join(sorted(set(subjects.values())))
            raise InputError(
                f"{SPLITS} of {folder.name!r} has no split {split!r}; it has {names}. Choose one of them."
            )
        for source in find_named_or_chosen(folder, suffix=suffix, exclude=exclude):
            subject = subject_among(Path(str(source)), folder, subjects)
            if subject in chosen:
                found.append(source)
                without.discard(subject)
        if found and without:
            warn(f"No scan was found for subjects of split {split!r}: {listing(sorted(without))}")
    if not found:
        raise InputError(
            f"No scan belongs to a subject of split {split!r}. Compare {SPLITS} with the file names."
        )
    return found


def _subjects(folder: Path) -> dict[str, str]:
    """Read the split of each subject."""
    table = folder / SPLITS
    if not table.is_file():
        raise InputError(
            f"There is no {SPLITS} in {str(folder)!r}. Pass a folder with such a table, or leave out --split."
        )
    return {subject: split for split, subjects in read_splits(table).items() for subject in subjects}
