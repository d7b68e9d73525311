"""A DICOM series as one volume, by pydicom: slices put in order, and refused where they are no even stack."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from nibabel.spatialimages import SpatialImage

from skmimood.nifti.geometry import UnsoundError
from skmimood.nifti.stored import RAS_OF_LPS, stored_image

_EXTENSIONS = (".dcm", ".ima", ".dicom")
_DEFLATED = "1.2.840.10008.1.2.1.99"
_SAME_DIRECTION = 1e-3  # largest difference of direction cosines
_SAME_PLACE = 0.01  # mm between slices of several volumes
_UNEVEN = 0.05  # of the distance of slices
_PLANES = ("sagittal", "coronal", "axial")


class _Slice(NamedTuple):
    """A frame of a file: place of its first pixel and directions of its rows and columns in mm, pixel sizes, order."""

    file: Path
    frame: int
    position: np.ndarray
    directions: np.ndarray
    spacing: np.ndarray
    shape: tuple[int, int]
    thickness: float
    order: tuple[float, int]


def is_dicom(path: str | os.PathLike) -> bool:
    """Tell whether a file is DICOM, by its extension or its first bytes."""
    name = os.path.basename(path).lower()
    if name.startswith(".") or name == "dicomdir":
        return False
    try:
        return os.path.isfile(path) and (name.endswith(_EXTENSIONS) or _has_magic(path))
    except OSError:
        return False


def _has_magic(path: str | os.PathLike) -> bool:
    with open(path, "rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def dicom_files(folder: Path) -> list[Path]:
    """Return the DICOM files that lie directly in a folder."""
    return sorted(filter(is_dicom, folder.iterdir()))


def open_series(path: Path) -> SpatialImage:
    """Read the headers of a folder with one series, or of a file; several images at each place are volumes.

    `UnsoundError` if the files are not one even stack of slices. A tilted gantry shows as a sheared affine.
    """
    files = dicom_files(path) if path.is_dir() else [path]
    headers = {file: header for file in files if (header := _parsed(_read_header, file)) is not None}
    if not headers:
        what = "is a folder without DICOM images" if path.is_dir() else "holds no image"
        raise UnsoundError(f"{what}. Pass the folder of a series, or a file.")
    _refuse_several_series([_parsed(_series_of, file, header) for file, header in headers.items()])
    slices = [one for file, header in headers.items() for one in _parsed(_slices_of, file, header)]
    _refuse_different(slices)
    stacks, step = _stack(slices)
    first = stacks[0][0]
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = (
        first.directions[0] * first.spacing[1],
        first.directions[1] * first.spacing[0],
    )
    affine[:3, 2], affine[:3, 3] = step, first.position
    rows, columns = first.shape
    shape = (columns, rows, len(stacks[0]), *([len(stacks)] if len(stacks) > 1 else []))
    return stored_image(RAS_OF_LPS @ affine, shape, np.float32, partial(_read_stacks, stacks))


def _read_stacks(stacks: Sequence[Sequence[_Slice]]) -> np.ndarray:
    """Return the voxels (X, Y, Z) of slices, or (X, Y, Z, volumes), float32; each file is read once."""
    rows, columns = stacks[0][0].shape
    volumes = np.empty((columns, rows, len(stacks[0]), len(stacks)), np.float32)
    files: dict[Path, list[tuple[int, int, int]]] = {}
    for volume, stack in enumerate(stacks):
        for place, one in enumerate(stack):
            files.setdefault(one.file, []).append((one.frame, place, volume))
    for file, frames in files.items():
        pixels = _parsed(_read_pixels, file)
        for frame, place, volume in frames:
            volumes[:, :, place, volume] = pixels[frame].T
    return volumes if len(stacks) > 1 else volumes[..., 0]


def _parsed(read: Callable[..., Any], file: Path, *more: Any) -> Any:
    """Call a function that reads a file by pydicom; whatever it raises on a damaged file becomes `UnsoundError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's, of values that are odd and not used
            return read(file, *more)
    except (UnsoundError, MemoryError):
        raise
    except Exception as error:  # of many kinds, since each element of a file may be wrong
        raise UnsoundError(f"is damaged in {file.name} ({type(error).__name__}). Export it again.") from None


def _read_header(file: Path) -> Any:
    """Return the header of an image; None if the file holds none."""
    header = _read(file, stop_before_pixels=True)
    if "Rows" not in header or "BitsAllocated" not in header:
        return None
    if header.get("SamplesPerPixel", 1) != 1:
        raise UnsoundError(f"holds pictures in colour, such as {file.name}. Export the scan itself.")
    if "MOSAIC" in (header.get("ImageType") or ()):
        raise UnsoundError(
            "holds mosaics, whose slices are one picture. Convert it, with dcm2niix for instance."
        )
    return header


def _read(file: Path, **options: Any) -> Any:
    try:
        import pydicom
    except ImportError:
        raise UnsoundError('needs pydicom. Install it with: pip install "skmimood[dicom]"') from None
    if (
        _has_magic(file)
        and pydicom.filereader.read_file_meta_info(file).get("TransferSyntaxUID") == _DEFLATED
    ):
        # pydicom would unpack it without a limit.
        raise UnsoundError(
            f"is packed as a whole (deflated) in {file.name}. Convert it, with dcm2niix for instance."
        )
    return pydicom.dcmread(file, force=True, **options)


def _read_pixels(file: Path) -> np.ndarray:
    """Return the values of all frames of a file, (frames, rows, columns)."""
    header = _read(file)
    try:
        stored = header.pixel_array
    except (NotImplementedError, RuntimeError):
        raise UnsoundError(
            f"is compressed in a way that needs a decoder ({header.file_meta.TransferSyntaxUID.name}). Install "
            "pylibjpeg with its plugins, or convert the scan, with dcm2niix for instance."
        ) from None
    pixels = stored.reshape(-1, header.Rows, header.Columns).astype(np.float32)
    if header.get("PhotometricInterpretation") == "MONOCHROME1":  # low values are white
        pixels = 2.0**header.BitsStored - 1 - pixels
    scalings = [_group(header, k, "PixelValueTransformationSequence") or header for k in range(len(pixels))]
    slopes, intercepts = (
        np.asarray([float(one.get(f"Rescale{name}", default)) for one in scalings], np.float32)[:, None, None]
        for name, default in (("Slope", 1), ("Intercept", 0))
    )
    return pixels * slopes + intercepts


def _slices_of(file: Path, header: Any) -> list[_Slice]:
    """Return the frames of a file with their places; without a place, NaN."""
    slices = []
    for frame in range(int(header.get("NumberOfFrames", 1) or 1)):
        place, plane, measures = (
            _group(header, frame, f"{name}Sequence") or header
            for name in ("PlanePosition", "PlaneOrientation", "PixelMeasures")
        )
        position = place.get("ImagePositionPatient") or [np.nan] * 3
        directions = plane.get("ImageOrientationPatient") or [1, 0, 0, 0, 1, 0]
        spacing = measures.get("PixelSpacing") or header.get("ImagerPixelSpacing") or [1, 1]
        thickness = measures.get("SpacingBetweenSlices") or measures.get("SliceThickness") or 1
        slices.append(
            _Slice(
                file, frame, np.asarray(position, float), np.reshape(np.asarray(directions, float), (2, 3)),
                np.asarray(spacing, float), (int(header.Rows), int(header.Columns)), float(thickness),
                (float(header.get("InstanceNumber") or 0), frame),
            )
        )  # fmt: skip
    return slices


def _group(header: Any, frame: int, name: str) -> Any:
    """Return a functional group of a frame of an enhanced image, its own or that of all; None if there is none."""
    own = header.get("PerFrameFunctionalGroupsSequence") or []
    for groups in (own[frame : frame + 1], header.get("SharedFunctionalGroupsSequence") or []):
        for group in groups:
            if group.get(name):
                return group.get(name)[0]
    return None


def _series_of(file: Path, header: Any) -> tuple[str, str]:
    """Return the number of a file's series, and what it is called."""
    return str(header.get("SeriesInstanceUID", "")), str(header.get("SeriesDescription") or "")


def _refuse_several_series(series: Sequence[tuple[str, str]]) -> None:
    uids, titles = Counter(uid for uid, _ in series), dict(series)
    if len(uids) > 1:
        named = ", ".join(f"{titles[uid] or 'unnamed'} ({n} files)" for uid, n in uids.most_common(5))
        raise UnsoundError(f"holds {len(uids)} series: {named}. Put each into a folder of its own.")


def _refuse_different(slices: Sequence[_Slice]) -> None:
    """Raise `UnsoundError` unless all slices have one orientation, shape and pixel size, as a volume has."""
    first = slices[0]
    normals = np.asarray([np.cross(*one.directions) for one in slices])
    if any(np.abs(one.directions - first.directions).max() > _SAME_DIRECTION for one in slices):
        planes = Counter(_PLANES[k] for k in np.abs(normals).argmax(axis=1))
        named = ", ".join(f"{n} {plane}" for plane, n in planes.items())
        raise UnsoundError(
            f"holds slices of several orientations ({named}), as a localizer does. Put each orientation into a folder "
            "of its own, or leave this series out."
        )
    for name in ("shape", "spacing"):
        kinds = {tuple(np.round(getattr(one, name), 4).tolist()) for one in slices}
        if len(kinds) > 1:
            raise UnsoundError(
                f"holds slices of different {name}: {sorted(kinds)[:3]}. Put each into a folder."
            )


def _stack(slices: Sequence[_Slice]) -> tuple[list[list[_Slice]], np.ndarray]:
    """Order slices from foot to head, or along their normal; return those of each volume and the step in mm."""
    first = slices[0]
    normal = np.cross(*first.directions)
    if len(slices) == 1:
        placed = first if np.isfinite(first.position).all() else first._replace(position=np.zeros(3))
        return [[placed]], normal * first.thickness
    if not np.isfinite([one.position for one in slices]).all():
        raise UnsoundError("has slices without a position. Export it again, or convert it with dcm2niix.")
    heights = np.asarray([one.position @ normal for one in slices])
    order = sorted(range(len(slices)), key=lambda k: (heights[k], slices[k].order))
    steps = np.diff(heights[order])
    is_new = np.append(True, steps > _SAME_PLACE)
    places: list[list[_Slice]] = []
    for k, starts in zip(order, is_new, strict=True):
        if starts:
            places.append([])
        places[-1].append(slices[k])
    sizes = Counter(map(len, places))
    if len(sizes) > 1:
        raise UnsoundError(
            f"has {min(sizes)} to {max(sizes)} images at one place: files are missing or belong to other scans. "
            "Copy or export it again."
        )
    positions = np.asarray([place[0].position for place in places])
    stacks = [[place[volume] for place in places] for volume in range(len(places[0]))]
    if len(places) == 1:
        return stacks, normal * first.thickness
    _refuse_gaps(np.diff(positions @ normal))
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    if np.abs(positions - positions[0] - np.outer(np.arange(len(positions)), step)).max() > 0.5 * min(
        first.spacing
    ):
        raise UnsoundError(
            "has slices that are shifted against one another. Resample it to a straight stack."
        )
    return stacks, step


def _refuse_gaps(steps: np.ndarray) -> None:
    """Raise `UnsoundError` unless slices lie evenly; gaps of whole steps are missing slices."""
    usual = float(np.median(steps))
    if np.abs(steps - usual).max() <= _UNEVEN * usual:
        return
    multiples = steps / usual
    if np.abs(multiples - np.rint(multiples)).max() <= _UNEVEN:
        n_missing = int(np.rint(multiples - 1).sum())
        raise UnsoundError(
            f"misses {n_missing} slices: there are gaps between slices that lie {usual:g} mm apart. Copy or export "
            "the series again."
        )
    raise UnsoundError(
        f"has slices at uneven distances, from {steps.min():.3g} to {steps.max():.3g} mm. Resample it to even ones."
    )
