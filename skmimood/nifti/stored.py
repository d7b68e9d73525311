"""Images of other formats, opened as nibabel images whose voxels stay in their files until they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from nibabel.spatialimages import SpatialImage

RAS_OF_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From the world of DICOM and ITK, which points to the left and to the back, to that of NIfTI."""


class StoredVoxels:
    """What nibabel calls an array proxy: ``read()`` returns voxels of this shape, which may have a remark."""

    is_proxy = True

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: Any,
        read: Callable[[], np.ndarray],
        remarks: tuple[str, ...] = (),
    ) -> None:
        self.shape, self.ndim, self.dtype, self.remarks = shape, len(shape), np.dtype(dtype), remarks
        self._read = read

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self._read().astype(dtype or self.dtype, copy=False)

    def __getitem__(self, key: Any) -> np.ndarray:
        return np.asarray(self)[key]


def stored_image(
    affine: np.ndarray, shape: tuple[int, ...], dtype: Any, read: Callable[[], np.ndarray], *remarks: str
) -> SpatialImage:
    """Return an image with `StoredVoxels`; ``affine`` (4, 4) is that of NIfTI's world, in mm."""
    voxels: Any = StoredVoxels(shape, dtype, read, remarks)
    return SpatialImage(voxels, affine)
