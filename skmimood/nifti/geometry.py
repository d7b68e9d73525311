"""Where the voxels of a scan lie: which of a header's affines is used, and what is odd about it."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError, SpatialImage

_MM_PER_UNIT = {1: 1000.0, 2: 1.0, 3: 0.001}  # codes of metre, millimetre and micron; any other counts as mm
_VOXEL_MM = (0.01, 100.0)
_SHEAR_COSINE = 5e-3
_DISAGREEMENT_VOXELS = 0.1
THICK_RATIO = 3.0  # of the sides of voxels, from which on a remark is made
_SAME_GRID_VOXELS = 0.1
_FORM_FIELDS = {
    "sform": ("sform_code", "srow_x", "srow_y", "srow_z"),
    "qform": ("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
}


class UnsoundError(ValueError):
    """Why a file cannot be read, in a sentence about it; its reader adds the name and raises `ScanReadError`."""


class Grid(NamedTuple):
    """Where a volume's voxels lie: its shape, and the affine (4, 4) in millimetres."""

    shape: tuple[int, int, int]
    affine_mm: np.ndarray

    def matches(self, other: Grid) -> bool:
        """Tell whether the shapes are equal and no voxel lies more than a tenth of a voxel elsewhere."""
        if self.shape != other.shape:
            return False
        corners = box_corners(self.shape, margin=0.0)
        moved = apply_affine(np.linalg.inv(other.affine_mm) @ self.affine_mm, corners)
        return bool(np.abs(moved - corners).max() <= _SAME_GRID_VOXELS)


class Geometry(NamedTuple):
    """What is used of a header: affine (4, 4) in its own unit, a fresh header with it, and remarks."""

    affine: np.ndarray
    header: Nifti1Header
    remarks: tuple[str, ...]

    @property
    def affine_mm(self) -> np.ndarray:
        """Affine in millimetres, ndarray of shape (4, 4)."""
        return in_millimetres(self.affine, self.header)


def read_geometry(
    source: Nifti1Header | SpatialImage, shape: tuple[int, ...], axes: tuple[int, int, int]
) -> Geometry:
    """Take the first sound affine of a header or image, first its sform, then its qform.

    An image's own affine replaces the first form of its header. Voxel sizes (``pixdim``) that are not positive numbers
    discredit the qform, which is made with them, but not the sform. They are used alone only where neither form is
    declared. The fresh header has `shape`; `axes` are the numbers of voxels along the three voxel axes. With no sound
    affine, UnsoundError is raised.
    """
    header = source if isinstance(source, Nifti1Header) else _header_of(source)
    zooms = np.asarray(header["pixdim"][1 : min(int(header["dim"][0]), 3) + 1], dtype=float)
    zooms_are_sound = bool(np.isfinite(zooms).all() and (zooms > 0).all())
    sizes = _sizes(zooms)
    affines = _affines_of(header, zooms_are_sound)
    if not isinstance(source, Nifti1Header):
        affines[next(iter(affines))] = np.full((4, 4), np.nan) if source.affine is None else source.affine
    faults = {form: _fault_of(affine, header, axes) for form, affine in affines.items()}
    chosen = next((form for form, fault in faults.items() if not fault), None)
    affine = affines.get(chosen or "")
    if affine is None:
        if not zooms_are_sound:
            raise UnsoundError(f"has impossible voxel sizes {sizes}. Repair pixdim in its header.")
        raise UnsoundError(next(iter(faults.values())))
    broken = [form for form, fault in faults.items() if fault]
    if zooms_are_sound:
        remarks = [f"the {form} is broken; the {chosen} is used" for form in broken]
    else:
        remarks = [f"voxel sizes {sizes} in the header are impossible; those of the {chosen} are used"]
    fresh = _geometry_only(header, shape, broken)
    if not zooms_are_sound:
        fresh["pixdim"][1:4] = voxel_sizes(affine)
    sform, qform = affines.get("sform"), affines.get("qform")
    if not broken and sform is not None and qform is not None and _disagree(sform, qform, axes):
        remarks.append("sform and qform disagree; the sform is used")
    return Geometry(np.array(affine, dtype=np.float64), fresh, (*remarks, *_oddities(affine, header, axes)))


def in_millimetres(affine: np.ndarray, header: Nifti1Header) -> np.ndarray:
    """Return an affine in the header's spatial unit as one in millimetres."""
    return np.diag([*[_mm_per_unit(header)] * 3, 1.0]) @ affine


def _mm_per_unit(header: Nifti1Header) -> float:
    return _MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)


def box_corners(shape: tuple[int, ...], margin: float) -> np.ndarray:
    """Corners of a volume in voxel coordinates, (8, 3); ``margin`` 0.5 reaches to the voxels' outer faces."""
    return np.array(list(itertools.product(*((-margin, n - 1 + margin) for n in shape))))


def _affines_of(header: Nifti1Header, zooms_are_sound: bool) -> dict[str, np.ndarray | None]:
    """Return the declared forms in the order in which they are used; None for one that cannot be computed."""
    affines: dict[str, np.ndarray | None] = {}
    if int(header["sform_code"]) != 0:
        affines["sform"] = header.get_sform()
    if int(header["qform_code"]) != 0:
        try:
            with np.errstate(invalid="ignore"):
                affines["qform"] = header.get_qform() if zooms_are_sound else None
        except (HeaderDataError, ValueError):  # a quaternion longer than 1
            affines["qform"] = None
    return affines or {"affine": header.get_base_affine() if zooms_are_sound else None}


def _fault_of(affine: np.ndarray | None, header: Nifti1Header, axes: tuple[int, int, int]) -> str:
    if affine is None:
        return "has a damaged header: its qform is no rotation. Repair its sform or qform."
    lengths = voxel_sizes(affine)
    if not (np.isfinite(affine).all() and np.isfinite(lengths).all()):
        return "has no finite affine. Repair its sform or qform."
    if (lengths == 0).any() or abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-3:
        return "has a singular affine: its axes do not span space. Repair its sform or qform."
    spacing = lengths * _mm_per_unit(header)
    extended = spacing[np.array(axes) > 1]
    if ((extended < _VOXEL_MM[0]) | (extended > _VOXEL_MM[1])).any():
        return f"has implausible voxels of {_sizes(spacing)} mm. Repair its affine or its units."
    return ""


def _oddities(affine: np.ndarray, header: Nifti1Header, axes: tuple[int, int, int]) -> list[str]:
    """Say what is odd about an affine that can be worked with."""
    odd = []
    directions = affine[:3, :3] / voxel_sizes(affine)
    cosines = directions.T @ directions - np.eye(3)
    if np.abs(cosines).max() > _SHEAR_COSINE:
        odd.append("the affine is sheared; the scan is worked on along its own axes")
    spacing = voxel_sizes(affine) * _mm_per_unit(header)
    extended = spacing[np.array(axes) > 1]
    if extended.size and extended.max() / extended.min() >= THICK_RATIO:
        odd.append(f"voxels of {_sizes(spacing)} mm are anisotropic")
    return odd


def _disagree(sform: np.ndarray, qform: np.ndarray, axes: tuple[int, int, int]) -> bool:
    corners = box_corners(axes, 0.0)
    distance = np.abs(apply_affine(sform, corners) - apply_affine(qform, corners)).max()
    return bool(distance > _DISAGREEMENT_VOXELS * voxel_sizes(sform).min())


def _geometry_only(header: Nifti1Header, shape: tuple[int, ...], broken: Collection[str]) -> Nifti1Header:
    """Return a new header with sound forms, voxel sizes and units: no description, no names, no dates."""
    fresh = Nifti2Header() if isinstance(header, Nifti2Header) else Nifti1Header()
    fresh.set_data_shape(shape)
    for form, fields in _FORM_FIELDS.items():
        for field in fields if form not in broken else ():
            fresh[field] = header[field]
    fresh["xyzt_units"] = header["xyzt_units"]
    fresh["pixdim"][:4] = header["pixdim"][:4]
    return fresh


def _header_of(image: SpatialImage) -> Nifti1Header:
    """Header with the image's geometry; other formats than NIfTI have theirs expressed as an sform."""
    if isinstance(image.header, Nifti1Header):
        return image.header
    header = Nifti1Header()
    header.set_data_shape(image.shape)
    if image.affine is not None and np.isfinite(image.affine).all():
        header["pixdim"][1:4] = voxel_sizes(image.affine)
        header.set_sform(image.affine, code="aligned")
        header.set_xyzt_units("mm")
    return header


def _sizes(spacing: np.ndarray) -> str:
    return " x ".join(f"{size:g}" for size in spacing)
