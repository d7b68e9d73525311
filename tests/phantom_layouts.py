"""Phantom data sets whose files lie and are called as those of public data sets."""

import csv
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from skmimood.datasets import LESION_KINDS
from skmimood.datasets.phantom import Recipe
from skmimood.datasets.phantom_files import write_sample

# Of each layout: modality, name of a subject, its first number, folder, scan, mask, and whether there are a skull,
# brain masks, empty masks of healthy subjects, and a table of splits.
LAYOUTS = {
    "brats": ("t2", "BraTS2021_{i:05d}", 0, "{s}", "{s}_t2.nii.gz", "{s}_seg.nii.gz", "masks"),
    "brats2020": ("t2", "BraTS20_Training_{i:03d}", 1, "{s}", "{s}_t2.nii", "{s}_seg.nii", "masks"),
    "brats2023": ("t2", "BraTS-GLI-{i:05d}-000", 0, "{s}", "{s}-t2w.nii.gz", "{s}-seg.nii.gz", "masks"),
    "lgg": ("flair", "TCGA_PH_{i:04d}", 0, "{s}", "{s}_flair.nii.gz", "{s}_seg.nii.gz", "skull masks splits"),
    "ixi": (
        "t1",
        "IXI{i:03d}-Phantom-{i:04d}",
        0,
        "",
        "{s}_T1.nii.gz",
        "{s}_seg.nii.gz",
        "skull brains splits",
    ),
    "mslub": (
        *(
            "flair",
            "patient{i:02d}",
            1,
            "cross_sectional/coregistered/{s}",
            "FLAIR.nii.gz",
            "consensus_gt.nii.gz",
        ),
        "skull brains masks",
    ),
}


@dataclass
class Written:
    healthy: list[Path] = field(default_factory=list)
    scans: list[Path] = field(default_factory=list)
    masks: list[Path] = field(default_factory=list)
    brain_masks: list[Path] = field(default_factory=list)
    splits: Path | None = None


def write_layout(
    folder, layout, *, n_healthy, n_lesions, size, n_slices, lesions=LESION_KINDS, random_state=0
):
    """Write healthy subjects, then patients."""
    modality, subject, first, place, scan_name, mask_name, has = LAYOUTS[layout]
    recipe = Recipe((size, size), modality, n_slices, skull="skull" in has)
    seeds = np.random.SeedSequence(random_state).spawn(n_healthy + n_lesions)
    written, rows = Written(), [("subject", "split")]
    for i, seed in enumerate(seeds):
        name, is_patient = subject.format(i=first + i), i >= n_healthy
        where = folder / place.format(s=name)
        scan, mask = where / scan_name.format(s=name), where / mask_name.format(s=name)
        brain = where / ("brainmask.nii.gz" if layout == "mslub" else f"{name}_brainmask.nii.gz")
        sample = recipe.make(lesions[(i - n_healthy) % len(lesions)] if is_patient else None, seed)
        write_sample(
            recipe,
            sample,
            scan,
            mask if is_patient or "masks" in has else None,
            brain if "brains" in has else None,
        )
        (written.scans if is_patient else written.healthy).append(scan)
        written.masks += [mask] * is_patient
        written.brain_masks += [brain] * ("brains" in has)
        is_val = layout == "lgg" and (i - n_healthy) % 2 == 0
        rows.append((name, ("val" if is_val else "test") if is_patient else "train"))
    if "splits" in has:
        written.splits = folder / "splits.csv"
        with written.splits.open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return written
