"""The scans that a job is given: all, or those of a named split, such as "train", of a folder's ``splits.csv``."""

from __future__ import annotations

import os
from collections.abc import Sequence

from skmimood.datasets import read_splits
from skmimood.exceptions import InputError, listing, warn
from skmimood.nifti import Source
from skmimood.nifti.names import file_path
from skmimood.runtime.paths import expand
from skmimood.scans.sources import find_named_or_chosen
from skmimood.scans.subjects import SPLITS, subject_among


def select_split(
    paths: Sequence[str | os.PathLike], split: str | None, *, suffix: str | None, exclude: Sequence[str]
) -> list[Source]:
    """List the scans of the subjects of one split of the folders' ``splits.csv``, or without a split all scans.

    A scan belongs to the subject that its name, or the name of a folder that it lies in, starts with. The split may be
    named in any case. `InputError` if a table is missing or unusable, or there is no such split or no scan of it.
    """
    if split is None:
        return find_named_or_chosen(paths, suffix=suffix, exclude=exclude)
    found: list[Source] = []
    for folder in map(expand, paths):
        splits = read_splits(folder / SPLITS)
        chosen = {
            subject for name in splits if name.casefold() == split.casefold() for subject in splits[name]
        }
        if not chosen:
            names = ", ".join(sorted(splits))
            raise InputError(
                f"{SPLITS} of {folder.name!r} has no split {split!r}; it has {names}. Choose one of them."
            )
        without, subjects = set(chosen), frozenset().union(*splits.values())
        for source in find_named_or_chosen(folder, suffix=suffix, exclude=exclude):
            subject = subject_among(file_path(source) or folder, folder, subjects)
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
