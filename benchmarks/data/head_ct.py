"""Slices of head CT, whose haemorrhages are known slice by slice but have no masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import nibabel as nib
import numpy as np

from benchmarks.data.slices import MIN_TRAINING_SHARE, SliceSet, cut, join, learn_spacing, prepared
from skmimood.datasets.scan_sets import ScanSet
from skmimood.exceptions import InputError
from skmimood.nifti import Scan

Kinds = Mapping[
    str, tuple[tuple[str, ...], ...]
]  # of each subject and slice, as `read_slice_kinds` returns them


def ct_slices(splits: Mapping[str, ScanSet], kinds: Kinds, size: int) -> SliceSet:
    """Cut scans into the axial slices whose frame the brain fills to 5 %, of ``size`` pixels a side.

    Their ``kinds`` are joined by ``+``; of split train, only slices without haemorrhage are taken.
    """
    spacing = learn_spacing(splits["train"], size)
    parts = []
    for split, scans in splits.items():
        for subject, one in prepared(scans):
            slices = cut("ct", subject, split, one, spacing, size, is_brain=True)
            told = np.array(["+".join(each) for each in _upwards(subject, one.scan, kinds)])
            is_taken = (slices.head.mean((1, 2)) > MIN_TRAINING_SHARE) & ((told == "") | (split != "train"))
            parts.append(replace(slices, kinds=told)[is_taken])
    return join(parts)


def _upwards(subject: str, scan: Scan, kinds: Kinds) -> tuple[tuple[str, ...], ...]:
    """Return the kinds in the slices of a scan, the lowest slice first."""
    told, code = kinds.get(subject, ()), nib.aff2axcodes(scan.affine)[2]
    if len(told) != scan.data.shape[2] or code not in ("S", "I"):
        raise InputError(
            f"{subject}: slices.csv tells of {len(told)} slices; the scan has {scan.data.shape[2]} along its last "
            f"axis, which points to {code}. Tell of every axial slice, and store them along the last axis."
        )
    return told if code == "S" else told[::-1]
