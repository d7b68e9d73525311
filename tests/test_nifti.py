"""Reading scans with their geometry, and maps that go back to exactly that geometry."""

import errno
import gzip
import io
import os
import pickle

import nibabel as nib
import numpy as np
import pytest

from skmimood.exceptions import InputError, ScanReadError, ScanWriteError, SkmimoodWarning
from skmimood.nifti import (
    make_image,
    read_labels,
    read_scan,
    write_image,
)

OBLIQUE = np.array(
    [[-0.9, 0.1, 0.3, 91.2], [0.13, 1.1, -0.21, -126.7], [-0.2, 0.17, 2.9, -71.3], [0, 0, 0, 1]]
)


def save(path, shape=(8, 9, 10), affine=None, dtype=np.float32, value=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(
        nib.Nifti1Image(np.full(shape, value, dtype=dtype), np.eye(4) if affine is None else affine), path
    )
    return path


def rotation(degrees, zooms=(1.0, 1.5, 2.0)):
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    return nib.affines.from_matvec(turn @ np.diag(zooms), [12.34, -56.78, 9.1])


# Reading


@pytest.mark.parametrize(
    ("shape", "voxels"),
    [((8, 9), (8, 9, 1)), ((8, 9, 1), (8, 9, 1)), ((8, 9, 7, 1), (8, 9, 7)), ((8, 9, 7, 1, 1), (8, 9, 7))],
)
@pytest.mark.parametrize("in_memory", [False, True])
def test_maps_go_back_to_the_shape_the_scan_came_in(tmp_path, shape, voxels, in_memory):
    values = np.random.default_rng(0).random(shape).astype(np.float32)
    image = nib.Nifti1Image(values, OBLIQUE)
    nib.save(image, tmp_path / "s.nii")
    scan = read_scan(image if in_memory else tmp_path / "s.nii")
    assert scan.data.shape == voxels
    result = make_image(scan.data, scan)
    assert result.shape == shape
    np.testing.assert_array_equal(np.asarray(result.dataobj), values)


@pytest.mark.parametrize("source", ["file", "gzip", "proxy", "memory"])
def test_bad_input_27_a_series_needs_a_choice_of_volume(tmp_path, source):
    values = np.random.default_rng(0).random((8, 9, 7, 3)).astype(np.float32)
    image = nib.Nifti1Image(values, np.eye(4))
    path = tmp_path / ("s.nii.gz" if source == "gzip" else "s.nii")
    nib.save(image, path)
    scan_source = {"memory": image, "proxy": nib.load(path)}.get(source, path)
    with pytest.raises(ScanReadError, match=r"holds 3 volumes \(8, 9, 7, 3\).*volume=0"):
        read_scan(scan_source)
    with pytest.raises(ScanReadError, match="has no volume 3"):
        read_scan(scan_source, volume=3)
    for volume in range(3):
        scan = read_scan(scan_source, volume=volume)
        np.testing.assert_array_equal(scan.data, values[..., volume])
        assert make_image(scan.data, scan).shape == (8, 9, 7)


def test_reading_does_not_touch_the_image_it_was_given():
    values = np.ones((10, 10, 10), dtype=np.float32)
    values[0, 0, 0] = np.nan
    scan = read_scan(nib.Nifti1Image(values, np.eye(4)))
    assert np.isnan(values[0, 0, 0])
    scan.data[:] = 5
    assert values[1, 1, 1] == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_every_number_type_gives_what_nibabel_gives(tmp_path, dtype):
    values = np.random.default_rng(0).integers(0, 200, (8, 9, 10)).astype(dtype)
    image = nib.Nifti1Image(values, np.eye(4))
    image.header.set_slope_inter(0.37, -12.5)
    nib.save(image, tmp_path / "s.nii.gz")
    expected = nib.load(tmp_path / "s.nii.gz").get_fdata(dtype=np.float32)
    np.testing.assert_allclose(read_scan(tmp_path / "s.nii.gz").data, expected, rtol=1e-6)


def test_other_formats_are_taken_as_images():
    image = nib.MGHImage(np.ones((8, 9, 10), dtype=np.float32), rotation(20))
    scan = read_scan(image)
    result = make_image(scan.data, scan)
    np.testing.assert_array_equal(result.affine, image.affine)


def test_images_without_real_numbers_or_affine_are_refused():
    with pytest.raises(ScanReadError, match="scan-000: holds complex64 values"):
        read_scan(nib.Nifti1Image(np.ones((8, 8, 8), np.complex64), np.eye(4)))
    with pytest.raises(ScanReadError, match="no finite affine"):
        read_scan(nib.Nifti1Image(np.ones((8, 8, 8), np.float32), None))
    image = nib.Nifti1Image(np.ones((8, 8, 8), np.float32), np.eye(4))
    image.affine[0, 0] = np.nan
    with pytest.raises(ScanReadError, match="no finite affine"):
        read_scan(image)


# Geometry


@pytest.mark.parametrize("degrees", [0, 7, 30, 45])
@pytest.mark.parametrize("forms", ["sform", "qform", "both", "none"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_the_affine_and_its_codes_come_back_exactly(tmp_path, degrees, forms, kind):
    image = kind(np.ones((8, 9, 10), np.float32), rotation(degrees))
    image.set_sform(rotation(degrees), code=4 if forms in ("sform", "both") else 0)
    image.set_qform(rotation(degrees), code=1 if forms in ("qform", "both") else 0)
    nib.save(image, tmp_path / "in.nii")
    source = nib.load(tmp_path / "in.nii")
    for given in (tmp_path / "in.nii", source, image):
        scan = read_scan(given)
        np.testing.assert_array_equal(scan.affine, (source if given is not image else image).affine)
        result = make_image(scan.data, scan)
        np.testing.assert_array_equal(result.affine, scan.affine)
        write_image(result, tmp_path / "out.nii.gz", overwrite=True)
        back = nib.load(tmp_path / "out.nii.gz")
        np.testing.assert_array_equal(back.affine, source.affine)
        for name in ("sform_code", "qform_code", "xyzt_units", "pixdim"):
            np.testing.assert_array_equal(back.header[name], source.header[name])
        assert type(back) is kind


def test_bad_input_21_a_sheared_affine_is_mentioned_and_kept(tmp_path):
    sheared = np.eye(4)
    sheared[0, 1] = 0.3
    path = save(tmp_path / "sheared.nii", affine=sheared)
    scan = read_scan(path)
    assert scan.warnings == ("the affine is sheared; the scan is worked on along its own axes",)
    result = make_image(scan.data, scan)
    np.testing.assert_array_equal(result.affine, nib.load(path).affine)
    np.testing.assert_array_equal(result.get_sform(coded=True)[0], nib.load(path).get_sform(coded=True)[0])


def test_bad_input_22_of_forms_that_disagree_the_sform_is_used(tmp_path):
    image = nib.Nifti1Image(np.ones((8, 9, 10), np.float32), np.eye(4))
    image.set_sform(np.diag([-1.0, 1, 1, 1]), code=1)
    image.set_qform(np.eye(4), code=1)
    nib.save(image, tmp_path / "two.nii")
    scan = read_scan(tmp_path / "two.nii")
    assert scan.warnings == ("sform and qform disagree; the sform is used",)
    assert scan.affine[0, 0] == -1


def test_thick_voxels_are_mentioned_and_oblique_ones_are_not(tmp_path):
    scan = read_scan(save(tmp_path / "thick.nii", affine=np.diag([0.9, 0.9, 6, 1])))
    assert scan.warnings == ("voxels of 0.9 x 0.9 x 6 mm are anisotropic",)
    assert read_scan(save(tmp_path / "plain.nii", affine=rotation(45))).warnings == ()


def test_spacing_is_measured_along_the_voxel_axes(tmp_path):
    scan = read_scan(save(tmp_path / "s.nii", affine=rotation(30)))
    np.testing.assert_allclose(scan.spacing, [1.0, 1.5, 2.0], rtol=1e-6)


# Labels


def test_labels_on_the_same_grid_are_taken_as_they_are(tmp_path):
    scan = read_scan(save(tmp_path / "s.nii", affine=OBLIQUE))
    values = np.random.default_rng(0).integers(0, 4, (8, 9, 10)).astype(np.uint8)
    affine = OBLIQUE.copy()
    affine[:3, 3] += 0.01
    labels = read_labels(nib.Nifti1Image(values, affine), scan)
    assert labels.dtype == bool
    np.testing.assert_array_equal(labels, values > 0)


def test_bad_input_29_labels_of_another_spacing_or_orientation_are_resampled(tmp_path):
    scan = read_scan(save(tmp_path / "s.nii", shape=(16, 18, 20)))
    coarse = np.zeros((8, 9, 10), dtype=np.uint8)
    coarse[2, 3, 4] = 1
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = 0.5
    labels = read_labels(nib.Nifti1Image(coarse, affine), scan)
    assert sorted(map(tuple, np.argwhere(labels))) == [
        (x, y, z) for x in (4, 5) for y in (6, 7) for z in (8, 9)
    ]
    flipped = np.zeros((16, 18, 20), dtype=np.uint8)
    flipped[15, 2, 3] = 1
    affine = np.diag([-1.0, 1, 1, 1])
    affine[0, 3] = 15
    assert np.argwhere(read_labels(nib.Nifti1Image(flipped, affine), scan)).tolist() == [[0, 2, 3]]


def test_labels_reach_to_the_border_when_they_are_resampled(tmp_path):
    scan = read_scan(save(tmp_path / "s.nii", shape=(16, 18, 20)))
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = 0.5
    with pytest.warns(
        SkmimoodWarning, match="s: the lesion mask is set in the corners of the volume, or everywhere"
    ):
        assert read_labels(nib.Nifti1Image(np.ones((8, 9, 10), np.uint8), affine), scan).all()


def test_bad_input_29_labels_of_another_field_of_view_are_refused(tmp_path):
    scan = read_scan(save(tmp_path / "s.nii", shape=(16, 18, 20)))
    elsewhere = np.eye(4)
    elsewhere[0, 3] = 40
    with pytest.raises(ScanReadError, match="labels of s: covers another field of view than s"):
        read_labels(nib.Nifti1Image(np.ones((16, 18, 20), np.uint8), elsewhere), scan)
    with pytest.raises(ScanReadError, match=r"seg\.nii: covers another field of view"):
        read_labels(save(tmp_path / "seg.nii", shape=(8, 9, 10)), scan)


# Writing


def test_vulnerability_identity_leak_no_name_text_or_date_of_the_input_reaches_the_map(tmp_path):
    image = nib.Nifti1Image(np.ones((8, 9, 10), np.float32), np.eye(4))
    image.header["descrip"] = b"Jane Doe 1970-01-01"
    image.header["db_name"] = b"PATIENT-4711"
    image.header["aux_file"] = b"secret.txt"
    image.header["intent_name"] = b"secret"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Jane Doe"))
    nib.save(image, tmp_path / "jane_doe.nii.gz")
    scan = read_scan(tmp_path / "jane_doe.nii.gz")
    write_image(make_image(scan.data, scan), tmp_path / "jane_map.nii.gz")
    packed = (tmp_path / "jane_map.nii.gz").read_bytes()
    content = packed + gzip.decompress(packed)
    for secret in (b"Jane", b"jane", b"4711", b"secret"):
        assert secret not in content
    assert packed[3] == 0  # gzip flags: no file name
    assert packed[4:8] == bytes(4)  # and no time


def test_equal_images_give_equal_bytes_under_any_name(tmp_path):
    scan = read_scan(save(tmp_path / "s.nii"))
    for name in ("a.nii.gz", "b.nii.gz"):
        write_image(make_image(scan.data, scan), tmp_path / name)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_invalid_voxels_are_nan_again_in_maps_but_not_in_masks():
    values = np.ones((10, 10, 10), dtype=np.float32)
    values[3, 4, 5] = np.nan
    scan = read_scan(nib.Nifti1Image(values, np.eye(4)))
    result = np.asarray(make_image(np.zeros((10, 10, 10)), scan).dataobj)
    assert result.dtype == np.float32
    assert np.argwhere(np.isnan(result)).tolist() == [[3, 4, 5]]
    mask = make_image(np.ones((10, 10, 10), dtype=bool), scan, dtype=np.uint8)
    assert mask.get_data_dtype() == np.uint8
    assert (np.asarray(mask.dataobj) == 1).all()


def test_values_on_another_grid_are_refused():
    scan = read_scan(nib.Nifti1Image(np.ones((10, 11, 12), np.float32), np.eye(4)))
    with pytest.raises(InputError, match=r"shape \(10, 11, 12\); got \(12, 11, 10\)"):
        make_image(np.ones((12, 11, 10)), scan)


def test_an_existing_file_is_only_replaced_on_demand(tmp_path):
    path = save(tmp_path / "s.nii.gz", value=1)
    before = path.read_bytes()
    image = nib.Nifti1Image(np.full((8, 8, 8), 2, np.float32), np.eye(4))
    with pytest.raises(ScanWriteError, match=r"s\.nii\.gz exists already"):
        write_image(image, path)
    assert path.read_bytes() == before
    write_image(image, path, overwrite=True)
    assert read_scan(path).data.max() == 2


@pytest.mark.parametrize("name", ["map.nii", "map.nii.gz"])
def test_bad_input_17_a_full_disk_leaves_the_old_file_and_nothing_half_written(tmp_path, monkeypatch, name):
    path = save(tmp_path / name)
    before = path.read_bytes()

    def fill(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fill)
    with pytest.raises(ScanWriteError, match="No space left") as caught:
        write_image(nib.Nifti1Image(np.zeros((8, 8, 8), np.float32), np.eye(4)), path, overwrite=True)
    assert str(tmp_path) not in str(caught.value)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [name]


def test_an_interruption_leaves_nothing_half_written(tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_image(nib.Nifti1Image(np.zeros((8, 8, 8), np.float32), np.eye(4)), tmp_path / "m.nii.gz")
    assert os.listdir(tmp_path) == []


def test_a_missing_folder_and_another_ending_are_refused(tmp_path):
    image = nib.Nifti1Image(np.zeros((8, 8, 8), np.float32), np.eye(4))
    with pytest.raises(ScanWriteError, match="No such file or directory"):
        write_image(image, tmp_path / "none" / "m.nii.gz")
    with pytest.raises(ScanWriteError, match=r"end in \.nii\.gz, .* or \.nii\."):
        write_image(image, tmp_path / "m.png")


def test_a_scan_survives_pickling():
    scan = read_scan(nib.Nifti1Image(np.ones((8, 9, 10), np.float32), OBLIQUE))
    copy = pickle.load(io.BytesIO(pickle.dumps(scan)))
    np.testing.assert_array_equal(make_image(copy.data, copy).affine, OBLIQUE)
