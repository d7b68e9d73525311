"""Volumes of other formats than NIfTI: read with the same voxels and places, and written in their own format."""

import gzip
import importlib
import os
import re
import struct
import tracemalloc

import nibabel as nib
import numpy as np
import pytest

from skmimood.exceptions import ScanReadError
from skmimood.nifti import find_scans, make_image, read_grid, read_labels, read_scan, scan_id, write_image

ROTATION = nib.eulerangles.euler2mat(0.3, 0.2, 0.5)
AFFINE = nib.affines.from_matvec(ROTATION @ np.diag([1.1, -0.9, 3]), [10.25, -20.5, 3])
VOXELS = np.random.default_rng(0).integers(-50, 1000, (9, 10, 11)).astype(np.float32)
FORMATS = [".mgz", ".nrrd", ".mha"]


def write(path, voxels=VOXELS, affine=AFFINE):
    write_image(nib.Nifti1Image(voxels, affine), path)
    return path


@pytest.mark.parametrize("extension", FORMATS)
def test_a_scan_reads_as_it_was_written_and_its_maps_go_back_into_its_format(tmp_path, extension):
    path = write(tmp_path / f"sub-01_T1w{extension}")
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.data, VOXELS)
    np.testing.assert_allclose(scan.affine, AFFINE, atol=2e-6)
    assert (scan.id, scan.extension) == ("sub-01_T1w", extension)
    assert read_grid(path).matches(scan.grid)
    for dtype in (np.uint8, np.uint16, np.float32):
        values = np.arange(VOXELS.size).reshape(VOXELS.shape) % 250
        write_image(make_image(values, scan, dtype=dtype), path, overwrite=True)
        again = read_scan(path)
        np.testing.assert_array_equal(again.data, values)
        np.testing.assert_allclose(again.affine, scan.affine, atol=1e-6)


@pytest.mark.parametrize("extension", FORMATS)
def test_the_same_map_gives_the_same_bytes(tmp_path, extension):
    first, second = (write(tmp_path / f"{name}{extension}").read_bytes() for name in "ab")
    assert first == second


@pytest.mark.parametrize("extension", [".mgz", ".MGZ", ".nrrd", ".mha"])
def test_masks_are_found_beside_a_scan_and_read_in_any_format(tmp_path, extension):
    from skmimood.nifti import find_companion

    scan = write(tmp_path / "p1_T1.nii.gz")
    mask = tmp_path / f"p1_seg{extension}"
    write(mask, (VOXELS > 500).astype(np.uint8))
    assert find_companion(scan, "seg") == mask
    np.testing.assert_array_equal(read_labels(mask, read_scan(scan)), VOXELS > 500)


def test_a_folder_gives_scans_of_all_formats(tmp_path):
    paths = [
        write(tmp_path / f"s{k}{extension}")
        for k, extension in enumerate((".mgz", ".nii.gz", ".nrrd", ".mha"))
    ]
    assert find_scans(tmp_path) == paths
    assert [scan_id(path) for path in paths] == ["s0", "s1", "s2", "s3"]


@pytest.mark.parametrize(("kind", "header"), [("mhd", "ElementDataFile"), ("nhdr", "data file")])
def test_voxels_in_a_file_of_their_own_are_read(tmp_path, kind, header):
    itk = pytest.importorskip("SimpleITK")
    path = tmp_path / f"scan.{kind}"
    itk.WriteImage(itk.GetImageFromArray(VOXELS.T.copy()), str(path))
    assert header in path.read_text(errors="replace")
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.data, VOXELS)
    assert scan.extension == {"mhd": ".mha", "nhdr": ".nrrd"}[kind]
    (tmp_path / "scan.raw").unlink()
    with pytest.raises(ScanReadError, match=r"damaged|is missing"):
        read_scan(path)


def test_several_values_a_voxel_are_several_volumes(tmp_path):
    itk = pytest.importorskip("SimpleITK")
    path = tmp_path / "dwi.nrrd"
    pairs = np.stack([VOXELS.T, VOXELS.T + 1], axis=-1)
    itk.WriteImage(itk.GetImageFromArray(pairs, isVector=True), str(path))
    with pytest.raises(ScanReadError, match="holds 2 volumes"):
        read_scan(path)
    np.testing.assert_array_equal(read_scan(path, volume=1).data, VOXELS + 1)


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("damage", ["truncated", "junk", "empty", "a folder", "too large", "missing"])
def test_a_damaged_file_is_refused_with_its_fault(tmp_path, extension, damage):
    path = write(tmp_path / f"scan{extension}")
    whole = path.read_bytes()
    options = {}
    if damage == "too large":
        options["max_bytes"] = 1000
    else:
        path.unlink()
    if damage == "a folder":
        path.mkdir()
    elif damage in ("truncated", "junk", "empty"):
        path.write_bytes({"truncated": whole[: len(whole) // 2], "junk": b"junk" * 300, "empty": b""}[damage])
    with pytest.raises(ScanReadError) as caught:
        read_scan(path, **options)
    assert caught.value.name == path.name
    assert str(tmp_path) not in str(caught.value)
    assert "fault in the program" not in caught.value.reason


@pytest.mark.parametrize(("kind", "header"), [("mhd", "ElementDataFile ="), ("nhdr", "data file:")])
@pytest.mark.parametrize("named", ["/etc/passwd", "../secret.raw", "pipe.raw", "LIST"])
def test_vulnerability_path_traversal_a_header_names_no_voxels_elsewhere(tmp_path, kind, header, named):
    itk = pytest.importorskip("SimpleITK")
    (tmp_path / "secret.raw").write_bytes(bytes(10**5))
    (tmp_path / "scans").mkdir()
    os.mkfifo(tmp_path / "scans" / "pipe.raw")
    path = tmp_path / "scans" / f"scan.{kind}"
    itk.WriteImage(itk.GetImageFromArray(VOXELS.T.copy()), str(path))
    path.write_text(re.sub(rf"(?m)^{header}.*$", f"{header} {named}", path.read_text()))
    with pytest.raises(ScanReadError, match=r"outside of its own folder|file with its voxels is missing"):
        read_scan(path)


def test_vulnerability_decompression_bomb_a_volume_of_freesurfer_takes_no_memory(tmp_path):
    header = bytearray(gzip.decompress(write(tmp_path / "T1.mgz").read_bytes())[:284])
    header[4:16] = struct.pack(">iii", 700, 700, 700)
    (tmp_path / "bomb.mgz").write_bytes(gzip.compress(bytes(header) + bytes(2**20)))
    tracemalloc.start()
    with pytest.raises(ScanReadError, match="is truncated: at most"):
        read_scan(tmp_path / "bomb.mgz")
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_a_zipped_file_of_freesurfer_is_read_to_its_checksum(tmp_path):
    path = write(tmp_path / "T1.mgz")
    content = bytearray(path.read_bytes())
    content[-6] ^= 255
    path.write_bytes(content)
    with pytest.raises(ScanReadError, match="corrupt"):
        read_scan(path)
    path.write_bytes(
        gzip.compress(gzip.decompress(write(tmp_path / "b.mgz").read_bytes()) + bytes(3 * 2**20))
    )
    with pytest.raises(ScanReadError, match="unpacks to more data"):
        read_scan(path)


def test_without_simpleitk_the_reason_names_what_to_install(tmp_path, monkeypatch):
    path = write(tmp_path / "scan.nrrd")
    monkeypatch.setitem(importlib.sys.modules, "SimpleITK", None)
    with pytest.raises(ScanReadError, match=r'pip install "skmimood\[itk\]"'):
        read_scan(path)


def test_the_axes_of_itk_point_to_the_left_and_back(tmp_path):
    itk = pytest.importorskip("SimpleITK")
    image = itk.GetImageFromArray(VOXELS.T.copy())
    image.SetOrigin((1.0, 2.0, 3.0))
    image.SetSpacing((1.0, 2.0, 4.0))
    itk.WriteImage(image, str(tmp_path / "scan.mha"))
    expected = [[-1, 0, 0, -1], [0, -2, 0, -2], [0, 0, 4, 3], [0, 0, 0, 1]]
    np.testing.assert_array_equal(read_scan(tmp_path / "scan.mha").affine, expected)
