import dataclasses
import json
import pickle
from functools import partial

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from toy_scans import MedianRestorer, image, make, write_healthy_scans

from skmimood import SliceStandardizer, persistence
from skmimood.exceptions import InputError, ModelLoadError, ModelSaveError, SkmimoodWarning
from skmimood.maps.conformal import HealthyReference
from skmimood.scans import ScanDetector


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_healthy_scans(tmp_path_factory.mktemp("healthy scans"))


@pytest.fixture(scope="module")
def fitted(folder):
    return make(calibration_fraction=0.3).fit(folder)


@pytest.fixture
def detector(fitted):
    return pickle.loads(pickle.dumps(fitted))


def test_it_behaves_as_a_scikit_learn_estimator(folder):
    detector = make(fpr=0.2)
    copy = clone(detector)
    assert copy.get_params()["fpr"] == 0.2
    assert "pipeline__restorer" in copy.get_params()
    pipeline = detector.pipeline
    detector.fit(folder)
    assert detector.pipeline is pipeline
    assert not hasattr(pipeline[-1], "median_")
    assert not [name for name in vars(clone(detector)) if name.endswith("_")]
    assert "ScanDetector" in repr(detector)


def test_fitted_attributes_are_plain(fitted):
    learned = {name: value for name, value in vars(fitted).items() if name.endswith("_")}
    assert set(learned) == {
        *(
            "pipeline_",
            "plane_",
            "mask_",
            "spacing_",
            "size_",
            "reference_",
            "pixel_threshold_",
            "scan_threshold_",
            "slice_smoothing_",
            "scan_statistic_",
            "fit_status_",
        ),
        *(
            "n_scans_",
            "n_slices_",
            "n_modalities_",
            "intensity_histogram_",
            "intensity_limit_",
            "layout_",
            "layout_limit_",
            "foreground_range_",
            "aspect_range_",
            "pixel_range_",
            "thickness_range_",
            "suspects_",
            "calibrated_with_",
        ),
    }
    assert type(fitted.pixel_threshold_) is type(fitted.scan_threshold_) is type(fitted.spacing_) is float
    assert isinstance(fitted.reference_, HealthyReference)


def test_the_state_survives_json_and_gives_the_same_maps(fitted):
    arrays, values = fitted.__skmimood_state__()
    assert all(isinstance(array, np.ndarray) for array in arrays.values())
    restored = clone(fitted)
    restored.pipeline_ = fitted.pipeline_
    restored.__skmimood_restore__(arrays, json.loads(json.dumps(values, allow_nan=False)))
    assert restored.fit_status_ == fitted.fit_status_
    first, second = (one.detect_scan(image(9, lesion=True)) for one in (fitted, restored))
    np.testing.assert_array_equal(first.pvalues.get_fdata(), second.pvalues.get_fdata())
    assert (first.score, first.pvalue, first.is_anomalous) == (
        second.score,
        second.pvalue,
        second.is_anomalous,
    )
    assert restored.pixel_threshold_ == fitted.pixel_threshold_


def test_a_saved_detector_comes_back_with_its_thresholds(detector, tmp_path, monkeypatch):
    monkeypatch.setitem(persistence.ESTIMATORS, "MedianRestorer", MedianRestorer.__module__)
    detector.pixel_threshold_, detector.scan_threshold_ = 0.125, np.inf
    detector.save(tmp_path / "model")
    loaded = ScanDetector.load(tmp_path / "model")
    assert (loaded.pixel_threshold_, loaded.scan_threshold_) == (0.125, np.inf)
    assert loaded.get_params()["size"] == 24
    first, second = (one.detect_scan(image(9, lesion=True)) for one in (detector, loaded))
    np.testing.assert_array_equal(first.mask.get_fdata(), second.mask.get_fdata())
    np.testing.assert_array_equal(first.anomaly.get_fdata(), second.anomaly.get_fdata())
    assert first.pvalue == second.pvalue
    with pytest.raises(ModelSaveError, match="exists already"):
        detector.save(tmp_path / "model")
    detector.save(tmp_path / "model", overwrite=True)


def test_a_saved_model_of_another_class_is_refused(detector, tmp_path, monkeypatch):
    monkeypatch.setitem(persistence.ESTIMATORS, "MedianRestorer", MedianRestorer.__module__)
    persistence.save_model(detector.pipeline_, tmp_path / "pipeline")
    with pytest.raises(ModelLoadError, match="saved Pipeline, not a ScanDetector"):
        ScanDetector.load(tmp_path / "pipeline")


def test_a_parameter_changed_after_calibration_is_warned_about_until_calibrated_again(folder):
    class Tunable(MedianRestorer):
        def __init__(self, sharpness=1.0, batch_size=8):
            self.sharpness = sharpness
            self.batch_size = batch_size

    detector = make(pipeline=Pipeline([("restorer", Tunable())])).fit(folder)
    detector.pipeline_.set_params(restorer__batch_size=1)
    detector.detect_scan(image(9))
    detector.pipeline_.set_params(restorer__sharpness=2.0)
    arrays, values = detector.__skmimood_state__()
    detector.__skmimood_restore__(arrays, json.loads(json.dumps(values)))
    with pytest.warns(
        SkmimoodWarning, match=r"restorer__sharpness of pipeline_ changed.*calibrate"
    ) as caught:
        detector.predict([image(9), image(10)])
    assert len(caught) == 1
    with pytest.warns(SkmimoodWarning, match="restorer__sharpness"):
        detector.detect_scan(image(9))
    detector.calibrate([image(60), image(61)])
    detector.detect_scan(image(9))


def test_an_infinite_threshold_survives_saving(detector):
    detector.scan_threshold_ = np.inf
    arrays, values = detector.__skmimood_state__()
    detector.scan_threshold_ = 0.0
    detector.__skmimood_restore__(arrays, values)
    assert detector.scan_threshold_ == np.inf


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("spacing_", np.array(-1.0)),
        ("pixel_threshold_", np.array(np.nan)),
        ("pixel_threshold_", np.zeros(2)),
        ("intensity_histogram_", np.zeros(3)),
        ("intensity_histogram_", np.full(64, np.nan)),
        ("foreground_range_", np.array([2.0, 1.0])),
        ("reference_.pixel_counts", np.array([-1])),
        ("size_", [128]),
        ("size_", ["a", "b"]),
        ("n_slices_", -3),
        ("fit_status_", [{"id": "a", "status": "hacked"}]),
        ("suspects_", None),
        ("calibrated_with_", None),
    ],
)
def test_a_damaged_state_is_refused_and_nothing_is_set(fitted, name, value):
    arrays, values = fitted.__skmimood_state__()
    (arrays if name in arrays else values)[name] = value
    blank = clone(fitted)
    with pytest.raises(ModelLoadError):
        blank.__skmimood_restore__(arrays, values)
    del (arrays if name in arrays else values)[name]
    with pytest.raises(ModelLoadError):
        blank.__skmimood_restore__(arrays, values)
    assert not [attribute for attribute in vars(blank) if attribute.endswith("_")]


@pytest.mark.parametrize("steps", [[], [("step", SliceStandardizer())]])
def test_a_pipeline_that_makes_no_maps_is_refused(fitted, folder, steps):
    with pytest.raises(InputError, match="pipeline must be a Pipeline whose last step has map_and_restore"):
        ScanDetector(Pipeline(steps)).fit(folder)
    blank = clone(fitted)
    blank.pipeline_ = Pipeline(steps)
    with pytest.raises(ModelLoadError, match="pipeline_ must be a Pipeline whose last step"):
        blank.__skmimood_restore__(*fitted.__skmimood_state__())


def test_a_parameter_that_is_wrong_after_fit_is_refused_before_a_scan_is_read(detector):
    detector.set_params(mask=0.5, max_invalid={})
    for use in (detector.detect_scan, detector.detect, detector.predict, partial(detector.score, y="_seg")):
        with pytest.raises(InputError, match=r"mask must be .*; max_invalid must be"):
            use("nowhere.nii")


def test_another_plane_waits_for_the_next_fit(detector):
    scan = image(seed=3)
    expected = detector.detect_scan(scan).anomaly.get_fdata()
    detector.set_params(plane="sagittal", spacing=9.0, size=16)
    np.testing.assert_array_equal(detector.detect_scan(scan).anomaly.get_fdata(), expected)
    arrays, values = detector.__skmimood_state__()
    detector.__skmimood_restore__(arrays, values)
    np.testing.assert_array_equal(detector.detect_scan(scan).anomaly.get_fdata(), expected)
    del values["plane_"]
    detector.__skmimood_restore__(arrays, values)  # of a model from before there was the entry
    assert detector.plane_ == "sagittal"


def test_status_lines_and_results_cannot_be_changed(fitted):
    with pytest.raises(dataclasses.FrozenInstanceError):
        fitted.fit_status_[0].status = "used"
