"""From a scan in any orientation to slices (n, H, W), and from maps on those slices back to its voxels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from nibabel.orientations import io_orientation
from scipy import sparse

from skmimood.exceptions import InputError, ScanReadError
from skmimood.nifti import Scan
from skmimood.nifti.geometry import THICK_RATIO
from skmimood.preprocessing.parts import main_parts

Plane = Literal["axial", "coronal", "sagittal"]

# Plane -> canonical axes (0 right, 1 anterior, 2 superior) of slices, rows and columns, and whether rows and
# columns run against the canonical direction. Rows run downwards from the front or from the top.
_PLANES: dict[str, tuple[tuple[int, int, int], tuple[bool, bool]]] = {
    "axial": ((2, 1, 0), (True, False)),
    "coronal": ((1, 2, 0), (True, False)),
    "sagittal": ((0, 2, 1), (True, False)),
}
_MIN_PIXELS = 8


def in_plane_extent(scan: Scan, foreground: np.ndarray | None, plane: Plane = "axial") -> tuple[float, float]:
    """Height and width in mm of the bounding box of the main parts of a foreground (X, Y, Z), or of the whole volume.

    Raises
    ------
    ScanReadError
        If the foreground is empty.
    """
    axes, flips = _view_of(scan, plane)
    rows, columns = _bounding_box(scan, foreground, axes, flips)
    height, width = (last - first + 1 for first, last in (rows, columns))
    return float(height * scan.spacing[axes[1]]), float(width * scan.spacing[axes[2]])


def voxel_sides(scan: Scan, plane: Plane = "axial") -> tuple[float, float, float]:
    """Height and width in mm of a voxel in the slice plane, and its thickness across it."""
    across, rows, columns = axes_of(scan, plane)
    height, width, thickness = scan.spacing[[rows, columns, across]].tolist()
    return height, width, thickness


def find_better_plane(scan: Scan, plane: Plane) -> Plane | None:
    """Return the plane to take instead if the sides of voxels differ much within the slices of `plane`, else None."""
    ratios = {}
    for candidate in get_args(Plane):
        sides = scan.spacing[list(axes_of(scan, candidate)[1:])]
        ratios[candidate] = sides.max() / sides.min()
    best = min(ratios, key=lambda candidate: (ratios[candidate], candidate != plane))
    return best if ratios[plane] >= THICK_RATIO and best != plane else None


@dataclass(frozen=True)
class GridPlan:
    """How the slices of one scan are brought to the network's grid, and how its maps are brought back.

    Slices run towards the patient's head (axial), front (coronal) or right (sagittal). In an axial slice rows run from
    the front to the back and columns from the patient's left to the right, without a radiologist's mirroring; in a
    coronal slice rows run from top to bottom and columns from left to right; in a sagittal slice rows run from top to
    bottom and columns from back to front. Directions are those closest to the voxel axes: oblique scans stay on their
    voxel grid. Nothing is resampled through the slices.

    Attributes
    ----------
    plane : {"axial", "coronal", "sagittal"}
    shape : tuple of int
        Shape (X, Y, Z) of the scan.
    axes, flips : tuple of int and of bool
        Voxel axes of slices, rows and columns, and whether these run against them.
    step, origin : tuple of float
        Voxels per pixel along rows and columns, and the voxel of pixel (0, 0), after flipping.
    size : tuple of int
        Height and width of the network's slices in pixels.
    slice_thickness : float
        Distance between slices in mm.
    """

    plane: Plane
    shape: tuple[int, int, int]
    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    step: tuple[float, float]
    origin: tuple[float, float]
    size: tuple[int, int]
    slice_thickness: float

    @classmethod
    def for_scan(
        cls,
        scan: Scan,
        foreground: np.ndarray | None,
        *,
        plane: Plane = "axial",
        spacing: float,
        size: tuple[int, int],
    ) -> GridPlan:
        """Centre the network's frame on the bounding box of the `main_parts` of a foreground, or of the whole volume.

        Parameters
        ----------
        scan : Scan
            Gives orientation, shape and voxel size.
        foreground : ndarray of shape (X, Y, Z), bool, or None
            None means the whole volume.
        plane : {"axial", "coronal", "sagittal"}
        spacing : float
            Size of the network's pixels in mm.
        size : tuple of int
            Height and width of its slices in pixels. What does not fit is cropped, what is missing is 0.

        Raises
        ------
        ScanReadError
            If the foreground is empty or the slices are narrower than 8 voxels.
        InputError
            If plane, spacing or size are impossible.
        """
        if not (np.isfinite(spacing) and spacing > 0 and min(size) > 0):
            raise InputError(f"spacing and size must be positive; got {spacing!r} mm and {size!r} pixels.")
        axes, flips = _view_of(scan, plane)
        box = _bounding_box(scan, foreground, axes, flips)
        lines = []
        for (first, last), axis, n_pixels in zip(box, axes[1:], size, strict=True):
            step = spacing / float(scan.spacing[axis])
            origin = (first + last) / 2 - step * (n_pixels - 1) / 2
            if (
                abs(step - 1.0) < 1e-5
            ):  # equal grids: put pixels on voxels instead of blurring by half a voxel
                step, origin = 1.0, float(np.floor(origin + 0.5))
            lines.append((step, origin))
        (row_step, row_origin), (column_step, column_origin) = lines
        steps, origins = (row_step, column_step), (row_origin, column_origin)
        thickness = float(scan.spacing[axes[0]])
        return cls(
            plane, scan.data.shape, axes, flips, steps, origins, (int(size[0]), int(size[1])), thickness
        )

    @property
    def n_slices(self) -> int:
        """Number of slices; the scan's own."""
        return self.shape[self.axes[0]]

    def forward(self, volume: np.ndarray, *, order: int = 1) -> np.ndarray:
        """Bring a volume (X, Y, Z) to the network's grid: (n_slices, H, W), float32.

        Order 0 takes the nearest voxel (for masks); 1 interpolates linearly, and averages where pixels are larger than
        voxels. 0 where the frame reaches beyond the scan.
        """
        if volume.shape != self.shape:
            raise InputError(f"The volume must have the scan's shape {self.shape}; got {volume.shape}.")
        weights = [
            _weights(pixels, voxels, start, step, order) for pixels, voxels, start, step in self._lines()
        ]
        slices = np.empty((self.n_slices, *self.size), dtype=np.float32)
        for target, source in zip(slices, self._view(volume), strict=True):
            target[...] = _resample(source, *weights)
        return slices

    def inverse(self, slices: np.ndarray, *, order: int = 1) -> np.ndarray:
        """Bring maps (n_slices, H, W) back to the scan's voxels: (X, Y, Z), float32.

        `order` is as in `forward`; 0 where the network's frame does not reach.
        """
        if slices.shape != (self.n_slices, *self.size):
            raise InputError(f"The maps must have shape {(self.n_slices, *self.size)}; got {slices.shape}.")
        weights = [
            _weights(voxels, pixels, -start / step, 1.0 / step, order)
            for pixels, voxels, start, step in self._lines()
        ]
        volume = np.empty(self.shape, dtype=np.float32, order="F")
        for target, source in zip(self._view(volume), slices, strict=True):
            target[...] = _resample(source, *weights)
        return volume

    def reach(self, slices: np.ndarray) -> np.ndarray:
        """Tell which voxels (X, Y, Z) of some slices (n_slices,), bool, lie within the network's frame."""
        rows, columns = (
            _is_within((np.arange(voxels) - start) / step, pixels)
            for pixels, voxels, start, step in self._lines()
        )
        reached = np.zeros(self.shape, dtype=bool, order="F")
        self._view(reached)[...] = slices[:, None, None] & rows[:, None] & columns
        return reached

    def _lines(self) -> Iterator[tuple[int, int, float, float]]:
        """Return pixels, voxels, origin and step of rows and columns."""
        return zip(
            self.size, (self.shape[axis] for axis in self.axes[1:]), self.origin, self.step, strict=True
        )

    def _view(self, volume: np.ndarray) -> np.ndarray:
        """Look at a volume as (slices, rows, columns) without copying it."""
        reverse = tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)
        return volume.transpose(self.axes)[reverse]


def _view_of(scan: Scan, plane: Plane) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    if plane not in _PLANES:
        raise InputError(f"plane must be one of {sorted(_PLANES)}; got {plane!r}.")
    axes, reversed_ = axes_of(scan, plane), _PLANES[plane][1]
    orientation = io_orientation(scan.affine)
    against = [bool(orientation[axis, 1] < 0) for axis in axes]
    flips = (against[0], against[1] != reversed_[0], against[2] != reversed_[1])
    height, width = (scan.data.shape[axis] for axis in axes[1:])
    if min(height, width) < _MIN_PIXELS:
        raise ScanReadError(
            scan.id,
            f"has {plane} slices of {height} x {width} voxels; at least {_MIN_PIXELS} each way are needed. "
            "Choose another plane.",
        )
    return axes, flips


def axes_of(scan: Scan, plane: Plane) -> tuple[int, int, int]:
    """Return the voxel axes of slices, rows and columns."""
    orientation = io_orientation(scan.affine)[:, 0]
    slices, rows, columns = (int(np.flatnonzero(orientation == axis)[0]) for axis in _PLANES[plane][0])
    return slices, rows, columns


def _bounding_box(
    scan: Scan, foreground: np.ndarray | None, axes: tuple[int, int, int], flips: tuple[bool, bool, bool]
) -> list[tuple[int, int]]:
    """First and last voxel of the main parts along rows and columns, counted in their direction."""
    main, box = None if foreground is None else main_parts(foreground), []
    for axis, flip in zip(axes[1:], flips[1:], strict=True):
        n_voxels = scan.data.shape[axis]
        if main is None:
            box.append((0, n_voxels - 1))
            continue
        inside = np.flatnonzero(main.any(axis=tuple({0, 1, 2} - {axis})))
        if inside.size == 0:
            raise ScanReadError(scan.id, "has no foreground. Check the scan or its mask.")
        first, last = int(inside[0]), int(inside[-1])
        box.append((n_voxels - 1 - last, n_voxels - 1 - first) if flip else (first, last))
    return box


def _weights(n_out: int, n_in: int, origin: float, step: float, order: int) -> sparse.csr_array:
    """Matrix (n_out, n_in) that samples a line at ``origin + step * i``.

    Linear interpolation whose kernel widens with steps above 1, so that nothing is skipped. Samples beyond
    the outer faces of the line's first and last element have no weights.
    """
    if order not in (0, 1):
        raise InputError(f"order must be 0 (nearest) or 1 (linear); got {order!r}.")
    centres = origin + step * np.arange(n_out)
    width = max(1.0, step) if order else 0.5
    reach = int(np.ceil(width))
    columns = np.floor(centres + 0.5).astype(int)[:, None] + np.arange(-reach, reach + 1)
    if order:
        values = np.maximum(0.0, 1.0 - np.abs(columns - centres[:, None]) / width)
    else:
        values = (columns == columns[:, reach : reach + 1]).astype(float)
    values *= _is_within(centres, n_in)[:, None] & (columns >= 0) & (columns < n_in)
    values /= np.maximum(values.sum(axis=1, keepdims=True), 1e-12)
    rows = np.broadcast_to(np.arange(n_out)[:, None], columns.shape)
    used = values > 0
    matrix = sparse.coo_array((values[used], (rows[used], columns[used])), shape=(n_out, n_in))
    return matrix.astype(np.float32).tocsr()


def _is_within(centres: np.ndarray, n_in: int) -> np.ndarray:
    """Tell which positions lie between the outer faces of the first and the last of ``n_in`` elements of a line."""
    return (centres >= -0.5) & (centres < n_in - 0.5)


def _resample(image: np.ndarray, rows: sparse.csr_array, columns: sparse.csr_array) -> np.ndarray:
    # One memory layout for every orientation: then the sums, too, are the same to the last bit.
    image = np.ascontiguousarray(image, dtype=np.float32)
    result = (columns @ np.ascontiguousarray((rows @ image).T)).T
    # Rounded weights may add up to a little more than 1.
    return np.clip(result, min(0.0, image.min()), max(0.0, image.max()))
