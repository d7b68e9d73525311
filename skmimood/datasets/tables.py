"""Tables of subjects with their splits or groups, as spreadsheets and scripts write them, and sets cut by them."""

from __future__ import annotations

import csv
import io
import os
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from skmimood.exceptions import InputError
from skmimood.runtime.paths import expand

if TYPE_CHECKING:
    from skmimood.datasets.scan_sets import ScanSet

_MAX_BYTES = 2**26
_SEPARATORS = (",", ";", "\t", "|")
_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")


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
            "Pass a CSV file with the columns subject and split, or name no split."
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


def read_slice_kinds(path: str | os.PathLike) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Read a table of what is seen in the slices of scans.

    Parameters
    ----------
    path : str or path
        A table with the columns subject, slice and kinds, such as ``slices.csv``; other columns are ignored. Slices
        are counted from 0 along the last axis of a scan's file. Several kinds of one slice are joined by ``+``, and
        a slice without a finding has a blank cell.

    Returns
    -------
    dict of str to tuple of tuple of str
        Of each subject, the kinds in every slice: ``{"CT050": ((), ("epidural", "subdural"), ...)}``.

    Raises
    ------
    InputError
        If the file cannot be read, lacks a column or has no rows, or if the slices of a subject are not numbered
        from 0 without gaps and repeats.
    """
    table = expand(path)
    called = f"{table.name} of {table.absolute().parent.name!r}"
    rows: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    for subject, number, told in read_columns(table, "subject", "slice", "kinds"):
        kinds = tuple(filter(None, (kind.strip() for kind in told.split("+"))))
        rows.setdefault(subject, []).append((number, kinds))
    if not rows:
        raise InputError(f"{called} has no rows. List each slice with its kinds.")
    found = {}
    for subject, slices in rows.items():
        in_order = dict(slices)
        numbers = [*map(str, range(len(slices)))]
        if {*in_order} != {*numbers}:
            raise InputError(
                f"{called} should number the {len(slices)} slices of {subject!r} from 0 to {numbers[-1]}. Correct it."
            )
        found[subject] = tuple(in_order[number] for number in numbers)
    return found


def read_columns(table: Path, *names: str) -> list[tuple[str, ...]]:
    """Read some columns of a table, rows without any content left out; neither case nor spaces of their names matter.

    The text is UTF-8, UTF-16 or, failing these, Latin-1, with cells separated by commas, semicolons, tabs or bars.

    Raises
    ------
    InputError
        If the file cannot be read or lacks a column.
    """
    called = f"{table.name} of {table.absolute().parent.name!r}"
    try:
        # Accents joined to their letters, as in the names of scans that are looked for here.
        lines = unicodedata.normalize("NFC", _text(table)).lstrip("\r\n").splitlines(keepends=True)
        if lines and lines[0].lower().startswith("sep="):  # for Excel
            del lines[0]
        found = [(_header(lines[0], separator), separator) for separator in _SEPARATORS] if lines else []
        for header, separator in found:
            if set(names) <= set(header):
                stream = io.StringIO("".join(lines[1:]), newline="")
                rows = csv.reader(stream, delimiter=separator, skipinitialspace=True)
                places = [*map(header.index, names)]
                return [
                    tuple(_cell(row, place) for place in places) for row in rows if any(map(str.strip, row))
                ]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{called} cannot be read: {error}. Write it anew as CSV.") from None
    if not found:
        return []
    present = max((header for header, _ in found), key=lambda header: len(set(names).intersection(header)))
    missing = next(name for name in names if name not in present)
    raise InputError(f"{called} has no column {missing!r}. It needs {' and '.join(names)}.")


def read_mapping(table: Path, first: str, second: str) -> dict[str, str]:
    """Read two columns as a mapping by `read_columns`; blank cells and keys with two values raise `InputError` too."""
    called = f"{table.name} of {table.absolute().parent.name!r}"
    pairs = read_columns(table, first, second)
    if not pairs:
        raise InputError(f"{called} has no rows. List each {first} with its {second}.")
    for key, value in pairs:
        if not key or not value:
            fault = f"no {second} for {key!r}" if key else f"a row without a {first}"
            raise InputError(f"{called} has {fault}. Correct it.")
    return as_mapping(pairs, called, second)


def as_mapping(pairs: Iterable[tuple[str, ...]], called: str, second: str) -> dict[str, str]:
    """Return pairs as a mapping; raise `InputError` if one key has two values."""
    mapping: dict[str, str] = {}
    for key, value in pairs:
        if mapping.setdefault(key, value) != value:
            raise InputError(
                f"{called} has two {second}s for {key!r}, {mapping[key]} and {value}. Correct it."
            )
    return mapping


def _text(table: Path) -> str:
    if table.stat().st_size > _MAX_BYTES:
        raise ValueError("it is too large")
    content = table.read_bytes()
    if content.startswith(_BYTE_ORDER_MARKS):
        return content.decode("utf-16")
    if b"\x00" in content[:2]:
        return content.decode("utf-16-be" if content[:1] == b"\x00" else "utf-16-le")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        if any(mark in content for mark in _BYTE_ORDER_MARKS):
            raise ValueError("its encoding changes in the middle") from None
        return content.decode("cp1252")


def _header(line: str, separator: str) -> list[str]:
    cells = next(csv.reader([line], delimiter=separator, skipinitialspace=True))
    return [cell.strip().casefold() for cell in cells]


def _cell(row: list[str], place: int) -> str:
    return row[place].strip() if place < len(row) else ""
