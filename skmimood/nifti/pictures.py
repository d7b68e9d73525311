"""PNG, JPEG and TIFF pictures as scans of one slice, by Pillow."""

from __future__ import annotations

import io
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from nibabel.spatialimages import SpatialImage

from skmimood.nifti.geometry import UnsoundError
from skmimood.nifti.stored import stored_image

_FORMATS = ("PNG", "JPEG", "TIFF")
_TYPES = {"1": np.uint8, "L": np.uint8, "I;16": np.uint16, "I;16B": np.uint16, "I": np.int32, "F": np.float32}
_AFFINE = np.diag([1.0, -1.0, 1.0, 1.0])  # of an axial slice that is shown as the picture is


def open_picture(path: Path) -> SpatialImage:
    """Read the header of a picture, whose pixels count as 1 mm wide."""
    try:
        from PIL import Image
    except ImportError:
        raise UnsoundError('needs Pillow. Install it with: pip install "skmimood[pictures]"') from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a size that is checked by max_bytes
            with Image.open(path, formats=_FORMATS) as picture:
                shape, mode, n_pages = picture.size, picture.mode, getattr(picture, "n_frames", 1)
    except Exception as error:
        raise _fault(error) from None
    if n_pages > 1:
        raise UnsoundError(
            f"holds {n_pages} pictures. Write each into a file of its own, or a volume as NIfTI."
        )
    remarks = () if mode in _TYPES else ("its colours were taken as their luminance",)
    return stored_image(_AFFINE, shape, _TYPES.get(mode, np.uint8), partial(_read, path), *remarks)


def _read(path: Path) -> np.ndarray:
    """Return the pixels (X, Y) of a picture, its columns first."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_FORMATS) as picture:
                return np.asarray(picture if picture.mode in _TYPES else picture.convert("L")).T
    except Exception as error:
        raise _fault(error) from None


def encode_picture(image: SpatialImage) -> bytes:
    """Return an image of one slice as the bytes of a TIFF file, which holds numbers of any kind."""
    from PIL import Image

    pixels = np.asarray(image.dataobj).reshape(image.shape[:2]).T
    stream = io.BytesIO()
    is_plain = pixels.dtype in (np.uint8, np.uint16, np.float32)
    Image.fromarray(pixels if is_plain else pixels.astype(np.int32)).save(stream, "TIFF")
    return stream.getvalue()


def _fault(error: Exception) -> Exception:
    """Return `UnsoundError` for what Pillow raises on a damaged file, of many kinds."""
    if isinstance(error, (MemoryError, UnsoundError, FileNotFoundError, PermissionError)):
        return error
    return UnsoundError(f"is no sound PNG, JPEG or TIFF picture ({type(error).__name__}). Export it again.")
