"""Damaged and hostile scans, built byte by byte."""

import gzip

import nibabel as nib
import numpy as np

SHAPE = (9, 10, 11)


def nifti_bytes(shape=SHAPE, body=None, sform=True, **fields):
    """Return a NIfTI-1 file whose header fields are whatever the test says, however wrong."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape(shape)
    header["pixdim"][1:4] = 1.0
    if sform:
        header.set_sform(np.eye(4), code=1)
    header["vox_offset"] = 352
    for name, value in fields.items():
        header[name] = value
    if body is None:
        body = np.arange(np.prod(shape), dtype=np.int16).tobytes()
    return header.binaryblock + b"\0" * 4 + body


def write_damaged_files(folder):
    """Write one scan of each kind that cannot be used; return their ids and what is said of each."""
    zipped = gzip.compress(nifti_bytes(), mtime=0)
    flat = nifti_bytes(body=np.full(990, 7, np.int16).tobytes())
    missing = np.full(990, np.nan, np.float32).tobytes()
    kinds = {
        "04-empty.nii.gz": (b"", "is empty"),
        "05-text.nii": (b'{"json": true}' * 100, "is not NIfTI"),
        "07-truncated.nii.gz": (zipped[: len(zipped) // 2], "is truncated"),
        "08-checksum.nii.gz": (zipped[:-5] + bytes([zipped[-5] ^ 1]) + zipped[-4:], "is corrupt"),
        "09-bomb.nii.gz": (gzip.compress(nifti_bytes(dim=[3, *[9999] * 3, 1, 1, 1, 1], body=bytes(2**20))), "needs"),
        "10-dimensions.nii": (nifti_bytes(dim=[3, -5, 8, 8, 1, 1, 1, 1]), "impossible dimensions"),
        "23-affine.nii": (nifti_bytes(srow_x=[np.nan] * 4), "no finite affine"),
        "24-sizes.nii": (nifti_bytes(xyzt_units=1), "implausible voxels"),
        "26-narrow.nii": (nifti_bytes((9, 7, 11)), "at least 8"),
        "27-series.nii": (nifti_bytes((9, 10, 11, 2)), "holds 2 volumes"),
        "31-nan.nii": (nifti_bytes(datatype=16, bitpix=32, body=missing), "NaN or infinite"),
        "33-constant.nii": (flat, "empty"),
        "40-complex.nii": (nifti_bytes(datatype=32, bitpix=64, body=bytes(8 * 990)), "complex64"),
    }  # fmt: skip
    for name, (content, _) in kinds.items():
        (folder / name).write_bytes(content)
    (folder / "12-broken.nii").symlink_to("gone.nii")
    (folder / "12-loop.nii").symlink_to("12-loop.nii")
    says = {name.partition(".")[0]: reason for name, (_, reason) in kinds.items()}
    return says | {"12-broken": "broken link", "12-loop": "cannot be read"}
