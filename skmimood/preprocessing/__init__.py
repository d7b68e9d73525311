"""From volumes to slices on the network's grid and back: foreground, intensities, geometry.

Here belong pure functions of arrays that prepare what networks see, with nothing learnt from other scans
(`SliceStandardizer`, an estimator without memory, included). Files and headers belong to `skmimood.nifti`, augmentation
to `skmimood.training`, and what is done to maps of anomalies to `skmimood.maps`.
"""

from skmimood.preprocessing.foreground import foreground_mask
from skmimood.preprocessing.grid import GridPlan, Plane, find_better_plane, in_plane_extent, voxel_sides
from skmimood.preprocessing.head_ct import ct_brain_mask, ct_window
from skmimood.preprocessing.intensity import intensity_range, scale_intensity
from skmimood.preprocessing.parts import fill_holes, has_gaps, main_parts, share_missing

__all__ = [
    "GridPlan",
    "Plane",
    "ct_brain_mask",
    "ct_window",
    "fill_holes",
    "find_better_plane",
    "foreground_mask",
    "has_gaps",
    "in_plane_extent",
    "intensity_range",
    "main_parts",
    "scale_intensity",
    "share_missing",
    "voxel_sides",
]
