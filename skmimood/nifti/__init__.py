"""Scans from NIfTI files and nibabel images, and maps back into images; the one place where images are opened."""

from skmimood.nifti.files import find_companion, find_scans, walk_images
from skmimood.nifti.geometry import Grid
from skmimood.nifti.images import (
    DEFAULT_MAX_BYTES,
    Scan,
    make_image,
    read_scan,
    write_image,
)
from skmimood.nifti.masks import Mask, read_labels, read_mask
from skmimood.nifti.names import EXTENSIONS, Source, file_stem, scan_id, scan_ids, subject_of
from skmimood.nifti.reading import read_grid

__all__ = [
    "DEFAULT_MAX_BYTES",
    "EXTENSIONS",
    "Grid",
    "Mask",
    "Scan",
    "Source",
    "file_stem",
    "find_companion",
    "find_scans",
    "make_image",
    "read_grid",
    "read_labels",
    "read_mask",
    "read_scan",
    "scan_id",
    "scan_ids",
    "subject_of",
    "walk_images",
    "write_image",
]
