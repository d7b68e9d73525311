"""Bounded, header-first reading of one volume: no header is believed until it has been checked.

Tried on nibabel 5.4: it loads files with a wrong checksum, negative or zero dimensions or an affine of NaN
without a word, and allocates whatever a header announces. So nibabel parses the header, it is judged here,
and exactly the voxels it announces are read in small blocks; gzip is then followed to its checksum.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import logging
import math
import os
import stat
import sys
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError, SpatialImage

from skmimood.exceptions import ScanReadError

_HEADER_BYTES: dict[int, type[Nifti1Header]] = {348: Nifti1Header, 540: Nifti2Header}
_BYTE_ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")
_CHUNK_VOXELS = 2**20
_GZIP_SLACK = 2**20  # bytes tolerated after the last voxel
_DEFLATE_RATIO = 1032  # the most that gzip can compress
_MAX_OFFSET = 2**26  # header extensions beyond 64 MiB are not credible
_MM_PER_UNIT = {1: 1000.0, 2: 1.0, 3: 0.001}  # codes of metre, millimetre and micron; any other counts as mm
_VOXEL_MM = (0.01, 100.0)
_SHEAR_COSINE = 5e-3
_DISAGREEMENT_VOXELS = 0.1
_THICK_SLICE_RATIO = 3.0
_SAME_GRID_VOXELS = 0.1
_GEOMETRY_FIELDS = (
    *("sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "xyzt_units"),
)
_FAULTS = (
    *(OSError, EOFError, zlib.error, MemoryError, OverflowError, ValueError, TypeError, KeyError),
    *(HeaderDataError, ImageFileError, np.linalg.LinAlgError),
)
# nibabel tells on stderr what it repairs in a header; what matters of it is raised here instead.
_QUIET = logging.Logger("skmimood.quiet")
_QUIET.addHandler(logging.NullHandler())


class RawVolume(NamedTuple):
    """One volume as stored: voxels (X, Y, Z) float32, perhaps not finite, with the input's own geometry."""

    voxels: np.ndarray
    affine: np.ndarray
    shape: tuple[int, ...]
    warnings: tuple[str, ...]
    header: Nifti1Header


class Grid(NamedTuple):
    """Where a volume's voxels lie.

    Attributes
    ----------
    shape : tuple of three int
        Number of voxels along the three voxel axes.
    affine_mm : ndarray of shape (4, 4), float64
        Affine in millimetres.
    """

    shape: tuple[int, int, int]
    affine_mm: np.ndarray

    def matches(self, other: Grid) -> bool:
        """Tell whether the shapes are equal and no voxel lies more than a tenth of a voxel elsewhere."""
        if self.shape != other.shape:
            return False
        corners = box_corners(self.shape, margin=0.0)
        moved = apply_affine(np.linalg.inv(other.affine_mm) @ self.affine_mm, corners)
        return bool(np.abs(moved - corners).max() <= _SAME_GRID_VOXELS)


class _Extent(NamedTuple):
    """What a header announces: the input's shape, its three axes, its volumes and which of them is wanted."""

    shape: tuple[int, ...]
    axes: tuple[int, int, int]
    n_volumes: int
    volume: int


def read_volume(
    source: str | os.PathLike | SpatialImage, name: str, max_bytes: int, volume: int | None
) -> RawVolume:
    """Read one volume of a NIfTI file or nibabel image; any fault becomes a `ScanReadError`."""
    with _explained(name):
        if isinstance(source, SpatialImage):
            return _read_image(source, name, max_bytes, volume)
        return _read_file(os.path.expanduser(source), name, max_bytes, volume)


def read_grid(path: str | os.PathLike, *, name: str | None = None) -> Grid:
    """Read where the voxels of a NIfTI file lie, from its header alone.

    Parameters
    ----------
    path : str or path
        A NIfTI-1 or NIfTI-2 file, plain or gzip.
    name : str, optional
        What to call the file in errors; by default its name.

    Raises
    ------
    ScanReadError
        If the file is missing or its header is damaged.
    """
    path = os.path.expanduser(path)
    name = name or os.path.basename(path)
    with _explained(name), _opened(path, name) as (_, header, _):
        extent = _check_extent(name, _dimensions(header), header.get_data_dtype(), sys.maxsize, 0)
        affine = header.get_best_affine()
        _check_geometry(name, affine, header, extent.axes)
        unit = mm_per_unit(header)
        return Grid(extent.axes, np.diag([unit, unit, unit, 1.0]) @ affine)


def mm_per_unit(header: Nifti1Header) -> float:
    """Millimetres in one unit of the header's spatial coordinates."""
    return _MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)


def box_corners(shape: tuple[int, ...], margin: float) -> np.ndarray:
    """Corners of a volume in voxel coordinates, (8, 3); ``margin`` 0.5 reaches to the voxels' outer faces."""
    return np.array(list(itertools.product(*((-margin, n - 1 + margin) for n in shape))))


def apply_affine(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points (n, 3) by an affine (4, 4)."""
    return points @ affine[:3, :3].T + affine[:3, 3]


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except ScanReadError:
        raise
    except _FAULTS as error:
        # `from None`: the cause's own message may hold the full path.
        raise ScanReadError(name, _explain(error)) from None


@contextlib.contextmanager
def _opened(path: str, name: str) -> Iterator[tuple[Any, Nifti1Header, bool]]:
    """Open a file as (unpacked stream, header, whether it is gzip)."""
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise ScanReadError(name, "is a folder. Pass a .nii or .nii.gz file.")
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        raise ScanReadError(name, "is not a regular file. Pass a .nii or .nii.gz file.")
    if status.st_size == 0:
        raise ScanReadError(name, "is empty (0 bytes). Copy or export it again.")
    with contextlib.ExitStack() as stack:
        raw = stack.enter_context(open(path, "rb"))
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        stream: Any = stack.enter_context(gzip.GzipFile(fileobj=raw)) if zipped else raw
        yield stream, _parse_header(stream.read(540), name), zipped


def _dimensions(header: Nifti1Header) -> list[int]:
    return [int(n) for n in header["dim"][1 : header["dim"][0] + 1]]


def _read_file(path: str, name: str, max_bytes: int, volume: int | None) -> RawVolume:
    with _opened(path, name) as (stream, header, zipped):
        odd = []
        if path.lower().endswith((".nii", ".gz")) and path.lower().endswith(".gz") != zipped:
            odd.append(f"the name does not match the content, which is {'' if zipped else 'not '}gzip")
        dtype = header.get_data_dtype()
        extent = _check_extent(name, _dimensions(header), dtype, max_bytes, volume)
        affine = header.get_best_affine()
        odd += _check_geometry(name, affine, header, extent.axes)
        count = math.prod(extent.axes)
        # An offset of 0 means "right after the header".
        start, size = max(int(header["vox_offset"]), header.single_vox_offset), count * dtype.itemsize
        end = start + extent.n_volumes * size
        available = os.stat(path).st_size * (_DEFLATE_RATIO if zipped else 1)
        if available < end:
            fault = f"is truncated: at most {available} of {end} bytes. Copy or download it again."
            raise ScanReadError(name, fault)
        stream.seek(start + extent.volume * size)
        voxels = _read_blocks(stream, count, dtype, header.get_slope_inter()).reshape(extent.axes, order="F")
        if zipped:
            _drain(stream, end - stream.tell() + _GZIP_SLACK, name)
    return RawVolume(voxels, affine, extent.shape, tuple(odd), _geometry_only(header, extent.shape))


def _parse_header(block: bytes, name: str) -> Nifti1Header:
    kinds = [
        (kind, order)
        for size, kind in _HEADER_BYTES.items()
        for order in _BYTE_ORDERS
        if len(block) >= size == int.from_bytes(block[:4], order)
    ]
    if not kinds:
        raise ScanReadError(
            name, "is not NIfTI: no NIfTI header at its beginning. Convert it to .nii or .nii.gz."
        )
    kind, order = kinds[0]
    # Left to itself, nibabel takes an impossible number of dimensions for the other byte order.
    header = kind(block[: kind.sizeof_hdr], endianness=order, check=False)
    magic = header["magic"].item()
    if magic in (b"ni1", b"ni2"):
        raise ScanReadError(name, "is one half of a .hdr/.img pair. Convert the pair to one .nii file.")
    if magic != header.single_magic.rstrip(b"\x00"):
        raise ScanReadError(name, "is not NIfTI (perhaps Analyze 7.5). Convert it to .nii or .nii.gz.")
    n_axes = int(header["dim"][0])
    if not 1 <= n_axes <= 7:
        raise ScanReadError(name, f"has a damaged header: {n_axes} dimensions. Export it again.")
    offset = float(header["vox_offset"])
    if not (math.isfinite(offset) and 0 <= offset <= _MAX_OFFSET):
        raise ScanReadError(name, f"has a damaged header: voxels start at byte {offset:g}. Export it again.")
    zooms = header["pixdim"][1 : min(n_axes, 3) + 1]
    if not (np.isfinite(zooms).all() and (zooms > 0).all()):
        sizes_text = " x ".join(f"{zoom:g}" for zoom in zooms)
        raise ScanReadError(name, f"has impossible voxel sizes {sizes_text}. Repair pixdim in its header.")
    header.check_fix(logger=_QUIET, error_level=40)
    return header


def _check_extent(name: str, dims: list[int], dtype: np.dtype, max_bytes: int, volume: int | None) -> _Extent:
    shape = tuple(dims)
    if not dims or min(dims) < 1:
        raise ScanReadError(name, f"has impossible dimensions {shape}. Export it again.")
    while len(dims) > 3 and dims[-1] == 1:
        dims = dims[:-1]
    if not 2 <= len(dims) <= 4:
        raise ScanReadError(name, f"has {len(dims)} dimensions {shape}. Pass a 2-D, 3-D or 4-D scan.")
    if dtype.kind not in "iuf":
        raise ScanReadError(
            name, f"holds {_type_name(dtype)} values, not real numbers. Convert it to one channel."
        )
    n_volumes = dims[3] if len(dims) == 4 else 1
    if n_volumes > 1 and volume is None:
        raise ScanReadError(
            name, f"holds {n_volumes} volumes {shape}. Take one of them with volume=0, 1, ..."
        )
    if volume is not None and not 0 <= volume < n_volumes:
        raise ScanReadError(name, f"has no volume {volume}: it holds {n_volumes}. Choose volume= below that.")
    axes = (dims[0], dims[1], dims[2] if len(dims) > 2 else 1)
    # Whatever the file's type, the voxels are held as float32.
    needed = max(math.prod(dims) * dtype.itemsize, math.prod(axes) * 4)
    if needed > max_bytes:
        raise ScanReadError(
            name,
            f"needs {needed} bytes for shape {shape}; allowed are {max_bytes}. "
            "Raise max_bytes if the scan is genuine.",
        )
    return _Extent(axes if n_volumes > 1 else shape, axes, n_volumes, volume or 0)


def _type_name(dtype: np.dtype) -> str:
    return "RGB" if dtype.names else dtype.name


def _check_geometry(
    name: str, affine: np.ndarray | None, header: Nifti1Header, axes: tuple[int, int, int]
) -> list[str]:
    """Refuse impossible affines and return what is odd about possible ones."""
    if affine is None or not np.isfinite(affine).all():
        raise ScanReadError(name, "has no finite affine. Repair its sform or qform.")
    lengths = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    if (lengths == 0).any() or abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-3:
        raise ScanReadError(
            name, "has a singular affine: its axes do not span space. Repair its sform or qform."
        )
    spacing = lengths * mm_per_unit(header)
    text = " x ".join(f"{size:g}" for size in spacing)
    extended = spacing[np.array(axes) > 1]
    if ((extended < _VOXEL_MM[0]) | (extended > _VOXEL_MM[1])).any():
        raise ScanReadError(name, f"has implausible voxels of {text} mm. Repair its affine or its units.")
    odd = []
    cosines = (affine[:3, :3] / lengths).T @ (affine[:3, :3] / lengths) - np.eye(3)
    if np.abs(cosines).max() > _SHEAR_COSINE:
        odd.append("the affine is sheared; the scan is worked on along its own axes")
    if _forms_disagree(header, axes):
        odd.append("sform and qform disagree; the sform is used")
    if extended.size and extended.max() / extended.min() >= _THICK_SLICE_RATIO:
        odd.append(f"voxels of {text} mm are anisotropic; nothing is resampled through the slices")
    return odd


def _forms_disagree(header: Nifti1Header, axes: tuple[int, int, int]) -> bool:
    if int(header["sform_code"]) == 0 or int(header["qform_code"]) == 0:
        return False
    sform, corners = header.get_sform(), box_corners(axes, 0.0)
    try:
        qform = header.get_qform()
    except (HeaderDataError, ValueError):  # a quaternion longer than 1
        return True
    distance = np.abs(apply_affine(sform, corners) - apply_affine(qform, corners)).max()
    smallest = np.sqrt((sform[:3, :3] ** 2).sum(axis=0)).min()
    return not distance <= _DISAGREEMENT_VOXELS * smallest  # also true for NaN


def _geometry_only(header: Nifti1Header, shape: tuple[int, ...]) -> Nifti1Header:
    """Return a new header with form codes, voxel sizes and units: no description, no names, no dates."""
    fresh = Nifti2Header() if isinstance(header, Nifti2Header) else Nifti1Header()
    fresh.set_data_shape(shape)
    for key in _GEOMETRY_FIELDS:
        fresh[key] = header[key]
    fresh["pixdim"][:4] = header["pixdim"][:4]
    return fresh


def _read_blocks(
    stream: BinaryIO, count: int, dtype: np.dtype, scaling: tuple[float | None, float | None]
) -> np.ndarray:
    slope, inter = scaling
    voxels = np.empty(count, dtype=np.float32)
    for first in range(0, count, _CHUNK_VOXELS):
        size = min(_CHUNK_VOXELS, count - first)
        block = np.frombuffer(stream.read(size * dtype.itemsize), dtype=np.uint8)
        if block.size < size * dtype.itemsize:
            raise EOFError
        values = block.view(dtype)
        with np.errstate(over="ignore", invalid="ignore"):  # what exceeds float32 becomes an invalid voxel
            if slope is not None and inter is not None and (slope, inter) != (1.0, 0.0):
                values = values.astype(np.float64) * slope + inter
            voxels[first : first + size] = values
    return voxels


def _drain(stream: BinaryIO, allowed: int, name: str) -> None:
    """Read on to the end, where gzip compares its checksum, unless more comes than was announced."""
    while block := stream.read(min(2**20, allowed + 1)):
        allowed -= len(block)
        if allowed < 0:
            raise ScanReadError(
                name, "unpacks to more data than its header announces. Do not trust this file."
            )


def _read_image(image: SpatialImage, name: str, max_bytes: int, volume: int | None) -> RawVolume:
    data = image.dataobj
    dtype = np.dtype(getattr(data, "dtype", image.get_data_dtype()))
    extent = _check_extent(name, [int(n) for n in image.shape], dtype, max_bytes, volume)
    header, n_axes = _header_of(image), len(image.shape)
    odd = _check_geometry(name, image.affine, header, extent.axes)
    with np.errstate(over="ignore", invalid="ignore"):
        # nibabel's proxies read only the part that is asked for.
        part = data[(..., extent.volume, *(0,) * (n_axes - 4))] if n_axes > 3 else data
        voxels = np.asarray(part, dtype=np.float32).reshape(extent.axes, order="F")
    if isinstance(data, np.ndarray):
        voxels = voxels.copy(order="F")  # the caller's own array may change later
    affine = np.array(image.affine, dtype=np.float64)
    return RawVolume(voxels, affine, extent.shape, tuple(odd), _geometry_only(header, extent.shape))


def _header_of(image: SpatialImage) -> Nifti1Header:
    """Header with the image's geometry; other formats than NIfTI have theirs expressed as an sform."""
    if isinstance(image.header, Nifti1Header):
        return image.header
    header = Nifti1Header()
    header.set_data_shape(image.shape)
    if image.affine is not None and np.isfinite(image.affine).all():
        header["pixdim"][1:4] = np.sqrt((image.affine[:3, :3] ** 2).sum(axis=0))
        header.set_sform(image.affine, code="aligned")
        header.set_xyzt_units("mm")
    return header


def _explain(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "does not exist, or is a broken link. Check the path."
    if isinstance(error, EOFError):
        return "is truncated. Copy or download it again."
    if isinstance(error, (gzip.BadGzipFile, zlib.error)):
        return "is corrupt (checksum or gzip stream). Copy or download it again."
    if isinstance(error, MemoryError):
        return "needs more memory than there is. Lower max_bytes or free memory."
    if isinstance(error, OSError):
        fault = error.strerror or "truncated or damaged"
        return f"cannot be read ({fault}). Check the file and its permissions."
    if isinstance(error, HeaderDataError):
        return f"has a damaged header ({error}). Export it again."
    return f"is damaged ({type(error).__name__}). Export it again."
