"""DICOM series for tests, written slice by slice."""

from pathlib import Path

import numpy as np
from nibabel.affines import apply_affine, from_matvec, voxel_sizes
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
AFFINE = from_matvec(
    [[-1.5, 0.0, 0.3], [0.0, -2.0, 0.0], [0.0, 0.0, 4.0]], [20.0, 30.0, -10.0]
)  # tilted by 4 degrees
UPRIGHT = from_matvec(np.diag([-1.5, -2.0, 4.0]), [20.0, 30.0, -10.0])


def write_series(
    folder: Path, voxels: np.ndarray, affine=UPRIGHT, *, uid=None, first=0, order=None, **elements
):
    """Write the slices of voxels (X, Y, Z) into a folder, in a shuffled order of names, and return the folder.

    ``elements`` are set in every file; a list of Z values is divided among the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    uid = uid or generate_uid()
    to_lps = LPS @ affine
    sizes = voxel_sizes(to_lps)
    directions = [*(to_lps[:3, 0] / sizes[0]), *(to_lps[:3, 1] / sizes[1])]
    for k in range(voxels.shape[2]):
        slice_ = make_slice(voxels[:, :, k])
        slice_.SeriesInstanceUID = uid
        slice_.InstanceNumber = first + k
        slice_.ImagePositionPatient = [f"{x:.10g}" for x in apply_affine(to_lps, [0, 0, k])]
        slice_.ImageOrientationPatient = [f"{x:.10g}" for x in directions]
        slice_.PixelSpacing = [float(sizes[1]), float(sizes[0])]
        for name, value in elements.items():
            setattr(
                slice_, name, value[k] if isinstance(value, list) and len(value) == voxels.shape[2] else value
            )
        name = f"IM{(7 * k + first) % 1000:04d}.dcm"
        slice_.save_as(folder / name, enforce_file_format=True)
    return folder


def make_slice(pixels: np.ndarray) -> Dataset:
    """Return a grey image of pixels (X, Y) of 16 bits, without a place."""
    slice_ = Dataset()
    slice_.file_meta = FileMetaDataset()
    slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    slice_.SOPClassUID = slice_.file_meta.MediaStorageSOPClassUID = MRImageStorage
    slice_.SOPInstanceUID = slice_.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    slice_.PatientName = "Doe^Jane"
    slice_.Modality = "MR"
    slice_.Columns, slice_.Rows = pixels.shape
    slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
    slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 1
    slice_.PixelData = np.ascontiguousarray(pixels.T, np.int16).tobytes()
    return slice_
