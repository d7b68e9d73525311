"""Bounded reading of one volume: no header is used before it has been checked.

nibabel (5.4) loads files with a wrong checksum, negative or zero dimensions or an affine of NaN without a warning, and
allocates whatever a header announces. So nibabel parses the header, it is checked here, and exactly the voxels that
it announces are read in small blocks; gzip is then read to its checksum.
"""

from __future__ import annotations

import contextlib
import gzip
import logging
import math
import os
import stat
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.freesurfer import MGHImage
from nibabel.freesurfer.mghformat import MGHError
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError, SpatialImage

from skmimood.exceptions import InputError, ScanReadError
from skmimood.nifti.dicom import is_dicom, open_series
from skmimood.nifti.geometry import Geometry, Grid, UnsoundError, read_geometry
from skmimood.nifti.itk import ITK_EXTENSIONS, open_itk
from skmimood.nifti.names import PICTURES, Source, conversion
from skmimood.nifti.pictures import open_picture
from skmimood.runtime.paths import expand

_HEADER_BYTES: dict[int, type[Nifti1Header]] = {348: Nifti1Header, 540: Nifti2Header}
_BYTE_ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")
_CHUNK_VOXELS = 2**20
_GZIP_SLACK = 2**20  # bytes tolerated after the last voxel
_DEFLATE_RATIO = 1032  # the most that gzip can compress
_MAX_OFFSET = 2**26  # header extensions beyond 64 MiB are not credible
_FAULTS = (
    *(OSError, EOFError, zlib.error, MemoryError, OverflowError, ValueError, TypeError, KeyError),
    *(HeaderDataError, ImageFileError, MGHError, np.linalg.LinAlgError),
)
_EXPLANATIONS: dict[tuple[type[BaseException], ...], str] = {
    (FileNotFoundError,): "does not exist, or is a broken link. Check the path.",
    (EOFError,): "is truncated. Copy or download it again.",
    (gzip.BadGzipFile, zlib.error): "is corrupt (checksum or gzip stream). Copy or download it again.",
    (MemoryError,): "needs more memory than there is. Lower max_bytes or free memory.",
}
# nibabel prints to stderr what it repairs in a header; what matters of it is raised here instead.
_QUIET = logging.Logger("skmimood.quiet")
_QUIET.addHandler(logging.NullHandler())


class RawVolume(NamedTuple):
    """One volume as stored: voxels (X, Y, Z) float32, perhaps not finite, with the input's own geometry."""

    voxels: np.ndarray
    geometry: Geometry
    shape: tuple[int, ...]
    warnings: tuple[str, ...]


class _Extent(NamedTuple):
    """What a header announces: the input's shape, its three axes, its volumes and which of them is wanted."""

    shape: tuple[int, ...]
    axes: tuple[int, int, int]
    n_volumes: int
    volume: int


def read_volume(source: Source, name: str, max_bytes: int, volume: int | None) -> RawVolume:
    """Read one volume of a file or nibabel image; any fault becomes a `ScanReadError`."""
    if isinstance(source, tuple):
        raise InputError(
            f"A volume is read from one file; got a tuple of {len(source)}. Read each by itself."
        )
    with _explained(name):
        if isinstance(source, SpatialImage):
            return _read_image(source, max_bytes, volume)
        path = expand(source)
        if (image := _open_foreign(path)) is None:
            return _read_file(str(path), name, max_bytes, volume)
        if isinstance(image, MGHImage):
            _check_available(path, _end_of(image), zipped=path.suffix.lower() == ".mgz")
        raw = _read_image(image, max_bytes, volume)
        if isinstance(image, MGHImage):
            _check_gzip(path, image)
        return raw


def _open_foreign(path: Path) -> SpatialImage | None:
    """Open a file of another format than NIfTI, or a folder, as an image that is read when asked; else None."""
    extension = path.suffix.lower()
    if path.is_dir():
        return open_series(path)
    if extension in (".nii", ".gz"):
        return None
    _check_file(path)
    if extension in ITK_EXTENSIONS:
        return open_itk(path)
    if extension in (".mgz", ".mgh"):
        return MGHImage.from_filename(path)
    if extension in PICTURES:
        return open_picture(path)
    return open_series(path) if is_dicom(path) else None


def _check_gzip(path: Path, image: MGHImage) -> None:
    """Read a file to its checksum if it is zipped, which nibabel does not."""
    if path.suffix.lower() == ".mgz":
        with gzip.open(path) as stream:
            _drain(stream, _end_of(image) + _GZIP_SLACK)


def _end_of(image: MGHImage) -> int:
    stored: Any = image.dataobj
    return stored.offset + math.prod(stored.shape) * stored.dtype.itemsize


def _check_available(path: str | os.PathLike, end: int, *, zipped: bool) -> None:
    """Raise `UnsoundError` if a file cannot hold as many bytes as its header announces, however well it is packed."""
    available = os.stat(path).st_size * (_DEFLATE_RATIO if zipped else 1)
    if available < end:
        raise UnsoundError(f"is truncated: at most {available} of {end} bytes. Copy or download it again.")


def read_grid(path: str | os.PathLike, *, name: str | None = None) -> Grid:
    """Read where the voxels of a file lie, from its header alone; `name` is what errors call it.

    Raises
    ------
    ScanReadError
        If the file is missing or its header is damaged.
    """
    file = expand(path)
    name = name or file.name
    with _explained(name):
        if (image := _open_foreign(file)) is not None:
            return _grid_of(image, image.shape, image.get_data_dtype())
        with _opened(str(file), name) as (_, header, _):
            return _grid_of(header, _dimensions(header), header.get_data_dtype())


def _grid_of(source: Nifti1Header | SpatialImage, dims: Sequence[int], dtype: np.dtype) -> Grid:
    extent = _check_extent([int(n) for n in dims], dtype, sys.maxsize, 0)
    return Grid(extent.axes, read_geometry(source, extent.shape, extent.axes).affine_mm)


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        # What overflows is infinite: a voxel that is invalid, or a grid that is refused.
        with np.errstate(over="ignore", invalid="ignore"):
            yield
    except _FAULTS as error:
        # `from None`: the cause's own message may hold the full path.
        raise ScanReadError(name, _explain(error)) from None


@contextlib.contextmanager
def _opened(path: str, name: str) -> Iterator[tuple[Any, Nifti1Header, bool]]:
    """Open a file as (unpacked stream, header, whether it is gzip)."""
    _check_file(path)
    with contextlib.ExitStack() as stack:
        raw = stack.enter_context(open(path, "rb"))
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        stream: Any = stack.enter_context(gzip.GzipFile(fileobj=raw)) if zipped else raw
        yield stream, _parse_header(stream.read(540), name), zipped


def _check_file(path: str | os.PathLike) -> None:
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        raise UnsoundError("is not a regular file. Pass a file.")
    if status.st_size == 0:
        raise UnsoundError("is empty (0 bytes). Copy or export it again.")


def _dimensions(header: Nifti1Header) -> list[int]:
    return [int(n) for n in header["dim"][1 : header["dim"][0] + 1]]


def _read_file(path: str, name: str, max_bytes: int, volume: int | None) -> RawVolume:
    with _opened(path, name) as (stream, header, zipped):
        odd = []
        if path.lower().endswith((".nii", ".gz")) and path.lower().endswith(".gz") != zipped:
            odd.append(f"the name does not match the content, which is {'' if zipped else 'not '}gzip")
        dtype = header.get_data_dtype()
        extent = _check_extent(_dimensions(header), dtype, max_bytes, volume)
        geometry = read_geometry(header, extent.shape, extent.axes)
        count = math.prod(extent.axes)
        # An offset of 0 means "right after the header".
        start, size = max(int(header["vox_offset"]), header.single_vox_offset), count * dtype.itemsize
        end = start + extent.n_volumes * size
        _check_available(path, end, zipped=zipped)
        stream.seek(start + extent.volume * size)
        voxels = _read_blocks(stream, count, dtype, header.get_slope_inter()).reshape(extent.axes, order="F")
        if zipped:
            _drain(stream, end - stream.tell() + _GZIP_SLACK)
    return RawVolume(voxels, geometry, extent.shape, (*odd, *geometry.remarks))


def _parse_header(block: bytes, name: str) -> Nifti1Header:
    kinds = [
        (kind, order)
        for size, kind in _HEADER_BYTES.items()
        for order in _BYTE_ORDERS
        if len(block) >= size == int.from_bytes(block[:4], order)
    ]
    if not kinds:
        advice = conversion(name) or "Convert it to .nii or .nii.gz."
        raise UnsoundError(f"is not NIfTI: no NIfTI header at its beginning. {advice}")
    kind, order = kinds[0]
    # Left to itself, nibabel takes an impossible number of dimensions for the other byte order.
    header = kind(block[: kind.sizeof_hdr], endianness=order, check=False)
    magic = header["magic"].item()
    if magic in (b"ni1", b"ni2"):
        raise UnsoundError("is one half of a .hdr/.img pair. Convert the pair to one .nii file.")
    if magic != header.single_magic.rstrip(b"\x00"):
        raise UnsoundError("is not NIfTI (perhaps Analyze 7.5). Convert it to .nii or .nii.gz.")
    n_axes = int(header["dim"][0])
    if not 1 <= n_axes <= 7:
        raise UnsoundError(f"has a damaged header: {n_axes} dimensions. Export it again.")
    offset = float(header["vox_offset"])
    if not (math.isfinite(offset) and 0 <= offset <= _MAX_OFFSET):
        raise UnsoundError(f"has a damaged header: voxels start at byte {offset:g}. Export it again.")
    sizes = header["pixdim"][1:4].copy()
    header.check_fix(logger=_QUIET, error_level=40)
    header["pixdim"][1:4] = sizes  # nibabel repairs them by guesses; `read_geometry` has to know
    return header


def _check_extent(dims: list[int], dtype: np.dtype, max_bytes: int, volume: int | None) -> _Extent:
    shape = tuple(dims)
    if not dims or min(dims) < 1:
        raise UnsoundError(f"has impossible dimensions {shape}. Export it again.")
    while len(dims) > 3 and dims[-1] == 1:
        dims = dims[:-1]
    if not 2 <= len(dims) <= 4:
        raise UnsoundError(f"has {len(dims)} dimensions {shape}. Pass a 2-D, 3-D or 4-D scan.")
    if dtype.kind not in "iuf":
        kind = "RGB" if dtype.names else dtype.name
        raise UnsoundError(f"holds {kind} values, not real numbers. Convert it to one channel.")
    n_volumes = dims[3] if len(dims) == 4 else 1
    if n_volumes > 1 and volume is None:
        raise UnsoundError(f"holds {n_volumes} volumes {shape}. Take one of them with volume=0, 1, ...")
    if volume is not None and not 0 <= volume < n_volumes:
        raise UnsoundError(f"has no volume {volume}: it holds {n_volumes}. Choose volume= below that.")
    axes = (dims[0], dims[1], dims[2] if len(dims) > 2 else 1)
    # Whatever the file's type, the voxels are held as float32.
    needed = max(math.prod(dims) * dtype.itemsize, math.prod(axes) * 4)
    if needed > max_bytes:
        raise UnsoundError(
            f"needs {needed} bytes for shape {shape}; allowed are {max_bytes}. "
            "Raise max_bytes if the scan is genuine.",
        )
    return _Extent(axes if n_volumes > 1 else shape, axes, n_volumes, volume or 0)


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
        if slope is not None and inter is not None and (slope, inter) != (1.0, 0.0):
            values = values.astype(np.float64) * slope + inter
        voxels[first : first + size] = values
    return voxels


def _drain(stream: Any, allowed: int) -> None:
    """Read on to the end, where gzip compares its checksum, unless more comes than was announced."""
    while block := stream.read(min(2**20, allowed + 1)):
        allowed -= len(block)
        if allowed < 0:
            raise UnsoundError("unpacks to more data than its header announces. Do not trust this file.")


def _read_image(image: SpatialImage, max_bytes: int, volume: int | None) -> RawVolume:
    data = image.dataobj
    dtype = np.dtype(getattr(data, "dtype", image.get_data_dtype()))
    extent = _check_extent([int(n) for n in image.shape], dtype, max_bytes, volume)
    n_axes = len(image.shape)
    geometry = read_geometry(image, extent.shape, extent.axes)
    # nibabel's proxies read only the part that is asked for.
    part = data[(..., extent.volume, *(0,) * (n_axes - 4))] if n_axes > 3 else data
    voxels = np.asarray(part, dtype=np.float32).reshape(extent.axes, order="F")
    if isinstance(data, np.ndarray):
        voxels = voxels.copy(order="F")  # the caller's own array may change later
    return RawVolume(voxels, geometry, extent.shape, (*getattr(data, "remarks", ()), *geometry.remarks))


def _explain(error: BaseException) -> str:
    if isinstance(error, UnsoundError):
        return str(error)
    for kinds, text in _EXPLANATIONS.items():
        if isinstance(error, kinds):
            return text
    if isinstance(error, OSError):
        fault = error.strerror or "truncated or damaged"
        return f"cannot be read ({fault}). Check the file and its permissions."
    if isinstance(error, HeaderDataError):
        return f"has a damaged header ({error}). Export it again."
    return f"is damaged ({type(error).__name__}). Export it again."
