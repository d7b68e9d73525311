"""scikit-learn's own estimator checks, run for real.

Honest tags (3-D input) make `check_estimator` skip nearly everything, since its checks pass tables. So
an adapter views each row of a table as a tiny image and hands it to the pipeline: everything but the view,
from clone and get_params to pickling and invariance under the order of samples, is the pipeline's doing.
Checks that cannot apply to images have twins below.
"""

import inspect

import numpy as np
import pytest
from conftest import small_steps
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline
from sklearn.utils.estimator_checks import (
    check_parameters_default_constructible,
    check_set_params,
    parametrize_with_checks,
)
from sklearn.utils.validation import check_is_fitted, validate_data

from skmimood import (
    AnomalousTokenDetector,
    MaskedTokenInpainter,
    PixelEvidence,
    ScanDetector,
    SliceStandardizer,
    VQTokenizer,
    baselines,
)
from skmimood.estimators import ESTIMATORS as REGISTERED
from skmimood.estimators import load_estimator

ESTIMATORS = [VQTokenizer, PixelEvidence, AnomalousTokenDetector, MaskedTokenInpainter, SliceStandardizer]
ESTIMATORS += [getattr(baselines, name) for name in baselines.__all__]


class TableAsImages(BaseEstimator):
    """View each row of a table as an image of 8 x 8 or more pixels."""

    def __init__(self, n_steps=1, n_restorations=1, threshold=0.1, random_state=0):
        self.n_steps = n_steps
        self.n_restorations = n_restorations
        self.threshold = threshold
        self.random_state = random_state

    def fit(self, X, y=None):
        images = self._images(validate_data(self, X, dtype="numeric"))
        self.pipeline_ = Pipeline(small_steps(max_iter=1, random_state=self.random_state)).set_params(
            detector__threshold=self.threshold,
            inpainter__n_steps=self.n_steps,
            inpainter__n_restorations=self.n_restorations,
            tokenizer__n_codes=4,
            tokenizer__n_augmentations=0,
        )
        self.pipeline_.fit(images)
        return self

    def decision_function(self, X):
        check_is_fitted(self)
        images = self._images(validate_data(self, X, dtype="numeric", reset=False))
        return self.pipeline_.decision_function(images).mean((1, 2), dtype=np.float64)

    def predict(self, X):
        check_is_fitted(self)
        images = self._images(validate_data(self, X, dtype="numeric", reset=False))
        return self.pipeline_.predict(images).any((1, 2)).astype(int)

    def _images(self, X):
        width = max(8, X.shape[1])
        images = np.zeros((len(X), 8, width), np.float32)
        images[:, :, : X.shape[1]] = (1 / (1 + np.exp(-np.asarray(X, np.float64))))[:, None]
        return images


@pytest.mark.filterwarnings("ignore:The codebook has collapsed")
@pytest.mark.filterwarnings("ignore:threshold_ is calibrated on the")
@pytest.mark.filterwarnings(
    "ignore:a false-positive rate of"
)  # too few pixels for it, in tables of a few rows
@parametrize_with_checks([TableAsImages()])
def test_the_pipeline_passes_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


def parameters_of(estimator_class):
    """Return the parameters of a constructor, but for those of earlier versions."""
    parameters = inspect.signature(estimator_class).parameters
    return {name: one for name, one in parameters.items() if name != "old"}


@pytest.mark.parametrize("name", REGISTERED)
def test_no_constructor_has_more_than_25_parameters(name):
    assert len(parameters_of(load_estimator(name))) <= 25


@pytest.mark.parametrize("estimator_class", ESTIMATORS)
def test_nested_parameters_are_those_of_a_class_until_they_are_set_and_shared_with_no_other(estimator_class):
    first, second = estimator_class(), estimator_class()
    for name, default in first.get_params().items():
        if "__" in name:
            group, _, own = name.partition("__")
            marker = object()
            assert clone(first.set_params(**{name: default})).get_params()[name] == default
            assert getattr(first.set_params(**{name: marker}).get_params()[group], own) is marker
            assert second.get_params()[name] == default == estimator_class(**{group: None}).get_params()[name]
            assert first.set_params(**{group: None}).get_params()[name] == default


@pytest.mark.parametrize("estimator_class", ESTIMATORS)
@pytest.mark.parametrize("check", [check_parameters_default_constructible, check_set_params])
def test_the_checks_of_parameters_of_scikit_learn_pass_for_each(estimator_class, check):
    check(estimator_class.__name__, estimator_class())


@pytest.mark.parametrize("estimator_class", ESTIMATORS)
def test_init_only_assigns(estimator_class):
    for name, parameter in parameters_of(estimator_class).items():
        marker = object()
        assert getattr(estimator_class(**{name: marker}), name) is marker
        assert parameter.kind is parameter.KEYWORD_ONLY


@pytest.mark.parametrize("estimator_class", [*ESTIMATORS, ScanDetector])
def test_every_parameter_is_documented(estimator_class):
    documentation = inspect.getdoc(estimator_class)
    missing = [name for name in parameters_of(estimator_class) if name not in documentation]
    assert missing == []


@pytest.mark.parametrize("step", [0, 1, 2])
def test_get_and_set_params_round_trip(quick_pipeline, step):
    estimator = quick_pipeline[step]
    parameters = estimator.get_params()
    assert clone(estimator).set_params(**parameters).get_params() == parameters


@pytest.mark.parametrize("step", [0, 1, 2])
def test_fit_returns_self_and_changes_no_parameter(fitted, healthy, step):
    estimator = clone(fitted[step]).set_params(training__max_iter=1)
    before = estimator.get_params()
    X = healthy if step == 0 else fitted[:step].transform(healthy)
    assert estimator.fit(X) is estimator
    assert estimator.get_params() == before


@pytest.mark.parametrize("step", [0, 1, 2])
def test_everything_learnt_ends_in_an_underscore(fitted, step):
    estimator = fitted[step]
    learnt = set(vars(estimator)) - set(estimator.get_params()) - {"_loaded"}
    assert learnt
    assert all(name.endswith("_") and not name.startswith("_") for name in learnt)


def test_the_input_is_not_changed(fitted, healthy):
    copy = healthy.copy()
    fitted.predict(healthy)
    np.testing.assert_array_equal(healthy, copy)


def test_read_only_images_work(fitted, healthy):
    images = healthy[:2].copy()
    images.flags.writeable = False
    assert fitted.decision_function(images).shape == images.shape


@pytest.mark.parametrize("step", [0, 1, 2])
def test_tags_say_that_input_is_three_dimensional(fitted, step):
    tags = fitted[step].__sklearn_tags__()
    assert tags.input_tags.three_d_array
    assert not tags.input_tags.two_d_array
