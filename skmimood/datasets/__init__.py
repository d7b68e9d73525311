"""Data to learn from and evaluate on: artificial brains with exact lesion masks, and public sets as they lie on disk.

Here belong loaders that know the names of a public set's files, tables of splits, and the phantom. Nothing downloads,
and loaders of scans read no voxels. Rules for scans of any name belong to `skmimood.nifti`; anomalies that networks
are trained on belong to `skmimood.training`, so that none of them imitates the lesions here.
"""

from __future__ import annotations

import importlib
from typing import Any

# Public name -> module that defines it. Loaded on first use, so that the import stays quick.
_PUBLIC = {
    "LESION_KINDS": "lesions",
    "PhantomDataset": "phantom_files",
    "PictureSet": "pictures",
    "ScanSet": "scan_sets",
    "load_brats": "public",
    "load_ct_ich": "public",
    "load_image_mask_folder": "public",
    "load_ixi": "public",
    "load_lgg": "public",
    "load_luna16": "public",
    "load_mslub": "public",
    "load_picture_folder": "pictures",
    "make_brain_phantom": "phantom",
    "nodule_mask": "nodules",
    "read_nodules": "nodules",
    "read_slice_kinds": "tables",
    "read_splits": "tables",
    "split_scan_set": "tables",
    "write_phantom_dataset": "phantom_files",
}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"skmimood.datasets.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'skmimood.datasets' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
