"""Which parts a mask has, and how they are measured and written."""

import csv

import nibabel as nib
import numpy as np
import pytest
from toy_scans import RAS, head, image, make, write_healthy_scans

from skmimood.maps.lesions import Lesion, find_lesions

AFFINE = nib.affines.from_matvec(np.diag([-2.0, 1.0, 3.0]), [10, -20, 30])


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return make(calibration_fraction=0.3).fit(write_healthy_scans(tmp_path_factory.mktemp("healthy")))


def test_parts_are_numbered_by_volume_and_measured_in_mm_of_the_world():
    mask = np.zeros((8, 9, 10), bool)
    mask[1, 1, 1] = True
    mask[4:6, 4:7, 5] = True
    anomaly = np.linspace(0, 1, mask.size, dtype=np.float32).reshape(mask.shape)
    pvalues = np.where(mask, np.float32(0.25), 1)
    labels, (first, second) = find_lesions(mask, anomaly, pvalues, AFFINE)
    assert first == pytest.approx((1, 6 * 6, anomaly[5, 6, 5], 0.25, 10 - 2 * 4.5, -20 + 5, 30 + 3 * 5))
    assert second == pytest.approx((2, 6, anomaly[1, 1, 1], 0.25, 8, -19, 33))
    np.testing.assert_array_equal(labels[4:6, 4:7, 5], 1)
    np.testing.assert_array_equal(labels > 0, mask)


def test_voxels_that_touch_by_a_corner_are_one_part():
    mask = np.zeros((4, 4, 4), bool)
    mask[1, 1, 1] = mask[2, 2, 2] = True
    assert len(find_lesions(mask, mask * 1.0, mask * 1.0, np.eye(4))[1]) == 1


def test_a_mask_without_a_voxel_has_no_parts():
    labels, lesions = find_lesions(np.zeros((3, 3, 3)), np.zeros((3, 3, 3)), np.ones((3, 3, 3)), np.eye(4))
    assert lesions == []
    assert not labels.any()


def test_a_planted_lesion_is_the_largest_part_and_lies_where_it_was_planted(detector):
    result = detector.detect_scan(image(7, lesion=True))
    planted = np.argwhere(head(7)[1]).mean(axis=0)
    largest = result.lesions[0]
    np.testing.assert_allclose(largest[-3:], nib.affines.apply_affine(RAS, planted), atol=4)
    assert largest.peak == pytest.approx(float(result.anomaly.get_fdata().max()), rel=1e-6)
    assert 0 < largest.mean_pvalue <= 0.01
    labels = np.asarray(result.labels.dataobj)
    np.testing.assert_array_equal(labels > 0, np.asarray(result.mask.dataobj) > 0)
    assert labels.max() == len(result.lesions)
    assert largest.volume_mm3 == pytest.approx(8 * np.count_nonzero(labels == 1))


def test_places_and_volumes_are_in_mm_whatever_the_unit_of_the_header(detector):
    scan = image(7, lesion=True)
    in_metres = nib.Nifti1Image(scan.dataobj, np.diag([0.001] * 3 + [1]) @ scan.affine)
    in_metres.header.set_xyzt_units("meter")
    expected, found = (detector.detect_scan(each).lesions for each in (scan, in_metres))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4)


def test_the_table_and_the_labels_of_a_scan_are_saved(detector, tmp_path):
    result = detector.detect_scan(image(7, lesion=True))
    result.save(tmp_path)
    labels = nib.load(tmp_path / "scan-000_lesions.nii.gz")
    assert np.array_equal(labels.affine, result.anomaly.affine)
    assert labels.get_data_dtype().kind == "u"
    with open(tmp_path / "scan-000_lesions.csv", newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert list(lines[0]) == ["label", "volume_mm3", "peak", "mean_pvalue", "x_mm", "y_mm", "z_mm"]
    read = [Lesion(*(float(cell) for cell in line.values())) for line in lines]
    np.testing.assert_allclose(read, result.lesions, rtol=1e-5)
