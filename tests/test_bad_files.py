"""Damaged and hostile files: each is refused with its fault, or read as what it is."""

import gzip
import logging
import os
import re
import struct
import time
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from damaged_files import SHAPE, nifti_bytes

from skmimood.exceptions import InputError, ScanReadError
from skmimood.nifti import find_scans, read_scan


def fault_of(path, **options):
    """Read a file that must be refused and return the reason."""
    with pytest.raises(ScanReadError) as caught:
        read_scan(path, **options)
    assert caught.value.name == Path(path).name
    assert str(Path(path).parent) not in str(caught.value)
    assert caught.value.__cause__ is None
    return caught.value.reason


@pytest.fixture
def scan_file(tmp_path):
    def write(content, name="scan.nii"):
        path = tmp_path / name
        path.write_bytes(gzip.compress(content, mtime=0) if name.endswith(".gz") else content)
        return path

    return write


def test_the_file_the_faults_are_planted_in_is_good(scan_file):
    for name in ("scan.nii", "scan.nii.gz"):
        scan = read_scan(scan_file(nifti_bytes(), name))
        expected = np.arange(np.prod(SHAPE)).reshape(SHAPE, order="F")
        np.testing.assert_array_equal(scan.data, expected)
        assert scan.warnings == ()


def test_bad_input_04_an_empty_file_is_refused(scan_file):
    assert "is empty" in fault_of(scan_file(b""))
    assert "is not NIfTI" in fault_of(scan_file(b"", "zipped.nii.gz"))


@pytest.mark.parametrize("content", [b'{"json": true}' * 100, gzip.compress(b"short"), nifti_bytes()[:200]])
def test_bad_input_05_what_is_not_nifti_is_refused(scan_file, content):
    assert "is not NIfTI" in fault_of(scan_file(content))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (nifti_bytes(dim=[3, -5, 8, 8, 1, 1, 1, 1]), "impossible dimensions"),
        (nifti_bytes(dim=[3, 5, 0, 8, 1, 1, 1, 1]), "impossible dimensions"),
        (nifti_bytes(dim=[0] * 8), "0 dimensions"),
        (nifti_bytes(dim=[9, 5, 5, 5, 1, 1, 1, 1]), "9 dimensions"),
        (nifti_bytes(dim=[1, 5, 1, 1, 1, 1, 1, 1]), "1 dimensions"),
        (nifti_bytes(dim=[5, 3, 3, 3, 2, 2, 1, 1]), "5 dimensions"),
    ],
)
def test_bad_input_10_impossible_dimensions_are_refused(scan_file, content, reason):
    assert reason in fault_of(scan_file(content))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (nifti_bytes(srow_x=[np.nan] * 4), "no finite affine"),
        (nifti_bytes(srow_x=[0] * 4, srow_y=[0] * 4, srow_z=[0] * 4), "singular affine"),
        (nifti_bytes(srow_y=[1, 0, 0, 0]), "singular affine"),
        (nifti_bytes(sform=False, qform_code=1, quatern_b=3.0), "is damaged|damaged header"),
    ],
)
def test_bad_input_23_an_affine_that_spans_no_space_is_refused(scan_file, content, reason):
    assert re.search(reason, fault_of(scan_file(content)))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (nifti_bytes(sform=False, pixdim=[1, 0, 1, 1, 0, 0, 0, 0]), "impossible voxel sizes 0 x 1 x 1"),
        (nifti_bytes(sform=False, pixdim=[1, 1, -1, 1, 0, 0, 0, 0]), "impossible voxel sizes"),
        (nifti_bytes(sform=False, pixdim=[1, 1, np.nan, 1, 0, 0, 0, 0]), "impossible voxel sizes"),
        (nifti_bytes(srow_x=[0.001, 0, 0, 0]), "implausible voxels of 0.001 x 1 x 1 mm"),
        (nifti_bytes(xyzt_units=1), "implausible voxels of 1000 x 1000 x 1000 mm"),
    ],
)
def test_bad_input_24_impossible_voxel_sizes_are_refused(scan_file, content, reason):
    assert reason in fault_of(scan_file(content))


@pytest.mark.parametrize(("code", "bits", "kind"), [(32, 64, "complex64"), (128, 24, "RGB")])
def test_bad_input_40_complex_and_coloured_voxels_are_refused(scan_file, code, bits, kind):
    assert f"holds {kind} values" in fault_of(scan_file(nifti_bytes(datatype=code, bitpix=bits)))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (nifti_bytes()[:400], "is truncated: at most 400 of"),
        (nifti_bytes(magic=b"ni1"), r"\.hdr/\.img pair"),
        (nifti_bytes(magic=b""), "Analyze"),
        (nifti_bytes(dim=[3, 32767, 32767, 32767, 1, 1, 1, 1]), "needs .* bytes .* allowed are"),
        (nifti_bytes(vox_offset=1e9), "voxels start at byte"),
        (nifti_bytes(vox_offset=np.nan), "voxels start at byte nan"),
        (nifti_bytes(vox_offset=-4), "voxels start at byte"),
        (nifti_bytes(datatype=9999), "damaged header"),
        (nifti_bytes(scl_slope=2, scl_inter=np.inf), "damaged header"),
    ],
)
def test_a_damaged_file_is_refused_with_its_fault_and_without_its_folder(scan_file, content, reason):
    assert re.search(reason, fault_of(scan_file(content)))


@pytest.mark.parametrize(
    "fields", [{"dim": [3, -5, 8, 8, 1, 1, 1, 1]}, {"datatype": 9999}, {"vox_offset": 1e9}]
)
def test_a_damaged_header_inside_gzip_is_refused_all_the_same(scan_file, fields):
    with pytest.raises(ScanReadError):
        read_scan(scan_file(nifti_bytes(**fields), "scan.nii.gz"))


def time_of(action):
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def test_bad_input_07_a_truncated_gzip_file_is_refused_wherever_it_ends(tmp_path):
    whole = gzip.compress(nifti_bytes(body=np.random.default_rng(0).bytes(2 * 990)), mtime=0)
    path = tmp_path / "scan.nii.gz"
    for size in (5, 100, len(whole) // 2, len(whole) - 8, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert "is truncated" in fault_of(path)


def test_bad_input_08_a_wrong_checksum_is_noticed_although_all_voxels_can_be_read(tmp_path):
    whole = bytearray(gzip.compress(nifti_bytes(), mtime=0))
    whole[-5] ^= 1
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(whole)
    assert "checksum" in fault_of(path)


def test_a_flipped_bit_in_the_compressed_data_is_noticed(tmp_path):
    whole = bytearray(gzip.compress(nifti_bytes(body=np.random.default_rng(0).bytes(2 * 990)), mtime=0))
    whole[len(whole) // 2] ^= 16
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(whole)
    assert "is corrupt" in fault_of(path)


@pytest.mark.parametrize("kind", ["huge header", "huge tail", "huge header within the budget"])
def test_bad_input_09_a_gzip_bomb_is_refused_quickly_and_in_little_memory(tmp_path, kind):
    dims = {
        "huge header": [3, 1500, 1500, 1500, 1, 1, 1, 1],
        "huge tail": [3, *SHAPE, 1, 1, 1, 1],
        "huge header within the budget": [3, 700, 700, 700, 1, 1, 1, 1],
    }[kind]
    path = tmp_path / "bomb.nii.gz"
    n_megabytes = 64 if kind == "huge tail" else 4
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(nifti_bytes(dim=dims, body=b""))
        for _ in range(n_megabytes):
            stream.write(bytes(2**20))
    tracemalloc.start()
    try:
        seconds = time_of(lambda: fault_of(path, max_bytes=2**31))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seconds < 1
    assert peak < 20e6


def test_the_budget_is_judged_from_an_image_in_memory_too():
    image = nib.Nifti1Image(np.zeros((20, 20, 20), dtype=np.uint8), np.eye(4))
    with pytest.raises(ScanReadError, match=r"scan-003: needs 32000 bytes .* allowed are 31999"):
        read_scan(image, max_bytes=31999, index=3)
    assert read_scan(image, max_bytes=32000).data.shape == (20, 20, 20)


def test_vulnerability_decompression_bomb_a_lazily_loaded_one_is_not_unpacked(scan_file):
    image = nib.load(scan_file(nifti_bytes(dim=[3, 32767, 32767, 32767, 1, 1, 1, 1]), "bomb.nii.gz"))
    start = time.perf_counter()
    with pytest.raises(ScanReadError, match=r"bomb\.nii\.gz: needs .* bytes"):
        read_scan(image)
    assert time.perf_counter() - start < 1


def test_a_lazily_loaded_truncated_image_is_refused_without_its_folder(tmp_path):
    path = tmp_path / "scan.nii"
    path.write_bytes(nifti_bytes()[:900])
    with pytest.raises(ScanReadError) as caught:
        read_scan(nib.load(path))
    assert str(tmp_path) not in str(caught.value)
    assert caught.value.name == "scan.nii"


@pytest.mark.parametrize(("name", "is_gzip"), [("scan.nii", True), ("scan.nii.gz", False)])
def test_bad_input_06_a_wrong_ending_is_read_by_content_and_mentioned(tmp_path, name, is_gzip):
    path = tmp_path / name
    path.write_bytes(gzip.compress(nifti_bytes()) if is_gzip else nifti_bytes())
    scan = read_scan(path)
    assert scan.data.max() == np.prod(SHAPE) - 1
    assert any("the name does not match the content" in warning for warning in scan.warnings)


def test_an_offset_of_zero_does_not_read_the_header_as_voxels(scan_file):
    scan = read_scan(scan_file(nifti_bytes(vox_offset=0)))
    assert scan.data.ravel(order="F")[:3].tolist() == [0, 1, 2]


def test_big_endian_files_are_read(tmp_path):
    header = nib.Nifti1Header(endianness=">")
    image = nib.Nifti1Image(np.arange(990, dtype=">i2").reshape(SHAPE), np.diag([1.0, 2, 3, 1]), header)
    nib.save(image, tmp_path / "scan.nii")
    assert (tmp_path / "scan.nii").read_bytes()[:4] == struct.pack(">i", 348)
    scan = read_scan(tmp_path / "scan.nii")
    np.testing.assert_array_equal(scan.data, np.arange(990).reshape(SHAPE))
    np.testing.assert_array_equal(scan.affine, np.diag([1.0, 2, 3, 1]))


def test_bad_input_12_broken_links_loops_folders_and_pipes_are_refused(tmp_path):
    assert "does not exist" in fault_of(tmp_path / "none.nii.gz")
    (tmp_path / "broken.nii.gz").symlink_to(tmp_path / "gone.nii.gz")
    assert "broken link" in fault_of(tmp_path / "broken.nii.gz")
    (tmp_path / "loop.nii").symlink_to(tmp_path / "loop.nii")
    assert "cannot be read" in fault_of(tmp_path / "loop.nii")
    (tmp_path / "folder.nii").mkdir()
    assert "is a folder" in fault_of(tmp_path / "folder.nii")
    os.mkfifo(tmp_path / "pipe.nii")
    assert "not a regular file" in fault_of(tmp_path / "pipe.nii")


def test_bad_input_03_a_file_without_permission_is_refused(scan_file, monkeypatch):
    path = scan_file(nifti_bytes())

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("skmimood.nifti.reading.open", refuse, raising=False)
    assert "Permission denied" in fault_of(path)


def test_a_folder_that_cannot_be_listed_is_an_error_and_not_an_empty_folder(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"Cannot list .*Permission denied"):
        find_scans(tmp_path)


def test_running_out_of_memory_is_a_fault_of_the_one_scan(scan_file, monkeypatch):
    def refuse(*args, **kwargs):
        raise MemoryError

    path = scan_file(nifti_bytes())
    monkeypatch.setattr(np, "empty", refuse)
    with pytest.raises(ScanReadError, match="more memory than there is"):
        read_scan(path)


def test_bad_input_32_infinite_voxels_become_background_as_nan_does_up_to_the_limit(scan_file):
    values = np.ones(SHAPE, dtype=np.float32)
    values[0, 0, 0], values[1, 2, 3] = np.nan, np.inf
    fields = {"datatype": 16, "bitpix": 32, "body": values.tobytes(order="F")}
    scan = read_scan(scan_file(nifti_bytes(**fields)))
    assert np.isfinite(scan.data).all()
    assert scan.data[0, 0, 0] == scan.data[1, 2, 3] == 0
    assert np.argwhere(scan.invalid).tolist() == [[0, 0, 0], [1, 2, 3]]
    assert any("2 NaN or infinite voxels" in warning for warning in scan.warnings)
    values[0] = -np.inf
    fields["body"] = values.tobytes(order="F")
    path = scan_file(nifti_bytes(**fields))
    assert "NaN or infinite values in 11.2" in fault_of(path)
    assert read_scan(path, max_invalid=0.5).invalid.sum() == 111


@pytest.mark.parametrize("value", [1e300, -3e38])  # beyond float32, and such that differences are
def test_values_too_large_to_compute_with_count_as_infinite(scan_file, value):
    values = np.ones(SHAPE, dtype=np.float64)
    values[4, 4, 4] = value
    scan = read_scan(scan_file(nifti_bytes(datatype=64, bitpix=64, body=values.tobytes(order="F"))))
    assert np.argwhere(scan.invalid).tolist() == [[4, 4, 4]]


@pytest.mark.parametrize("slope", [0.0, np.nan, np.inf])
def test_an_unusable_slope_means_no_scaling(scan_file, slope):
    scan = read_scan(scan_file(nifti_bytes(scl_slope=slope, scl_inter=7)))
    assert scan.data.max() == np.prod(SHAPE) - 1


def test_slope_and_intercept_are_applied(scan_file):
    scan = read_scan(scan_file(nifti_bytes(scl_slope=0.5, scl_inter=-1024)))
    assert scan.data.min() == -1024
    assert scan.data.max() == (np.prod(SHAPE) - 1) / 2 - 1024


@pytest.mark.parametrize(("units", "size"), [(1, 0.001), (2, 1.0), (3, 1000.0), (0, 1.0), (5, 1.0)])
def test_bad_input_24_metres_and_microns_are_converted_and_unknown_units_are_millimetres(
    scan_file, units, size
):
    rows = {f"srow_{name}": row for name, row in zip("xyz", np.eye(4)[:3] * size, strict=True)}
    scan = read_scan(scan_file(nifti_bytes(xyzt_units=units, pixdim=[1, *[size] * 3, 0, 0, 0, 0], **rows)))
    np.testing.assert_allclose(scan.spacing, 1.0, rtol=1e-6)
    assert scan.affine[0, 0] == np.float32(size)


def test_nothing_is_printed_while_odd_headers_are_read(scan_file, capfd):
    path = scan_file(nifti_bytes(bitpix=99, sform_code=77, qform_code=1, pixdim=[0, 1, 1, 1, 0, 0, 0, 0]))
    handlers = list(logging.getLogger("nibabel.global").handlers)
    read_scan(path)
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("nibabel.global").handlers == handlers
