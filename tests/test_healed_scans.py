import warnings

import nibabel as nib
import numpy as np
import pytest
from sklearn.pipeline import Pipeline
from toy_scans import RAS, head, image, make

from skmimood.baselines import HealthyZScore
from skmimood.exceptions import InputError, ScanWriteError, SkmimoodWarning
from skmimood.maps.healing import blend, healing_weights
from skmimood.scans.results import OUTPUTS


@pytest.fixture(scope="module")
def detector():
    return make(size=40, calibration_fraction=0.3).fit([image(seed) for seed in range(6)])


def test_a_healed_scan_lacks_the_lesion_and_keeps_grid_and_intensities(detector):
    sick, lesion = head(99, lesion=True, scale=3000.0)
    result = detector.detect_scan(nib.Nifti1Image(sick, RAS))
    healed, healthy, found = result.healed.get_fdata(), head(99, scale=3000.0)[0], result.anomaly.get_fdata()
    np.testing.assert_allclose(healed[lesion > 0].mean(), healthy[lesion > 0].mean(), rtol=0.05)
    tissue = (sick > 0) & (lesion == 0)
    nothing = found < detector.pixel_threshold_
    np.testing.assert_array_equal(healed[nothing], sick[nothing])
    assert nothing[tissue].mean() > 0.9
    assert result.healed.get_data_dtype() == np.float32
    np.testing.assert_array_equal(result.healed.affine, RAS)


def test_restorations_are_mixed_into_a_scan_once():
    steps = Pipeline([("zscore", HealthyZScore())])
    detector = make(pipeline=steps, size=32, calibration_fraction=0.3).fit([image(seed) for seed in range(6)])
    sick, lesion = head(99, lesion=True)
    scan = nib.Nifti1Image(sick, RAS)
    found = detector.detect_scan(scan).anomaly.get_fdata()
    detector.pixel_threshold_ = 1e-9
    restored = detector.detect_scan(scan).healed.get_fdata()
    detector.pixel_threshold_ = threshold = float(found[lesion > 0].mean()) / 1.5
    weights = healing_weights(found, threshold)
    assert ((weights > 0.2) & (weights < 0.8)).sum() > 10
    healed = detector.detect_scan(scan).healed.get_fdata()
    np.testing.assert_allclose(healed, blend(sick, restored, found, threshold), rtol=1e-5)


@pytest.mark.parametrize("shift", [0.0, -1024.0])
def test_outside_of_the_foreground_it_is_the_scan_itself(detector, shift):
    sick, lesion = head(5, lesion=True)
    sick, lesion = sick + np.float32(shift), lesion > 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkmimoodWarning)
        healed = detector.detect_scan(nib.Nifti1Image(sick, RAS)).healed.get_fdata()
    np.testing.assert_array_equal(healed[sick == shift], sick[sick == shift])
    assert (healed[lesion] != sick[lesion]).mean() > 0.9


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PSR", "IPL"])
def test_outside_of_the_frame_it_is_the_scan_itself_in_every_orientation(codes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkmimoodWarning)
        detector = make(size=(20, 12), spacing=2.0).fit([image(seed) for seed in range(4)])
    detector.pixel_threshold_ = 1e-9  # everything in the frame is healed
    to_codes = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(RAS), nib.orientations.axcodes2ornt(codes)
    )
    straight = nib.Nifti1Image(head(5)[0], RAS)
    turned = straight.as_reoriented(to_codes)
    healed = detector.detect_scan(turned).healed
    expected = detector.detect_scan(straight).healed.as_reoriented(to_codes)
    np.testing.assert_allclose(healed.get_fdata(), expected.get_fdata(), atol=1e-2)
    is_changed = healed.get_fdata() != turned.get_fdata()
    rows, columns = (is_changed.any(axis=tuple({0, 1, 2} - {axis})).sum() for axis in _in_plane(turned))
    assert (rows, columns) == (20, 12)


def _in_plane(picture):
    """Return the voxel axes that run from front to back and from left to right."""
    axes = nib.orientations.io_orientation(picture.affine)[:, 0].tolist()
    return axes.index(1), axes.index(0)


def test_what_is_missing_in_the_scan_is_missing_in_the_healed_scan(detector):
    data, _ = head(8)
    data[15, 15, 10] = np.nan
    healed = detector.detect_scan(nib.Nifti1Image(data, RAS)).healed.get_fdata()
    np.testing.assert_array_equal(np.argwhere(np.isnan(healed)), [[15, 15, 10]])


def test_a_result_saves_all_its_images_or_none(detector, tmp_path):
    result = detector.detect_scan(image(7))
    paths = result.save(tmp_path / "new" / "out")
    assert [path.name for path in paths] == [f"scan-000{ending}" for ending in OUTPUTS]
    images = [path for path in paths if path.suffix == ".gz"]
    made = (result.anomaly, result.pvalues, result.mask, result.labels, result.healed)
    for path, picture in zip(images, made, strict=True):
        np.testing.assert_array_equal(nib.load(path).get_fdata(), picture.get_fdata())
    for path in paths[:-1]:
        path.unlink()
    with pytest.raises(ScanWriteError, match=r"healed\.nii\.gz exists already"):
        result.save(tmp_path / "new" / "out")
    assert list((tmp_path / "new" / "out").iterdir()) == paths[-1:]
    assert result.save(tmp_path / "new" / "out", overwrite=True) == paths
    with pytest.raises(ScanWriteError, match="Choose another folder"):
        result.save(paths[0] / "below a file")


@pytest.mark.parametrize("method", ["decision_function", "predict", "score_samples"])
def test_maps_masks_and_scores_alone_hold_no_scan_to_be_healed(detector, monkeypatch, method):
    made = []
    detect = type(detector)._detect_scan
    monkeypatch.setattr(
        type(detector), "_detect_scan", lambda *given: made.append(detect(*given)) or made[-1]
    )
    getattr(detector, method)([image(7), image(8)])
    assert [result.healing for result in made] == [None, None]
    assert next(detector.detect(image(7))).healing is not None


def test_a_result_from_elsewhere_has_no_healed_scan(detector):
    from dataclasses import replace

    with pytest.raises(InputError, match="Detect it again"):
        _ = replace(detector.detect_scan(image(7)), healing=None).healed
