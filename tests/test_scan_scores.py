"""The score of a scan: how far and how high its map exceeds what is healthy, in three dimensions."""

import nibabel as nib
import numpy as np
import pytest
from golden import FOLDER
from toy_scans import RAS, head, image, make

from skmimood import ScanDetector
from skmimood.maps.conformal import HealthyReference
from skmimood.maps.volumes import cluster_mass


@pytest.fixture(scope="module")
def fitted():
    return make(calibration_fraction=0.5, slice_smoothing=0.0).fit([image(seed) for seed in range(8)])


def with_values(places, value=3.0, shape=(6, 20, 20)):
    maps = np.full(shape, 0.5, np.float32)
    maps[tuple(np.transpose(places))] = value
    return maps


def test_a_cluster_scores_higher_than_the_same_voxels_scattered():
    cluster = with_values([(3, row, column) for row in range(4) for column in range(4)])
    scattered = with_values([(2 * k % 6, 4 * (k // 4) + 2, 4 * (k % 4) + 2) for k in range(16)])
    assert np.array_equal(np.sort(cluster, None), np.sort(scattered, None))
    assert cluster_mass(cluster, 1.0, 0.1) == pytest.approx(16 * 2 * 0.1)
    assert cluster_mass(scattered, 1.0, 0.1) == pytest.approx(4 * 2 * 0.1)


def test_neighbouring_slices_make_one_cluster():
    through = cluster_mass(with_values([(k, 5, 5) for k in range(4)]), 1.0, 1.0)
    apart = cluster_mass(with_values([(k, 2 * k, 5) for k in range(4)]), 1.0, 1.0)
    assert through == 2 * apart


def test_height_and_extent_both_count():
    small = cluster_mass(with_values([(0, 0, 0)]), 1.0, 1.0)
    assert cluster_mass(with_values([(0, 0, 0)], value=5.0), 1.0, 1.0) == 2 * small
    assert cluster_mass(with_values([(0, 0, 0), (0, 0, 1)]), 1.0, 1.0) == 2 * small
    assert cluster_mass(with_values([(0, 0, 0), (5, 9, 9)]), 1.0, 1.0) > small


def test_nothing_above_the_threshold_scores_0():
    assert cluster_mass(with_values([(0, 0, 0)], value=1.0), 1.0, 1.0) == 0
    assert cluster_mass(with_values([(0, 0, 0)]), np.inf, 1.0) == 0


def test_slices_half_as_thick_score_the_same():
    maps = with_values([(k, row, 5) for k in range(2, 4) for row in range(5)])
    assert cluster_mass(np.repeat(maps, 2, 0), 1.0, 0.5) == pytest.approx(cluster_mass(maps, 1.0, 1.0))


def test_a_scan_padded_with_empty_slices_keeps_its_score(fitted):
    data, _ = head(9, lesion=True)
    padded = np.pad(data, ((0, 0), (0, 0), (7, 3)))
    scores = fitted.score_samples([nib.Nifti1Image(one, RAS) for one in (data, padded)])
    assert scores[0] > 0
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)


def test_a_single_slice_has_a_score(fitted):
    data, _ = head(9, lesion=True)
    slices = [nib.Nifti1Image(one[:, :, 10:11], RAS) for one in (head(9)[0], data)]
    healthy, sick = (fitted.detect_scan(one).score for one in slices)
    assert sick > healthy >= 0


def test_held_out_scans_are_compared_with_the_others_as_a_new_one_will_be(fitted):
    held_out = [line.id for line in fitted.fit_status_ if line.status == "calibration"]
    assert len(held_out) == fitted.reference_.n_scans == 4
    sources = [image(int(name.removeprefix("scan-"))) for name in held_out]
    alone = []
    for k, source in enumerate(sources):
        others = make(slice_smoothing=0.0)
        others.__dict__.update(vars(fitted))
        others.calibrate(sources[:k] + sources[k + 1 :], groups=["a", "b", "c"])
        alone.append(others.detect_scan(source).score)
    np.testing.assert_allclose(fitted.reference_.scan_scores, np.sort(alone), rtol=1e-6)


def test_pixels_can_be_pooled_and_taken_out_again():
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=1000).astype(np.float32) for _ in range(3)]
    own = [HealthyReference.from_scans([(part, k)]) for k, part in enumerate(parts)]
    pooled, at_once = (
        HealthyReference.pooled(own),
        HealthyReference.from_scans(zip(parts, range(3), strict=True)),
    )
    for name, array in at_once.to_arrays().items():
        np.testing.assert_array_equal(pooled.to_arrays()[name], array)
    rest, two = pooled.without(own[1]), HealthyReference.pooled([own[0], own[2]])
    np.testing.assert_array_equal(rest.pixel_values, two.pixel_values)
    np.testing.assert_array_equal(rest.pixel_counts, two.pixel_counts)


def test_models_of_before_keep_their_score_until_they_are_calibrated_anew():
    detector = ScanDetector.load(FOLDER / "format-1" / "model")
    scan = FOLDER / "format-1" / "healthy.nii.gz"
    assert detector.scan_statistic_ == "top mean"
    result = detector.detect_scan(scan)
    anomaly = result.anomaly.get_fdata()
    inside = result.pvalues.get_fdata() < 1
    assert result.score > np.quantile(anomaly[inside], 0.9)
    assert detector.calibrate([scan], scan_fpr=0.5).scan_statistic_ == "cluster mass"
    assert detector.detect_scan(scan).score != result.score
