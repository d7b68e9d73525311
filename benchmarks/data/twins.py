"""What lies under planted lesions: the same slices as they were before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.data import sources
from benchmarks.data.slices import SliceSet
from skmimood.exceptions import InputError


def with_twins(slices: SliceSet, splits: Sequence[str] = ("val", "test")) -> tuple[SliceSet, SliceSet]:
    """Return the slices of some splits with planted lesions, and in the same order the slices without them."""
    planted = slices[np.isin(slices.splits, splits) & slices.has_lesion & (slices.kinds != "")]
    untouched = sources.phantom_slices(lesions=False) if slices.dataset == "phantom" else slices
    untouched = untouched[untouched.is_healthy]
    place = {key: number for number, key in enumerate(_keys(untouched))}
    found = [place.get(key) for key in _keys(planted)]
    if not found or None in found:
        raise InputError(
            f"{slices.dataset}: what healthy tissue would stand in place of its lesions is not known, so healing "
            f"cannot be measured on it. Take a data set with planted lesions: phantom, {', '.join(sources.PLANTED)}."
        )
    return planted, untouched[np.array(found)]


def _keys(slices: SliceSet) -> list[tuple[str, int]]:
    return [*zip(slices.patients.tolist(), slices.index.tolist(), strict=True)]
