"""NRRD and MetaImage, by SimpleITK."""

from __future__ import annotations

import os
import re
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.spatialimages import SpatialImage

from skmimood.nifti.geometry import UnsoundError
from skmimood.nifti.stored import RAS_OF_LPS, stored_image

_READERS = dict.fromkeys((".nrrd", ".nhdr"), "NrrdImageIO") | dict.fromkeys((".mha", ".mhd"), "MetaImageIO")
ITK_EXTENSIONS = tuple(_READERS)
_VOXEL_FILE = re.compile(rb"^(?:ElementDataFile *=|data file:) *(\S.*?)\s*$", re.IGNORECASE | re.MULTILINE)
_TYPES = ("UInt8", "Int8", "UInt16", "Int16", "UInt32", "Int32", "UInt64", "Int64", "Float32", "Float64")


def open_itk(path: Path) -> SpatialImage:
    """Read the header of an NRRD or MetaImage file; several values a voxel are several volumes."""
    itk = _simple_itk()
    _check_voxel_file(path)
    reader = itk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(_READERS[path.suffix.lower()])
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        raise UnsoundError(_no_sound_file(path)) from None
    types = {getattr(itk, f"sitk{kind}{name}"): name for name in _TYPES for kind in ("", "Vector")}
    if (name := types.get(reader.GetPixelID())) is None:
        kind = itk.GetPixelIDValueAsString(reader.GetPixelID())
        raise UnsoundError(f"holds values of type {kind}, not real numbers. Convert it to one channel.")
    n_axes, n_components = reader.GetDimension(), reader.GetNumberOfComponents()
    n_places = min(n_axes, 3)
    affine = np.eye(4)
    affine[:n_places, 3] = reader.GetOrigin()[:n_places]
    directions = np.reshape(reader.GetDirection(), (n_axes, n_axes))[:n_places, :n_places]
    affine[:n_places, :n_places] = directions * reader.GetSpacing()[:n_places]
    shape = (*reader.GetSize(), *((1,) * (3 - n_axes) + (n_components,) if n_components > 1 else ()))
    return stored_image(RAS_OF_LPS @ affine, shape, name.lower(), partial(_read, reader))


def voxel_file(path: Path) -> Path | None:
    """Return the file that a header names as that of its voxels; None if they follow the header."""
    with open(path, "rb") as stream:
        header = stream.read(2**16)
    if _READERS[path.suffix.lower()] == "NrrdImageIO":
        header = re.split(rb"\r?\n\r?\n", header, maxsplit=1)[0]
    named = _VOXEL_FILE.search(header)
    return None if named is None or named[1].upper() == b"LOCAL" else path.parent / os.fsdecode(named[1])


def _check_voxel_file(path: Path) -> None:
    """Raise `UnsoundError` if a header names voxels elsewhere, as one of a stranger could name any file."""
    voxels = voxel_file(path)
    if voxels is None:
        return
    if not Path(os.path.abspath(voxels)).is_relative_to(os.path.abspath(path.parent)):
        raise UnsoundError("names voxels outside of its own folder. Put their file beside it.")
    if not voxels.is_file():  # a device or a pipe would be read for ever
        raise UnsoundError(_no_sound_file(path))


def _no_sound_file(path: Path) -> str:
    return f"is no sound {path.suffix} file, or the file with its voxels is missing. Export it again."


def _read(reader: Any) -> np.ndarray:
    from SimpleITK import GetArrayFromImage

    try:
        array = GetArrayFromImage(reader.Execute())
    except RuntimeError:
        raise UnsoundError("is truncated or damaged. Copy or export it again.") from None
    n_axes = len(reader.GetSize())
    # From (z, y, x, component) to (x, y, z, component).
    return array.transpose([*range(n_axes)[::-1], *range(n_axes, array.ndim)])


def encode_itk(image: SpatialImage, extension: str) -> bytes:
    """Return an image as the bytes of a compressed NRRD or MetaImage file."""
    itk = _simple_itk()
    array, affine = np.asarray(image.dataobj), RAS_OF_LPS @ image.affine
    n_axes = min(array.ndim, 3)
    spacing = voxel_sizes(affine)[:n_axes]
    picture = itk.GetImageFromArray(array.T.copy(), isVector=False)
    more = array.ndim - n_axes
    picture.SetSpacing([*spacing.tolist(), *[1.0] * more])
    picture.SetOrigin([*affine[:n_axes, 3].tolist(), *[0.0] * more])
    directions = np.eye(array.ndim)
    directions[:n_axes, :n_axes] = affine[:n_axes, :n_axes] / spacing
    picture.SetDirection(directions.ravel().tolist())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"image{extension}")
        itk.WriteImage(picture, str(path), useCompression=True)
        return path.read_bytes()


def _simple_itk() -> Any:
    try:
        import SimpleITK
    except ImportError:
        raise UnsoundError('needs SimpleITK. Install it with: pip install "skmimood[itk]"') from None
    return SimpleITK
