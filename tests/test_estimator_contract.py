"""What every estimator keeps to, beside scikit-learn's checks in test_estimator_checks.py."""

import inspect

import numpy as np
import pytest
from sklearn.base import clone

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


def test_the_input_is_not_changed(fitted, healthy):
    copy = healthy.copy()
    fitted.predict(healthy)
    np.testing.assert_array_equal(healthy, copy)


@pytest.mark.parametrize("estimator_class", ESTIMATORS)
def test_tags_say_that_input_is_three_dimensional(estimator_class):
    tags = estimator_class().__sklearn_tags__()
    assert tags.input_tags.three_d_array
    assert not tags.input_tags.two_d_array
