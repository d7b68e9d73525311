"""Maps of neighbouring slices are averaged at their true distance, from calibration to the command line."""

import nibabel as nib
import numpy as np
import pytest
from golden import FOLDER
from toy_scans import head, image, make

from skmimood import ScanDetector
from skmimood.maps.volumes import filter_across


def impulse(n=15, at=7):
    maps = np.zeros((n, 4, 4), np.float32)
    maps[at] = 1
    return maps


def test_the_width_in_mm_does_not_depend_on_the_distance_of_the_slices():
    for distance in (0.5, 1.0, 3.0):
        n = int(100 / distance)
        profile = filter_across(impulse(n, n // 2), distance, 5.0)[:, 0, 0]
        place = (np.arange(n) - n // 2) * distance
        assert profile.sum() == pytest.approx(1, abs=1e-5)
        assert np.sqrt((profile * place**2).sum()) == pytest.approx(5.0, rel=0.05)


def test_slices_that_are_far_apart_are_left_alone():
    maps = np.random.default_rng(0).random((6, 4, 4), np.float32)
    np.testing.assert_array_equal(filter_across(maps, 16.0, 5.0), maps)
    np.testing.assert_array_equal(filter_across(maps, 1.0, 0.0), maps)
    np.testing.assert_array_equal(filter_across(maps[:1], 1.0, 5.0), maps[:1])


def test_slices_without_a_map_neither_dilute_their_neighbours_nor_are_filled_by_them():
    maps, present = np.ones((20, 4, 4), np.float32), np.ones(20, bool)
    present[[0, 1, 8, 18, 19]] = False
    maps[~present] = 0
    np.testing.assert_allclose(filter_across(maps, 2.0, 4.0, present), maps, rtol=1e-6)
    varied = np.random.default_rng(0).random((20, 4, 4), np.float32)
    inner = filter_across(varied, 2.0, 4.0, present)[2:18]
    np.testing.assert_allclose(inner, filter_across(varied[2:18], 2.0, 4.0, present[2:18]), rtol=1e-6)


def test_nothing_leaks_across_a_gap_wider_than_the_filter():
    present = np.ones(30, bool)
    present[10:20] = False
    below, above = impulse(30, 5), impulse(30, 5) + impulse(30, 22)
    found = [filter_across(maps, 2.0, 5.0, present)[:10] for maps in (below, above)]
    np.testing.assert_array_equal(*found)


def test_a_lesion_in_one_slice_is_seen_in_the_next_and_thresholds_are_of_filtered_maps():
    scans = [image(seed) for seed in range(6)]
    options = {"calibration_fraction": 0.3, "fpr": 0.05}
    smooth, single = (make(slice_smoothing=mm, **options).fit(scans) for mm in (3.0, 0.0))
    # The noise of the toys differs from slice to slice, so the average of several exceeds less.
    assert smooth.pixel_threshold_ < single.pixel_threshold_
    assert smooth.slice_smoothing_ == 3.0
    data, _ = head(9)
    data[13:17, 16:20, 10] = 1000
    one = nib.Nifti1Image(data, image().affine)
    changed, without = (smooth.decision_function(scan)[0].get_fdata()[15, 18] for scan in (one, image(9)))
    risen = changed - without
    assert risen[10] > risen[9] > risen[8] > 0.01 > abs(risen[16])


def test_a_new_value_takes_effect_with_the_calibration():
    scans = [image(seed) for seed in range(6)]
    detector = make(slice_smoothing=3.0).fit(scans)
    before = detector.decision_function(image(9))[0].get_fdata()
    detector.set_params(slice_smoothing=0.0)
    np.testing.assert_array_equal(detector.decision_function(image(9))[0].get_fdata(), before)
    detector.calibrate([image(20), image(21)])
    after = detector.decision_function(image(9))[0].get_fdata()
    assert detector.slice_smoothing_ == 0
    np.testing.assert_array_equal(
        after, make(slice_smoothing=0.0).fit(scans).decision_function(image(9))[0].get_fdata()
    )


def test_models_of_before_map_slices_one_by_one():
    detector = ScanDetector.load(FOLDER / "format-1" / "model")
    assert detector.slice_smoothing == detector.slice_smoothing_ == 0
