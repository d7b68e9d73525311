"""What a mask marks, one connected part at a time: size, height, p-value and place."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from nibabel.affines import apply_affine
from scipy import ndimage


class Lesion(NamedTuple):
    """One connected part of a mask; voxels are connected across faces, edges and corners.

    Attributes
    ----------
    label : int
        Its value in the labelled mask: 1 is the largest.
    volume_mm3 : float
        Number of its voxels, in mm³.
    peak : float
        Highest value of the map in it.
    mean_pvalue : float
        Mean p-value of its voxels, in (0, 1].
    x_mm, y_mm, z_mm : float
        Mean place of its voxels in the scan's world: to the right, front and top, in mm.
    """

    label: int
    volume_mm3: float
    peak: float
    mean_pvalue: float
    x_mm: float
    y_mm: float
    z_mm: float


def find_lesions(
    mask: np.ndarray, anomaly: np.ndarray, pvalues: np.ndarray, affine_mm: np.ndarray
) -> tuple[np.ndarray, list[Lesion]]:
    """Label the connected parts of a mask by falling volume, and measure them.

    Parameters
    ----------
    mask : ndarray of shape (X, Y, Z)
        What is not 0 is marked.
    anomaly, pvalues : ndarray of shape (X, Y, Z), float32
        Maps on its grid, finite where the mask is set.
    affine_mm : ndarray of shape (4, 4)
        From voxels to mm.

    Returns
    -------
    labels : ndarray of shape (X, Y, Z), int32
        0 outside of lesions.
    lesions : list of Lesion
        In the order of their labels.
    """
    found, n_lesions = ndimage.label(mask, np.ones((3, 3, 3), dtype=int))
    if not n_lesions:
        return found.astype(np.int32), []
    sizes = np.bincount(found.ravel())[1:]
    order = np.argsort(-sizes, kind="stable")
    rank = np.zeros(n_lesions + 1, dtype=np.int32)
    rank[1 + order] = numbers = np.arange(1, n_lesions + 1, dtype=np.int32)
    labels = rank[found]
    centres = apply_affine(affine_mm, np.asarray(ndimage.center_of_mass(labels > 0, labels, numbers)))
    columns = (
        sizes[order] * abs(np.linalg.det(affine_mm[:3, :3])),
        ndimage.maximum(anomaly, labels, numbers),
        ndimage.mean(pvalues, labels, numbers),
        *centres.T,
    )
    return labels, [
        Lesion(*line) for line in zip(*(np.asarray(c).tolist() for c in (numbers, *columns)), strict=True)
    ]
