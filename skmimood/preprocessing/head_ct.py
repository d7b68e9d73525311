"""Head CT: its brain window, and the brain, which a skull encloses that is far brighter.

A percentile of such a scan is bone, and what is around the head, such as the head-rest, is as bright. So the scale is
that of the window, and the brain is taken without the skull, as from MR.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from skmimood.nifti import Scan
from skmimood.preprocessing.grid import axes_of
from skmimood.preprocessing.parts import largest_part

_AIR_HU = -200.0  # a scan with lower values is in Hounsfield units, else in a window, from black to white
_WINDOW_HU = (0.0, 80.0)
_TISSUE_HU = (-30.0, 150.0)  # brighter is bone
_TISSUE = (0.02, 0.97)  # the same, in shares of the window
_GAPS = (10.0, 20.0)  # mm: half as wide as the gaps of the skull that are bridged, first those of adults
_LEAST_BRAIN = 300.0  # ml; less is no brain but that of a slab, or it leaked out by a fontanelle
_NECK = (
    4.0  # mm: half as wide as the openings to orbits, sinuses and between bones where the brain is cut off
)
_RESTORED = 5.0  # mm, by which what is left of the brain grows again, up to the bone
_RIM = 2.0  # mm beside bone where voxels are part bone, as bright as blood


def ct_window(data: np.ndarray) -> tuple[float, float]:
    """Return the intensities of head CT that are black and white.

    They are 0 and 80 HU in scans that hold air in Hounsfield units (values below -200), which shows the contrast of
    grey and white matter and of fresh blood (50 to 90 HU), and the extremes of scans that are in a window already.
    """
    return _WINDOW_HU if _is_in_hounsfield_units(data) else (float(data.min()), float(data.max()))


def ct_brain_mask(scan: Scan) -> np.ndarray:
    """Find the brain in head CT, in Hounsfield units or in a brain window: what the skull encloses.

    Axial slice by slice, gaps of the skull up to 2 cm wide are bridged and what it encloses is filled; where this is
    less than 300 ml, as in infants, gaps up to 4 cm. Air is left out, and bone with the 2 mm around it, which are
    partly bone and so as bright as blood. What is connected by less than 8 mm is cut off. The largest part in three
    dimensions is kept, with what it encloses in its slices: air, calcifications, and blood as bright as bone unless it
    lies at the skull.

    Returns
    -------
    ndarray of shape (X, Y, Z), bool
        Empty without a skull. Where its gaps are wider than is bridged, slices of the brain are missing.
    """
    axes = axes_of(scan, "axial")
    low, high = ct_window(scan.data)
    darkest, brightest = (low + share * (high - low) for share in _TISSUE)
    if _is_in_hounsfield_units(scan.data):
        darkest, brightest = _TISSUE_HU
    slices = np.transpose(scan.data, axes)
    bone, is_tissue = slices > brightest, slices > darkest
    height, width = (float(scan.spacing[axis]) for axis in axes[1:])
    voxel = float(np.prod(scan.spacing)) / 1000
    for gap in _GAPS:
        brain = _inside(bone, is_tissue, gap, (height, width))
        if brain.sum() * voxel >= _LEAST_BRAIN:
            break
    return np.transpose(brain, np.argsort(axes))


def _is_in_hounsfield_units(data: np.ndarray) -> bool:
    return bool(data.min() < _AIR_HU)


def _inside(bone: np.ndarray, is_tissue: np.ndarray, gap: float, spacing: tuple[float, float]) -> np.ndarray:
    """Return the largest part (n, H, W) of what bone encloses in its slices, but for gaps up to ``2 * gap`` mm."""
    margins = [(0, 0), *((n, n) for n in (int(gap / side) + 2 for side in spacing))]
    enclosed = _shrunk(_filled(_grown(np.pad(bone, margins), gap, spacing)), gap, spacing)
    (top, _), (left, _) = margins[1:]
    enclosed = enclosed[:, top:-top, left:-left] & ~_grown(bone, _RIM, spacing)
    core = largest_part(_shrunk(enclosed & is_tissue, _NECK, spacing))
    return _filled(_grown(core, _RESTORED, spacing) & enclosed)


def _filled(masks: np.ndarray) -> np.ndarray:
    return np.stack([ndimage.binary_fill_holes(mask) for mask in masks])


def _grown(masks: np.ndarray, reach: float, spacing: tuple[float, float]) -> np.ndarray:
    """Add to masks (n, H, W) all within ``reach`` mm in their slice."""
    return ~_shrunk(~masks, reach, spacing)


def _shrunk(masks: np.ndarray, reach: float, spacing: tuple[float, float]) -> np.ndarray:
    """Remove from masks (n, H, W) all within ``reach`` mm of what is not in them, in their slice."""
    return np.stack(
        [
            mask if mask.all() else ndimage.distance_transform_edt(mask, sampling=spacing) > reach
            for mask in masks
        ]
    )
