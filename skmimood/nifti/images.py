"""Scans from files and nibabel images, and maps back into images that carry nothing but geometry."""

from __future__ import annotations

import gzip
import os
from dataclasses import dataclass, field
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from skmimood.exceptions import InputError, ScanReadError, ScanWriteError
from skmimood.nifti.geometry import Grid, in_millimetres
from skmimood.nifti.itk import ITK_EXTENSIONS, encode_itk
from skmimood.nifti.names import RESULT_EXTENSIONS, Source, file_name, result_extension, scan_id
from skmimood.nifti.pictures import encode_picture
from skmimood.nifti.reading import read_volume
from skmimood.runtime.files import replacing
from skmimood.runtime.paths import expand

DEFAULT_MAX_BYTES = 2 * 2**30
_TOO_LARGE = 1e30  # no intensity; sums and differences of such numbers are infinite
_GROUND_SHARE = 0.1  # of the finite voxels


@dataclass(frozen=True, eq=False)
class Scan:
    """One scan in the voxel order of its file.

    Attributes
    ----------
    id : str
        What the scan is called: see :func:`skmimood.nifti.scan_ids`.
    data : ndarray of shape (X, Y, Z), float32
        Finite intensities; NaN and infinities have become background.
    affine : ndarray of shape (4, 4), float64
        The input's own affine, in its own spatial unit.
    invalid : ndarray of shape (X, Y, Z), bool, or None
        Voxels that were NaN or infinite; None if there were none.
    shape : tuple of int
        The input's own shape. It may be 2-D or have trailing ones, and maps go back to it.
    warnings : tuple of str
        What was odd about the input but can be worked with.
    header : nibabel.Nifti1Header or None
        Form codes, voxel sizes and units of the input and nothing else of its header.
    extension : str
        Of files on its grid: that of its format, ``.nii.gz`` where there is none or it cannot be written.
    """

    id: str
    data: np.ndarray
    affine: np.ndarray
    invalid: np.ndarray | None
    shape: tuple[int, ...]
    warnings: tuple[str, ...] = ()
    header: Nifti1Header | None = field(default=None, repr=False)
    extension: str = ".nii.gz"

    @property
    def affine_mm(self) -> np.ndarray:
        """Affine in millimetres, ndarray of shape (4, 4)."""
        return self.affine if self.header is None else in_millimetres(self.affine, self.header)

    @property
    def grid(self) -> Grid:
        """Where the voxels lie."""
        return Grid(self.data.shape, self.affine_mm)

    @property
    def spacing(self) -> np.ndarray:
        """Distance in mm between neighbouring voxels along the three voxel axes, ndarray of shape (3,)."""
        return voxel_sizes(self.affine_mm)


def read_scan(
    source: Source,
    *,
    max_bytes: int = DEFAULT_MAX_BYTES,
    volume: int | None = None,
    max_invalid: float = 0.01,
    index: int = 0,
    name: str | None = None,
) -> Scan:
    """Read one scan after its header has passed every check.

    Parameters
    ----------
    source : str, path or nibabel image
        A NIfTI-1 or NIfTI-2 file, plain or gzip (its content decides, not its name); a file of FreeSurfer (``.mgz``,
        ``.mgh``), NRRD (``.nrrd``, ``.nhdr``) or MetaImage (``.mha``, ``.mhd``); a DICOM file or the folder of a
        series; a picture (``.png``, ``.jpg``, ``.tif``); or any nibabel image.
    max_bytes : int
        Largest amount of voxel data to accept, in bytes, computed from the header.
    volume : int, optional
        Which volume of a 4-D scan to take.
    max_invalid : float
        Largest accepted share of NaN and infinite voxels, those beyond 1e30 included, in the whole volume, in [0, 1];
        up to it they become background: 0, or the level of the air where that is negative. `ScanDetector` judges the
        head alone.
    index : int
        Position in the list of scans; names an image that has no file.
    name : str, optional
        What to call the scan; by default what :func:`skmimood.nifti.scan_id` calls it.

    Raises
    ------
    ScanReadError
        If the scan is missing, damaged, too large or not a real-valued 2-D, 3-D or chosen 4-D volume.
    """
    name = name or scan_id(source, index)
    file = file_name(source) or name
    voxels, geometry, shape, remarks = read_volume(source, file, max_bytes, volume)
    invalid = ~((voxels > -_TOO_LARGE) & (voxels < _TOO_LARGE))
    share = float(invalid.mean())
    if share > max_invalid or share == 1:
        raise ScanReadError(
            file,
            f"has NaN or infinite values in {share:.2%} of its voxels (limit {max_invalid:.2%}). "
            "Replace them by the background value.",
        )
    if share:
        background = _background_level(voxels[~invalid])
        voxels[invalid] = background
        remarks += (f"{int(invalid.sum())} NaN or infinite voxels were taken as {background:g}",)
    missing = invalid if share else None
    return Scan(
        name, voxels, geometry.affine, missing, shape, remarks, geometry.header, result_extension(source)
    )


def make_image(values: np.ndarray, like: Scan, *, dtype: Any = np.float32) -> nib.Nifti1Image:
    """Put values (X, Y, Z) or ``like.shape`` on a scan's grid into an image of that shape with a fresh header.

    Shape, affine, form codes, voxel sizes, units and version (NIfTI-1 or 2) are those of `like`, and nothing else of
    its header is copied. In floating point (`dtype`), voxels that were invalid in the scan become NaN.

    Raises
    ------
    InputError
        If the values are not on the scan's grid.
    """
    values = np.asarray(values)
    if values.shape not in (like.data.shape, like.shape):
        raise InputError(
            f"Values must have the scan's shape {like.data.shape}; got {values.shape}. "
            "Bring them back to the scan's grid first."
        )
    array = np.array(values.reshape(like.data.shape), dtype=dtype, order="F")
    if like.invalid is not None and np.issubdtype(array.dtype, np.floating):
        array[like.invalid] = np.nan
    header = None if like.header is None else like.header.copy()
    if header is not None:
        header.set_data_dtype(array.dtype)
    make = nib.Nifti2Image if isinstance(header, Nifti2Header) else nib.Nifti1Image
    return make(array.reshape(like.shape, order="F"), like.affine, header)


def write_image(image: nib.Nifti1Image, path: str | os.PathLike, *, overwrite: bool = False) -> None:
    """Write an image as a whole or not at all; the same image always gives the same bytes.

    The extension of the path, ``.nii``, ``.nii.gz``, ``.mgz``, ``.nrrd``, ``.mha`` or ``.tif``, chooses the format.
    Its folder must exist; a file that is there is replaced only with `overwrite`.

    Raises
    ------
    ScanWriteError
        If the file exists, has another extension, or cannot be written. No partial file is left.
    """
    path = expand(path)
    extension = next(
        (each for each in (*RESULT_EXTENSIONS, ".nii") if path.name.lower().endswith(each)), None
    )
    if extension is None:
        *most, last = (*RESULT_EXTENSIONS, ".nii")
        raise ScanWriteError(
            f"Cannot write {path.name!r}: images end in {', '.join(most)} or {last}. Choose such a name."
        )
    if os.path.lexists(path) and not overwrite:
        raise ScanWriteError(f"{path.name} exists already. Pass overwrite=True or choose another name.")
    with replacing(path) as stream:
        if extension in ITK_EXTENSIONS:
            stream.write(encode_itk(image, extension))
        elif extension == ".tif":
            stream.write(encode_picture(image))
        elif extension == ".nii":
            image.to_file_map({"image": nib.FileHolder(fileobj=stream)})
        else:
            stored = _as_mgh(image) if extension == ".mgz" else image
            # No name and no time in the gzip header: they would reveal the path and make equal images differ.
            with gzip.GzipFile(filename="", mode="wb", fileobj=stream, compresslevel=4, mtime=0) as zipped:
                stored.to_file_map({"image": nib.FileHolder(fileobj=zipped)})


def _as_mgh(image: nib.Nifti1Image) -> nib.MGHImage:
    """Return an image as FreeSurfer's, which knows no unsigned integers but of one byte."""
    array = np.asarray(image.dataobj)
    return nib.MGHImage(
        array if array.dtype in (np.uint8, np.float32) else array.astype(np.int32), image.affine
    )


def _background_level(values: np.ndarray) -> float:
    """Return 0, or the lowest value where it is negative and many voxels lie near it, as air does in CT."""
    low, high = np.percentile(values, [0.5, 99.5])
    has_dark_ground = (values <= low + 0.05 * (high - low)).mean() >= _GROUND_SHARE
    return float(low) if low < 0 and has_dark_ground else 0.0
