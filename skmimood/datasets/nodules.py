"""Lung nodules of LUNA16: a table of spheres, and the masks that they make on the grid of a scan."""

from __future__ import annotations

import os

import numpy as np

from skmimood.datasets.tables import read_columns
from skmimood.exceptions import InputError
from skmimood.nifti.stored import RAS_OF_LPS
from skmimood.runtime.paths import expand

_COLUMNS = ("seriesuid", "coordx", "coordy", "coordz", "diameter_mm")


def read_nodules(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read the nodules of scans from the table ``annotations.csv`` of LUNA16.

    Parameters
    ----------
    path : str or path
        A table with the columns seriesuid, coordX, coordY, coordZ and diameter_mm; other columns are ignored.

    Returns
    -------
    dict of str to ndarray of shape (n_nodules, 4), float64
        Of each scan that has any, the centre of each nodule in mm of the scan's world (x to the right, y to the front,
        z up, as nibabel's affines have it) and its diameter in mm. Scans of LUNA16 that are not in it have no nodule
        of 3 mm or more that three of four readers saw.

    Raises
    ------
    InputError
        If the file cannot be read, lacks a column or has no rows, or if a number is none or a diameter not positive.
    """
    found: dict[str, list[list[float]]] = {}
    for number, (series, *told) in enumerate(read_columns(expand(path), *_COLUMNS), start=1):
        try:
            numbers = [float(one) for one in told]
        except ValueError:
            numbers = [np.nan]
        if not np.isfinite(numbers).all() or numbers[-1] <= 0:
            raise InputError(
                f"{expand(path).name}: nodule {number} should have three coordinates and a positive diameter in mm; "
                f"got {', '.join(map(repr, told))}. Correct the table."
            )
        found.setdefault(series, []).append(numbers)
    if not found:
        raise InputError(f"{expand(path).name} has no rows. Take annotations.csv as LUNA16 gives it out.")
    return {series: np.array(nodules) * np.diag(RAS_OF_LPS) for series, nodules in found.items()}


def nodule_mask(nodules: np.ndarray, shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """Draw nodules as spheres on the grid of a scan.

    Parameters
    ----------
    nodules : ndarray of shape (n_nodules, 4)
        Centres and diameters in mm, as `read_nodules` returns them; (0, 4) for a scan without any.
    shape : tuple of int
        Of the scan, (X, Y, Z).
    affine : ndarray of shape (4, 4)
        From voxels to mm, as nibabel has it.

    Returns
    -------
    ndarray of shape (X, Y, Z), bool
        Voxels whose centre lies in a sphere; of a sphere between the voxels, the nearest one.

    Raises
    ------
    InputError
        If the centre of a nodule lies outside of the scan.
    """
    mask = np.zeros(shape, bool)
    to_voxels = np.linalg.inv(affine)
    for *centre, diameter in np.asarray(nodules, dtype=np.float64).reshape(-1, 4):
        middle = to_voxels[:3, :3] @ centre + to_voxels[:3, 3]
        nearest = np.round(middle).astype(int)
        if (nearest < 0).any() or (nearest >= shape).any():
            raise InputError(
                f"a nodule at {np.round(centre, 1).tolist()} mm lies outside of the scan. Take those of this scan."
            )
        reach = diameter / 2 * np.linalg.norm(to_voxels[:3, :3], axis=1)  # voxels along each axis
        low = np.maximum(np.floor(middle - reach), 0).astype(int)
        high = np.minimum(np.ceil(middle + reach) + 1, shape).astype(int)
        box = tuple(slice(start, stop) for start, stop in zip(low, high, strict=True))
        offsets = np.indices(high - low).transpose(1, 2, 3, 0) + low - middle
        mask[box] |= np.linalg.norm(offsets @ affine[:3, :3].T, axis=-1) <= diameter / 2
        mask[tuple(nearest)] = True
    return mask
