import itertools
import pickle
import tracemalloc
import warnings

import nibabel as nib
import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from sklearn.pipeline import Pipeline
from toy_scans import RAS, MedianRestorer, Unchanged, head, image, make, write_healthy_scans

from skmimood.exceptions import InputError, SkmimoodWarning
from skmimood.nifti import write_image
from skmimood.scans import ScanResult


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_healthy_scans(tmp_path_factory.mktemp("healthy scans"))


@pytest.fixture(scope="module")
def fitted(folder):
    return make(calibration_fraction=0.3).fit(folder)


@pytest.fixture
def detector(fitted):
    return pickle.loads(pickle.dumps(fitted))


def test_a_planted_lesion_scores_higher_than_its_surroundings(detector):
    sick, mask = head(99, lesion=True)
    anomaly = detector.decision_function(nib.Nifti1Image(sick, RAS))[0].get_fdata()
    assert np.median(anomaly[mask > 0]) > 5 * np.median(anomaly[(mask == 0) & (sick > 0)])


def test_a_scan_with_a_lesion_scores_higher_than_healthy_ones(detector):
    scores = detector.score_samples([image(50), image(51, lesion=True), image(52)])
    assert scores.shape == (3,)
    assert scores.argmax() == 1


def test_maps_are_zero_outside_the_foreground(detector):
    healthy = head(7)[0]
    result = detector.detect_scan(nib.Nifti1Image(healthy, RAS))
    assert np.all(result.anomaly.get_fdata()[healthy == 0] == 0)
    assert np.all(result.pvalues.get_fdata()[healthy == 0] == 1)
    assert np.all(result.mask.get_fdata()[healthy == 0] == 0)


def test_bad_input_19_each_of_48_orientations_gives_the_same_map_on_its_own_grid(detector):
    data, _ = head(3, lesion=True)
    data[20:24, 5:9, 8:12] *= 0.3  # break the symmetry
    straight = nib.Nifti1Image(data, RAS)
    expected = detector.decision_function(straight)[0]
    turns = [
        np.column_stack([axes, flips])
        for axes in itertools.permutations(range(3))
        for flips in itertools.product((1, -1), repeat=3)
    ]
    assert len(turns) == 48
    for turn in turns:
        turned = straight.as_reoriented(turn)
        found = detector.decision_function(turned)[0]
        assert found.shape == turned.shape
        np.testing.assert_array_equal(found.affine, turned.affine)
        np.testing.assert_allclose(found.get_fdata(), expected.as_reoriented(turn).get_fdata(), atol=1e-5)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("size", [24, (20, 32)])
def test_outputs_have_the_input_s_shape_and_affine_and_fresh_types(plane, size):
    oblique = nib.eulerangles.euler2mat(z=0.3, y=0.1, x=-0.2)
    affine = nib.affines.from_matvec(oblique * [1.9, 1.9, 3.0], [-3, 5, 7])
    detector = make(plane=plane, size=size).fit([image(seed, affine) for seed in range(4)])
    scan = image(5, affine, shape=(27, 40, 25))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkmimoodWarning)
        result = detector.detect_scan(scan)
        (mask,) = detector.predict(scan)
    for found in (result.anomaly, result.pvalues, result.mask, mask):
        assert found.shape == scan.shape
        np.testing.assert_array_equal(found.affine, scan.affine)
    assert result.anomaly.get_data_dtype() == np.float32
    assert result.pvalues.get_data_dtype() == np.float32
    assert mask.get_data_dtype() == np.uint8


def test_a_trailing_axis_of_one_comes_back(detector):
    scan = nib.Nifti1Image(head(4)[0][..., np.newaxis], RAS)
    assert detector.decision_function(scan)[0].shape == scan.shape


def test_bad_input_36_the_unit_of_the_intensities_does_not_matter(detector):
    data = np.round(head(8, scale=255.0)[0].clip(0, 255))
    scans = [data.astype(np.uint8), data / np.float32(255), data / np.float32(255) * np.float32(1e6)]
    maps = [each.get_fdata() for each in detector.decision_function([nib.Nifti1Image(s, RAS) for s in scans])]
    np.testing.assert_allclose(maps[1], maps[0], atol=1e-5)
    np.testing.assert_allclose(maps[2], maps[0], atol=1e-5)


def test_bad_input_35_negative_values_and_scaled_integers_are_clipped_at_percentiles_of_the_head(tmp_path):
    def in_hounsfield(seed, **options):
        data, _ = head(seed, **options)
        return nib.Nifti1Image(np.where(data > 0, np.round(data) - 600, -1024).astype(np.float32), RAS)

    detector = make().fit([in_hounsfield(seed) for seed in range(5)])
    scan = in_hounsfield(99, lesion=True)
    anomaly = detector.decision_function(scan)[0].get_fdata()
    data, lesion = head(99, lesion=True)
    assert np.median(anomaly[lesion > 0]) > 5 * np.median(anomaly[(lesion == 0) & (data > 0)])
    assert not anomaly[data == 0].any()
    assert 0 == detector.pipeline_[-1].seen_.min() < 0.9 < detector.pipeline_[-1].seen_.max() <= 1
    stored = nib.Nifti1Image(((scan.get_fdata() + 1024) * 2).astype(np.int16), RAS)
    stored.header.set_slope_inter(0.5, -1024)
    nib.save(stored, tmp_path / "scan.nii.gz")
    found = detector.decision_function(tmp_path / "scan.nii.gz")[0].get_fdata()
    np.testing.assert_allclose(found, anomaly, atol=1e-5)


def test_bad_input_31_missing_voxels_are_missing_in_the_map(detector):
    data, _ = head(8)
    data[15, 15, 10] = np.nan
    result = detector.detect_scan(nib.Nifti1Image(data, RAS))
    assert np.isnan(result.anomaly.get_fdata()[15, 15, 10])
    assert np.isnan(result.anomaly.get_fdata()).sum() == 1
    assert result.mask.get_fdata()[15, 15, 10] == 0
    assert np.isfinite(result.score)


def test_slices_without_foreground_are_not_run_and_get_a_map_of_zeros(detector, monkeypatch):
    n_run = []
    run = MedianRestorer.map_and_restore
    monkeypatch.setattr(
        MedianRestorer, "map_and_restore", lambda self, X: n_run.append(len(X)) or run(self, X)
    )
    data, _ = head(5, shape=(30, 36, 60))
    scan = nib.Nifti1Image(data, np.diag([2, 2, 0.7, 1]))
    anomaly = detector.detect_scan(scan).anomaly.get_fdata()
    filled = (data > 0).any(axis=(0, 1))
    assert sum(n_run) == filled.sum() < 60
    assert len(n_run) > 1
    np.testing.assert_array_equal(anomaly.any(axis=(0, 1)), filled)


def test_steps_before_the_restorer_are_applied():
    pipeline = Pipeline([("first", Unchanged()), ("restorer", MedianRestorer())])
    scans = [image(seed) for seed in range(4)]
    found = make().set_params(pipeline=pipeline).fit(scans).decision_function(image(9))
    np.testing.assert_array_equal(
        found[0].get_fdata(), make().fit(scans).decision_function(image(9))[0].get_fdata()
    )


def test_about_fpr_of_the_voxels_of_healthy_scans_are_called_anomalous(folder):
    detector = make(fpr=0.05, calibration_fraction=0.5).fit(folder)
    masks = detector.predict([image(seed) for seed in range(100, 106)])
    rates = [mask.get_fdata().sum() / (head(0)[0] > 0).sum() for mask in masks]
    assert np.mean(rates) == pytest.approx(0.05, abs=0.02)


def test_both_thresholds_are_plain_attributes_that_predictions_use(detector):
    sick = image(9, lesion=True)
    detector.pixel_threshold_, detector.scan_threshold_ = 0.1, 0.0
    result = detector.detect_scan(sick)
    np.testing.assert_array_equal(result.mask.get_fdata() > 0, result.anomaly.get_fdata() > 0.1)
    assert result.is_anomalous
    detector.pixel_threshold_, detector.scan_threshold_ = np.inf, np.inf
    result = detector.detect_scan(sick)
    assert not result.mask.get_fdata().any()
    assert not result.gallery.masks.any()
    assert result.is_anomalous is False


def test_p_values_come_from_the_held_out_scans(detector):
    result = detector.detect_scan(image(9, lesion=True))
    reference = detector.reference_
    assert reference.n_scans == 2
    assert result.pvalue == pytest.approx(1 / 3)
    anomaly, pvalues = result.anomaly.get_fdata(), result.pvalues.get_fdata()
    inside = anomaly > 0
    np.testing.assert_allclose(pvalues[inside], reference.pixel_pvalue(anomaly[inside]), rtol=1e-6)
    assert pvalues.min() > 0
    np.testing.assert_array_equal(result.mask.get_fdata() > 0, pvalues <= detector.fpr)


def test_calibrate_sets_both_thresholds_from_the_given_scans(detector):
    before = detector.pixel_threshold_
    detector.calibrate([image(60, lesion=True), image(61, lesion=True)], fpr=0.001, scan_fpr=0.4)
    assert detector.reference_.n_scans == 2
    assert detector.pixel_threshold_ > 2 * before
    assert detector.scan_threshold_ == detector.reference_.scan_scores[1]


def test_calibrating_on_scans_that_were_learned_from_is_warned_about(detector, folder):
    learned = next(line.id for line in detector.fit_status_ if line.status == "used")
    with pytest.warns(SkmimoodWarning, match=f"not held out: {learned}. The thresholds will be too low"):
        detector.calibrate([folder / f"{learned}.nii.gz", image(60)])


def test_calibrate_leaves_out_scans_that_cannot_be_used(detector):
    empty = nib.Nifti1Image(np.zeros((30, 36, 20), np.float32), RAS)
    with pytest.warns(SkmimoodWarning, match=r"scan-001 \(empty"):
        detector.calibrate([image(60), empty])
    assert detector.reference_.n_scans == 1
    with pytest.warns(SkmimoodWarning), pytest.raises(InputError, match="at least 1 healthy scan"):
        detector.calibrate([empty])


def test_too_few_calibration_scans_warn_with_the_number_needed(folder):
    with pytest.warns(SkmimoodWarning, match="at least 19 healthy scans"):
        detector = make(scan_fpr=0.05).fit(folder)
    assert detector.scan_threshold_ == np.inf


def test_a_result_shows_the_most_anomalous_slices_first(detector):
    result = detector.detect_scan(image(9, lesion=True))
    gallery = result.gallery
    assert isinstance(result, ScanResult)
    assert result.id == "scan-000"
    assert sorted(gallery.indices) == [8, 9, 10, 11]
    for stack in (gallery.images, gallery.healed, gallery.maps, gallery.masks):
        assert stack.shape == (4, 24, 24)
    assert gallery.masks.dtype == bool
    np.testing.assert_array_equal(gallery.masks, gallery.maps > detector.pixel_threshold_)
    restored = np.stack([detector.pipeline_[-1].median_] * 4)
    nothing, surely = ~gallery.masks, gallery.maps > 2 * detector.pixel_threshold_
    np.testing.assert_array_equal(gallery.healed[nothing], gallery.images[nothing])
    np.testing.assert_allclose(gallery.healed[surely], restored[surely], atol=1e-6)
    assert surely.any()


def test_detect_yields_one_result_a_scan_in_order(detector, folder):
    assert [result.id for result in detector.detect(folder)] == [f"sub-{k}_T1" for k in range(6)]
    mixed = [image(1), folder / "sub-3_T1.nii.gz", str(folder / "sub-2*")]
    assert [result.id for result in detector.detect(mixed)] == ["scan-000", "sub-3_T1", "sub-2_T1"]


def test_results_in_a_folder_of_scans_are_not_taken_for_scans(detector, folder, tmp_path):
    for name in ("a_T1", "a_T1_anomaly", "a_T1_pvalue", "a_T1_mask"):
        write_image(image(0), tmp_path / f"{name}.nii.gz")
    assert [result.id for result in detector.detect(tmp_path)] == ["a_T1"]
    write_image(image(0), tmp_path / "b_T1_mask.nii.gz")  # beside no map: it is not ours
    with pytest.warns(SkmimoodWarning, match=r"like label images \(1\): b_T1_mask\."):
        assert [result.id for result in detector.detect(tmp_path)] == ["a_T1"]


def test_a_file_that_is_named_is_scored_whatever_its_name(detector, tmp_path):
    write_image(image(0), tmp_path / "patient_mask.nii.gz")
    detector.set_params(modality="T1")
    assert len(detector.score_samples([tmp_path / "patient_mask.nii.gz"])) == 1


def test_score_is_the_average_precision_of_all_voxels(detector, tmp_path):
    scans, masks = [], []
    for seed in (70, 71):
        data, mask = head(seed, lesion=seed == 70)
        scans.append(nib.Nifti1Image(data, RAS))
        masks.append(nib.Nifti1Image(mask, RAS) if seed == 70 else None)
    maps = np.concatenate([found.get_fdata().ravel() for found in detector.decision_function(scans)])
    truth = np.concatenate([head(70)[1].ravel(), np.zeros(maps.size // 2)])
    assert detector.score(scans, masks) == pytest.approx(average_precision_score(truth, maps), abs=2e-3)
    with pytest.warns(SkmimoodWarning, match="not defined"):
        assert np.isnan(detector.score(scans, [None, None]))


def test_scoring_holds_few_copies_of_a_large_volume(detector):
    data, _ = head(0, shape=(160, 160, 100))
    scan = nib.Nifti1Image(data, np.diag([0.4, 0.45, 0.4, 1.0]))
    detector.detect_scan(image(0))
    tracemalloc.start()
    detector.detect_scan(scan)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 14 * data.nbytes  # 500 MB for a volume of 240 x 240 x 155


def test_progress_bars_are_shown_only_on_request(folder, capsys):
    make().fit(folder)
    assert capsys.readouterr().err == ""
    make(verbose=True).fit(folder)
    assert "calibrating" in capsys.readouterr().err
