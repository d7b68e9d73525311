"""DICOM series as scans: slices put in their places, and refused with a reason where they are no even stack."""

import importlib

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip("pydicom")

from dicom_series import AFFINE, UPRIGHT, make_slice, write_series
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid

from skmimood.exceptions import InputError, ScanReadError
from skmimood.jobs.files import digest_of
from skmimood.nifti import find_scans, make_image, read_grid, read_scan, scan_id, scan_ids, write_image
from skmimood.scans.sources import find_named_or_chosen

VOXELS = np.random.default_rng(0).integers(-50, 1000, (8, 10, 9)).astype(np.int16)


def fault_of(folder, **options):
    with pytest.raises(ScanReadError) as caught:
        read_scan(folder, **options)
    assert caught.value.name == folder.name
    assert str(folder.parent) not in str(caught.value)
    return caught.value.reason


def test_slices_become_a_volume_whatever_the_order_of_their_files(tmp_path):
    folder = write_series(tmp_path / "T1", VOXELS)
    scan = read_scan(folder)
    np.testing.assert_array_equal(scan.data, VOXELS)
    np.testing.assert_allclose(scan.affine, UPRIGHT, atol=1e-9)
    assert (scan.id, scan.warnings, scan.extension) == ("T1", (), ".nii.gz")
    assert read_grid(folder).matches(scan.grid)


def test_an_oblique_series_keeps_its_places(tmp_path):
    affine = nib.affines.from_matvec(
        nib.eulerangles.euler2mat(0.3, 0.2, 1.5) @ np.diag([1.1, 0.9, 3]), [1, 2, 3]
    )
    scan = read_scan(write_series(tmp_path / "a", VOXELS, affine))
    flip = np.linalg.det(affine) < 0
    assert not flip
    np.testing.assert_array_equal(scan.data, VOXELS)
    np.testing.assert_allclose(scan.affine, affine, atol=1e-7)


def test_a_tilted_gantry_is_a_sheared_affine_with_a_remark(tmp_path):
    scan = read_scan(write_series(tmp_path / "CT", VOXELS, AFFINE))
    np.testing.assert_allclose(scan.affine, AFFINE, atol=1e-9)
    assert any("sheared" in remark for remark in scan.warnings)
    image = make_image(scan.data, scan)
    write_image(image, tmp_path / "map.nii.gz")
    np.testing.assert_allclose(nib.load(tmp_path / "map.nii.gz").affine, AFFINE, atol=1e-5)


def test_values_are_scaled_as_each_file_says(tmp_path):
    slopes = [1.0 + k for k in range(VOXELS.shape[2])]
    folder = write_series(tmp_path / "CT", VOXELS, RescaleSlope=slopes, RescaleIntercept=-1024.0)
    np.testing.assert_allclose(read_scan(folder).data, VOXELS * np.asarray(slopes) - 1024)


def test_low_values_that_are_white_are_turned_round(tmp_path):
    folder = write_series(
        tmp_path / "XR", abs(VOXELS), PhotometricInterpretation="MONOCHROME1", BitsStored=12
    )
    np.testing.assert_allclose(read_scan(folder).data, 4095 - abs(VOXELS))


def test_vulnerability_identity_leak_nothing_of_the_patient_gets_into_a_map(tmp_path):
    scan = read_scan(write_series(tmp_path / "T1", VOXELS))
    write_image(make_image(scan.data, scan), tmp_path / "map.nii")
    assert b"Doe" not in (tmp_path / "map.nii").read_bytes()


# What is no even stack


def test_missing_slices_are_counted(tmp_path):
    folder = write_series(tmp_path / "T1", VOXELS)
    (folder / "IM0021.dcm").unlink()
    (folder / "IM0028.dcm").unlink()
    assert "misses 2 slices: there are gaps between slices that lie 4 mm apart" in fault_of(folder)


def test_uneven_slices_are_refused(tmp_path):
    folder = write_series(tmp_path / "CT", VOXELS[:, :, :5])
    write_series(
        folder, VOXELS[:, :, :4], nib.affines.from_matvec(np.diag([-1.5, -2, 7]), [20, 30, 13]), first=100
    )
    for file in folder.iterdir():  # one series all the same
        rewrite(file, SeriesInstanceUID="1.2.3")
    assert "uneven distances, from 4 to 7 mm" in fault_of(folder)


def rewrite(file, **elements):
    import pydicom

    header = pydicom.dcmread(file)
    for name, value in elements.items():
        setattr(header, name, value)
    header.save_as(file)


def test_orientations_of_a_localizer_are_told_apart(tmp_path):
    folder = write_series(tmp_path / "scout", VOXELS[:, :, :3], uid="1.2.3")
    sagittal = nib.affines.from_matvec([[0, 0, 4], [-1.5, 0, 0], [0, -2, 0]], [0, 0, 0])
    write_series(folder, VOXELS[:, :, :2], sagittal, uid="1.2.3", first=100)
    assert "several orientations (3 axial, 2 sagittal), as a localizer does" in fault_of(folder)


def test_several_series_in_one_folder_are_named(tmp_path):
    folder = write_series(tmp_path / "all", VOXELS, SeriesDescription="t1 mprage")
    write_series(folder, VOXELS[:, :, :4], first=100, SeriesDescription="t2 tse")
    reason = fault_of(folder)
    assert (
        "holds 2 series: t1 mprage (9 files), t2 tse (4 files). Put each into a folder of its own" in reason
    )


def test_several_images_at_each_place_are_volumes(tmp_path):
    folder = write_series(tmp_path / "dwi", VOXELS, uid="1.2.3")
    write_series(folder, VOXELS + 1, uid="1.2.3", first=101)
    assert "holds 2 volumes" in fault_of(folder)
    np.testing.assert_array_equal(read_scan(folder, volume=1).data, VOXELS + 1)
    next(folder.glob("IM01*")).unlink()
    assert "1 to 2 images at one place" in fault_of(folder)


def test_slices_of_other_sizes_colours_and_mosaics_are_refused(tmp_path):
    mixed = write_series(tmp_path / "mixed", VOXELS, uid="1.2.3")
    write_series(mixed, VOXELS[:6, :, :1], uid="1.2.3", first=100)
    assert "different shape" in fault_of(mixed)
    assert "in colour" in fault_of(write_series(tmp_path / "rgb", VOXELS[:, :, :2], SamplesPerPixel=3))
    mosaic = write_series(tmp_path / "bold", VOXELS[:, :, :2], ImageType=["ORIGINAL", "PRIMARY", "MOSAIC"])
    assert "mosaics" in fault_of(mosaic)


def test_slices_without_a_place_are_refused_and_a_single_one_is_taken(tmp_path):
    folder = tmp_path / "xr"
    folder.mkdir()
    make_slice(VOXELS[:, :, 0]).save_as(folder / "a.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_scan(folder).data, VOXELS[:, :, :1])
    assert read_scan(folder / "a.dcm").id == "a.dcm"
    make_slice(VOXELS[:, :, 1]).save_as(folder / "b.dcm", enforce_file_format=True)
    for file in folder.iterdir():
        rewrite(file, SeriesInstanceUID="1.2.3")
    assert "without a position" in fault_of(folder)


@pytest.mark.parametrize(
    "damage", [b"", b"junk" * 100, b"\0" * 128 + b"DICM" + b"junk" * 100, "half", "header"]
)
def test_a_damaged_slice_is_refused_by_its_name(tmp_path, damage):
    folder = write_series(tmp_path / "T1", VOXELS)
    file = folder / "IM0021.dcm"
    whole = file.read_bytes()
    file.write_bytes({"half": whole[:-60], "header": whole[:300]}.get(damage, damage))
    reason = fault_of(folder)
    assert "fault in the program" not in reason
    assert "misses 1 slices" in reason or "IM0021.dcm" in reason


def test_a_series_larger_than_allowed_is_refused_before_its_pixels_are_read(tmp_path):
    assert "allowed are 100" in fault_of(write_series(tmp_path / "T1", VOXELS), max_bytes=100)


def test_an_enhanced_image_of_many_frames_is_a_volume(tmp_path):
    enhanced = make_slice(VOXELS[:, :, 0])
    enhanced.SeriesInstanceUID = generate_uid()
    enhanced.NumberOfFrames = VOXELS.shape[2]
    enhanced.PixelData = np.ascontiguousarray(VOXELS.T).tobytes()
    shared = Dataset()
    shared.PixelMeasuresSequence = Sequence([dataset(PixelSpacing=[2.0, 1.5])])
    shared.PlaneOrientationSequence = Sequence([dataset(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])])
    enhanced.SharedFunctionalGroupsSequence = Sequence([shared])
    enhanced.PerFrameFunctionalGroupsSequence = Sequence(
        dataset(
            PlanePositionSequence=Sequence([dataset(ImagePositionPatient=[-20, -30, -10 + 4 * k])]),
            PixelValueTransformationSequence=Sequence([dataset(RescaleSlope=k + 1, RescaleIntercept=0)]),
        )
        for k in range(VOXELS.shape[2])
    )
    enhanced.save_as(tmp_path / "mr.dcm", enforce_file_format=True)
    scan = read_scan(tmp_path / "mr.dcm")
    np.testing.assert_allclose(scan.affine, UPRIGHT)
    np.testing.assert_allclose(scan.data, VOXELS * np.arange(1.0, 10))


def dataset(**elements):
    made = Dataset()
    for name, value in elements.items():
        setattr(made, name, value)
    return made


# How series are found and called


def test_each_folder_of_files_is_a_scan_and_called_by_the_folders_that_tell_them_apart(tmp_path):
    folders = [write_series(tmp_path / patient / "T1", VOXELS[:, :, :2]) for patient in ("p1", "p2")]
    for file in folders[1].iterdir():
        file.rename(file.with_suffix(""))  # known by their content
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "notes.txt").write_text("no scan")
    assert find_scans(tmp_path) == folders
    assert scan_ids(folders) == ["p1_T1", "p2_T1"]
    assert (
        find_scans([folders[0], tmp_path / "p2" / "T1" / "IM0000"]) == folders
    )  # one file stands for its series
    assert find_scans(str(tmp_path / "*" / "T1" / "*")) == folders
    assert find_scans(tmp_path, suffix="T1") == folders


def test_a_series_that_is_named_is_taken_whatever_its_name(tmp_path):
    folder = write_series(tmp_path / "tumor_seg", VOXELS[:, :, :2])
    assert find_named_or_chosen(folder, suffix="T1", exclude=("_seg",)) == [folder]
    with pytest.raises(InputError, match="ends in 'T1'"):
        find_named_or_chosen(tmp_path, suffix="T1", exclude=())


def test_where_there_are_volumes_dicom_files_beside_them_are_no_scans(tmp_path):
    folder = write_series(tmp_path / "T1", VOXELS[:, :, :2])
    volume = folder / "converted.nii.gz"
    write_image(nib.Nifti1Image(VOXELS, UPRIGHT), volume)
    assert find_scans(tmp_path) == find_scans(folder) == [volume]


def test_a_folder_without_images_is_refused(tmp_path):
    assert "is a folder without DICOM images" in fault_of(tmp_path)


def test_a_changed_slice_changes_the_digest_of_its_series(tmp_path):
    folder = write_series(tmp_path / "T1", VOXELS[:, :, :2])
    before = digest_of(folder)
    assert before
    rewrite(folder / "IM0000.dcm", RescaleSlope=2)
    assert digest_of(folder) not in ("", before)


def test_without_pydicom_the_reason_names_what_to_install(tmp_path, monkeypatch):
    folder = write_series(tmp_path / "T1", VOXELS[:, :, :2])
    monkeypatch.setitem(importlib.sys.modules, "pydicom", None)
    assert 'pip install "skmimood[dicom]"' in fault_of(folder)
    assert scan_id(folder) == "T1"
