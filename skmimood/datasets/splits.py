"""Which subjects are for training, validation and testing: tables of splits, applied to sets of scans."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from skmimood.datasets.tables import as_mapping, read_mapping
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
        semicolons or tabs separate the cells. Upper and lower case of the names of columns and splits are the same.

    Returns
    -------
    dict of str to tuple of str
        The subjects of each split, both in the order of the table; a split is called as its first row spells it.
        A subject that has several rows in one split is listed once.

    Raises
    ------
    InputError
        If the file is missing, cannot be read, lacks a column or has no rows, if a row names no subject or no
        split, or if a subject is in two splits.
    """
    table = expand(path)
    if not table.is_file():
        raise InputError(
            f"There is no {table.name} in {str(table.parent)!r}. "
            "Pass a CSV file with the columns subject and split."
        )
    spelled: dict[str, str] = {}
    splits: dict[str, list[str]] = {}
    for subject, split in read_mapping(table, "subject", "split").items():
        splits.setdefault(spelled.setdefault(split.casefold(), split), []).append(subject)
    return {split: tuple(subjects) for split, subjects in splits.items()}


def split_scan_set(scan_set: ScanSet, splits: Mapping[str, Iterable[str]]) -> dict[str, ScanSet]:
    """Cut a set of scans by subject into splits, as `read_splits` returns them; subjects in no split are left out.

    Raises
    ------
    InputError
        If a subject is in two splits, or has no scan in the set.
    """
    listed = {split: tuple(subjects) for split, subjects in splits.items()}
    pairs = [(subject, split) for split, subjects in listed.items() for subject in subjects]
    as_mapping(pairs, "The table", "split")
    scan_set.select(subject for subject, _ in pairs)  # names those that are missing from all splits at once
    return {split: scan_set.select(subjects) for split, subjects in listed.items()}
