"""Files of scans (NIfTI and others) and nibabel images: found by their names, checked, read and written.

Here belongs what depends on file names, headers and stored numbers: which files are scans, what they are called, whose
they are, which mask lies beside them, and whether header, voxels and masks are sound. It is the one place where images
are opened. What is done with the intensities of a scan belongs to `skmimood.preprocessing`; which scans are learned
from, to `skmimood.scans`.
"""

from skmimood.nifti.files import files_of, find_companion, find_scans, walk_images
from skmimood.nifti.geometry import Grid
from skmimood.nifti.images import (
    DEFAULT_MAX_BYTES,
    Scan,
    make_image,
    read_scan,
    write_image,
)
from skmimood.nifti.masks import Mask, read_labels, read_mask
from skmimood.nifti.names import EXTENSIONS, PICTURES, Source, file_stem, scan_id, scan_ids, subject_of
from skmimood.nifti.reading import read_grid

__all__ = [
    "DEFAULT_MAX_BYTES",
    "EXTENSIONS",
    "PICTURES",
    "Grid",
    "Mask",
    "Scan",
    "Source",
    "file_stem",
    "files_of",
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
