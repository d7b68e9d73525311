"""Which subjects are for training, validation and testing: tables of splits, applied to sets of scans."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from skmimood.datasets.tables import read_pairs
from skmimood.exceptions import InputError
from skmimood.runtime.paths import expand

if TYPE_CHECKING:
    from skmimood.datasets.scan_sets import ScanSet


def read_splits(path: str | os.PathLike) -> dict[str, tuple[str, ...]]:
    """Read a table of splits.

    Parameters
    ----------
    path : str or path
        A table with the columns subject and split, such as ``splits.csv``; other columns are ignored. Commas,
        semicolons or tabs separate the cells, and upper or lower case of the columns' names does not matter.

    Returns
    -------
    dict of str to tuple of str
        The subjects of each split, both in the order of the table. A subject that has several rows in one
        split is listed once.

    Raises
    ------
    InputError
        If the file is missing, cannot be read, lacks a column or has no rows, if a row names no subject or no
        split, or if a subject is in two splits.
    """
    table = expand(path)
    called = f"{table.name} of {table.absolute().parent.name!r}"
    if not table.is_file():
        raise InputError(
            f"There is no {table.name} in {str(table.parent)!r}. "
            "Pass a CSV file with the columns subject and split."
        )
    pairs = read_pairs(table, "subject", "split")
    if not pairs:
        raise InputError(f"{called} has no rows. List each subject with its split.")
    for subject, split in pairs:
        if not subject or not split:
            fault = f"no split for {subject!r}" if subject else "a row without a subject"
            raise InputError(f"{called} has {fault}. Correct it.")
    _refuse_two_splits(pairs, called)
    splits: dict[str, dict[str, None]] = {}
    for subject, split in pairs:
        splits.setdefault(split, {})[subject] = None
    return {split: tuple(subjects) for split, subjects in splits.items()}


def split_scan_set(scan_set: ScanSet, splits: Mapping[str, Iterable[str]]) -> dict[str, ScanSet]:
    """Cut a set of scans into splits by subject.

    Parameters
    ----------
    scan_set : ScanSet
        What to cut. Subjects that are in no split are left out.
    splits : mapping of str to iterable of str
        The subjects of each split, as from `read_splits`.

    Returns
    -------
    dict of str to ScanSet

    Raises
    ------
    InputError
        If a subject is in two splits, or has no scan in the set.
    """
    listed = {split: tuple(subjects) for split, subjects in splits.items()}
    pairs = [(subject, split) for split, subjects in listed.items() for subject in subjects]
    _refuse_two_splits(pairs, "The table")
    scan_set.select(subject for subject, _ in pairs)  # names those that are missing from all splits at once
    return {split: scan_set.select(subjects) for split, subjects in listed.items()}


def _refuse_two_splits(pairs: Iterable[tuple[str, str]], called: str) -> None:
    first: dict[str, str] = {}
    for subject, split in pairs:
        if first.setdefault(subject, split) != split:
            raise InputError(
                f"{called} has two splits for {subject!r}, {first[subject]} and {split}. Correct it."
            )
