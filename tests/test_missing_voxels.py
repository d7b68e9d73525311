"""NaN and infinities: background outside the head, limited inside, missing again in the maps."""

import nibabel as nib
import numpy as np
import pytest
from toy_scans import RAS, head, image, make

from skmimood.exceptions import InputError, ScanReadError, SkmimoodWarning
from skmimood.nifti import read_scan, write_image

SHAPE = (30, 36, 20)


@pytest.fixture(scope="module")
def detector():
    return make().fit([image(seed) for seed in range(5)])


def scan(values):
    return nib.Nifti1Image(np.asarray(values, dtype=np.float32), RAS)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_bad_input_32_missing_values_outside_the_head_are_background_of_any_share(detector, value):
    data, _ = head(50, lesion=True)
    clean, odd = (
        detector.detect_scan(scan(data)),
        detector.detect_scan(scan(np.where(data == 0, value, data))),
    )
    assert np.mean(data == 0) > 0.4
    outside = data == 0
    np.testing.assert_array_equal(np.isnan(odd.anomaly.get_fdata()), outside)
    np.testing.assert_array_equal(odd.anomaly.get_fdata()[~outside], clean.anomaly.get_fdata()[~outside])
    assert odd.score == clean.score
    assert odd.flags == (f"{outside.sum()} NaN or infinite voxels were taken as 0",)


def test_healthy_scans_with_missing_background_are_learned_from_with_one_remark(detector):
    scans = [scan(np.where(head(seed)[0] == 0, np.nan, head(seed)[0])) for seed in range(5)]
    with pytest.warns(
        SkmimoodWarning, match="some NaN or infinite voxels were taken as 0: scan-000, scan-001"
    ) as all_:
        odd = make().fit(scans)
    assert len(all_) == 1
    assert odd.pixel_threshold_ == detector.pixel_threshold_


HOLES = {
    "block": np.s_[12:18, 14:22, 6:14],
    "slices across": np.s_[:, :, 9:11],
    "slices along": np.s_[14:16, :, :],
    "tunnel": np.s_[13:17, 15:21, :],
}


@pytest.mark.parametrize("kind", HOLES)
@pytest.mark.parametrize("background", [0.0, np.nan])
def test_bad_input_31_what_is_missing_in_the_head_is_limited_and_the_limit_can_be_moved(
    detector, kind, background
):
    data, _ = head(50)
    data = np.where(data == 0, background, data)
    data[HOLES[kind]] = np.nan
    with pytest.raises(ScanReadError, match=r"in \d+\.\d+% of the head \(limit 1.00%\).*max_invalid"):
        detector.detect_scan(scan(data))
    generous = make(max_invalid=0.9).fit([image(seed) for seed in range(5)])
    result = generous.detect_scan(scan(data))
    assert "some of them lie in the head, where the map is NaN" in result.flags
    np.testing.assert_array_equal(np.isnan(result.anomaly.get_fdata()), np.isnan(data))
    strict = make(max_invalid=0).fit([image(seed) for seed in range(5)])
    data, _ = head(50)
    data[15, 15, 10] = np.nan
    with pytest.raises(ScanReadError, match=r"limit 0\.00%"):
        strict.detect_scan(scan(data))


def test_a_brain_mask_decides_what_is_inside_where_one_is_given(tmp_path):
    for seed in range(5):
        data, _ = head(seed)
        mask = np.zeros(SHAPE, np.uint8)
        mask[8:22, 10:26, 5:15] = 1
        write_image(nib.Nifti1Image(mask, RAS), tmp_path / f"s{seed}_mask.nii.gz")
        write_image(
            scan(np.where(mask, data, np.nan) if seed == 4 else data), tmp_path / f"s{seed}_T1.nii.gz"
        )
    with pytest.warns(SkmimoodWarning, match="NaN or infinite voxels were taken as 0: s4_T1"):
        detector = make(mask="_mask").fit(tmp_path)
    data[10:16, 12:18, 8:12] = np.nan
    write_image(scan(data), tmp_path / "s4_T1.nii.gz", overwrite=True)
    with pytest.raises(ScanReadError, match="of the head"):
        detector.detect_scan(tmp_path / "s4_T1.nii.gz")


def test_missing_values_around_ct_become_air_and_around_z_scores_the_mean():
    rng = np.random.default_rng(0)
    ct = np.full(SHAPE, -1000.0) + rng.normal(0, 5, SHAPE)
    ct[8:22, 8:28, 4:16] = 40
    ct[:3] = np.nan
    assert read_scan(scan(ct), max_invalid=1).data[0, 0, 0] == pytest.approx(-1000, abs=20)
    brain = np.where(head()[0] > 0, rng.normal(0, 1, SHAPE), np.nan)
    assert read_scan(scan(brain), max_invalid=1).data[0, 0, 0] == 0


def test_bad_input_31_a_scan_or_a_head_of_nothing_but_nan_is_refused(detector):
    with pytest.raises(ScanReadError, match=r"NaN or infinite values in 100\.00%"):
        detector.detect_scan(scan(np.full(SHAPE, np.nan)))
    with pytest.raises(ScanReadError, match="empty: every voxel but NaN and infinite ones is 0"):
        detector.detect_scan(scan(np.where(head()[0] > 0, np.nan, 0)))


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan, "1", None])
def test_a_limit_that_is_no_share_is_refused(value):
    with pytest.raises(InputError, match="max_invalid must be a share"):
        make(max_invalid=value).fit([image(seed) for seed in range(4)])
