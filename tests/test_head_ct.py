"""The brain in head CT, in Hounsfield units and in the brain window of pictures, and its intensities."""

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from scipy import ndimage
from sklearn.pipeline import Pipeline
from toy_ct import SHAPE, SPACING, head_ct, windowed
from toy_scans import make

from skmimood.baselines import HealthyZScore
from skmimood.nifti import read_scan
from skmimood.preprocessing import ct_brain_mask, ct_window, scale_intensity


def image_of(values):
    return nib.Nifti1Image(values.astype(np.float32), np.diag([*SPACING, 1.0]))


def scan_of(values):
    return read_scan(image_of(values))


def dice(first, second):
    return 2 * (first & second).sum() / (first.sum() + second.sum())


@pytest.mark.parametrize("form", [np.asarray, windowed])
def test_the_brain_is_found_without_skull_scalp_and_head_rest(form):
    values, brain, _, _ = head_ct()
    found = ct_brain_mask(scan_of(form(values)))
    assert dice(found, brain) > 0.9  # the rim beside bone is left out
    assert not (found & ~brain).any()
    assert values[found].max() < 150  # neither bone nor voxels that are mostly bone


@pytest.mark.parametrize("form", [np.asarray, windowed])
def test_bleedings_belong_to_the_brain_and_keep_their_contrast(form):
    values, _, at_skull, inside = head_ct()
    scan = scan_of(form(values))
    found = ct_brain_mask(scan)
    assert found[inside].all()
    assert found[at_skull].mean() > 0.7
    scaled = scale_intensity(scan.data, found, window=ct_window(scan.data), strip=True)
    assert np.median(scaled[found]) == pytest.approx(35 / 80, abs=0.02)
    assert scaled[ndimage.binary_erosion(inside)].mean() == pytest.approx(70 / 80, abs=0.03)
    assert not scaled[~found].any()


def test_saturated_blood_within_the_brain_is_part_of_it():
    values, _, _, inside = head_ct(blood=95.0)
    assert ct_brain_mask(scan_of(windowed(values)))[inside].all()


@pytest.mark.parametrize(("gap", "is_whole"), [(15.0, True), (35.0, True), (70.0, False)])
def test_gaps_of_the_skull_are_bridged_up_to_four_centimetres(gap, is_whole):
    values, brain, _, _ = head_ct(skull=4.0, gap=gap)
    assert (dice(ct_brain_mask(scan_of(values)), brain) > 0.9) == is_whole


def test_without_a_skull_nothing_is_found():
    values = head_ct()[0]
    assert not ct_brain_mask(scan_of(np.where(values > 100, -1000, values))).any()


@pytest.mark.parametrize("codes", ["LPS", "PSR", "SAL"])
def test_the_brain_does_not_depend_on_the_order_of_voxels(codes):
    values = head_ct()[0].astype(np.float32)
    there = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    back = ornt_transform(axcodes2ornt(codes), axcodes2ornt("RAS"))
    affine = np.diag([*SPACING, 1.0]) @ inv_ornt_aff(there, SHAPE)
    turned = read_scan(nib.Nifti1Image(apply_orientation(values, there), affine))
    np.testing.assert_array_equal(
        apply_orientation(ct_brain_mask(turned), back), ct_brain_mask(scan_of(values))
    )


def test_a_scan_detector_maps_the_brain_of_ct_and_heals_in_its_own_unit():
    healthy = [image_of(head_ct(blood=35.0, seed=seed)[0]) for seed in range(1, 5)]
    values, brain, at_skull, inside = head_ct()
    pipeline = Pipeline([("zscore", HealthyZScore(residual="positive", erosion=0))])
    detector = make(mask="ct-brain", size=32, pipeline=pipeline).fit(healthy)
    result = detector.detect_scan(image_of(values))
    anomaly, healed = result.anomaly.get_fdata(), result.healed.get_fdata()
    assert not anomaly[~brain].any()
    assert anomaly[inside].mean() > 5 * anomaly[brain & ~inside & ~at_skull].mean()
    assert healed[inside].mean() == pytest.approx(35, abs=5)
    np.testing.assert_allclose(healed[~brain], values[~brain].astype(np.float32))
