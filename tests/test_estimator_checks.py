"""scikit-learn's estimator checks, for every public estimator.

Since slices are 3-D, `check_estimator` passes over these estimators: its checks hand tables to them. So those checks
that hand nothing over run as they are; those of what an estimator makes of its samples run with every row of the table
viewed as a slice; and those of what a table may be have a twin here that hands over slices. docs/estimator_checks.md
says which are which.
"""

import functools
import inspect
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.utils import estimator_checks, get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data
from toy_scans import image, make

from skmimood.baselines import HealthyZScore
from skmimood.estimators import ESTIMATORS, load_estimator
from skmimood.exceptions import InputError
from skmimood.tokens.base import check_tokenized

OF_SLICES = sorted(set(ESTIMATORS) - {"ScanDetector"})
PAGE = (Path(__file__).parents[1] / "docs" / "estimator_checks.md").read_text()
AS_THEY_ARE, ON_ROWS, WITH_TWINS = (
    re.findall(r"`(check_\w+)`", part) for part in PAGE.partition("\n## ")[2].split("\n## ")
)
TINY = {
    "patch_size": 4, "channels": 4, "channel_multipliers": (1,), "n_codes": 4, "code_dim": 4, "n_augmentations": 0,
    "depth": 1, "width": 8, "n_heads": 2, "levels": 1, "latent_dim": 4, "n_steps": 1, "n_restorations": 1, "n_masks": 2,
    "n_trials": 1, "n_painted": 1, "decoder_depth": 1, "decoder_width": 8, "decoder_n_heads": 2,
    "classifier_max_iter": 1, "backbone_max_iter": 1, "encoder_max_iter": 1, "n_couplings": 1, "flow_width": 4,
    "student_width": 4, "n_blocks": 1, "level": 0, "max_iter": 1, "batch_size": 4, "warmup_iter": 0,
    "precision": "float32",
}  # fmt: skip
pytestmark = [
    pytest.mark.filterwarnings("ignore:The codebook has collapsed"),
    pytest.mark.filterwarnings("ignore:threshold_ is calibrated on the"),
    pytest.mark.filterwarnings("ignore:a false-positive rate of"),  # too few pixels for it
]


def tiny(name, random_state=0):
    """Return an estimator whose networks learn for one step."""
    estimator = load_estimator(name)()
    known = {parameter.rpartition("__")[2]: parameter for parameter in estimator.get_params()}
    wanted = TINY | {"random_state": random_state}
    if "backbone" in known:
        wanted["depth"] = 2  # its first level is no feature map
    return estimator.set_params(**{known[key]: wanted[key] for key in wanted if key in known})


def input_of(name, slices):
    """Return what the estimator takes: the slices, or what the steps before it make of them."""
    if load_estimator(name)._check_input is not check_tokenized:
        return slices
    tokenizer, detector = steps_before(np.shape(slices)[1:])
    tokenized = tokenizer.transform(slices)
    return detector.transform(tokenized) if name == "MaskedTokenInpainter" else tokenized


@functools.cache
def steps_before(image_shape):
    slices = random_slices(image_shape=image_shape)
    tokenizer = tiny("VQTokenizer").fit(slices)
    return tokenizer, tiny("AnomalousTokenDetector").fit(tokenizer.transform(slices))


def random_slices(image_shape=(8, 8)):
    return np.random.default_rng(0).uniform(0.2, 1, (12, *image_shape)).astype(np.float32)


@functools.cache
def ready(name):
    """Return an estimator fitted on random slices. Do not change it."""
    return tiny(name).fit(input_of(name, random_slices()))


def results(estimator, slices):
    """Return what an estimator transforms slices to, as one array (n, k)."""
    return numbers_of(estimator.transform(input_of(type(estimator).__name__, slices)))


def methods_of(estimator):
    methods = ("transform", "decision_function", "predict")
    return [getattr(estimator, method) for method in methods if hasattr(estimator, method)]


def numbers_of(made):
    """Return maps, slices or tokens with what steps have added to them as one array (n, k)."""
    arrays = [made] if isinstance(made, np.ndarray) else [made.tokens, made.anomaly, made.evidence]
    rows = [one.reshape(len(one), -1).astype(np.float32) for one in arrays if one is not None]
    return np.concatenate(rows, axis=1)


def offered(method):
    """Let an adapter have a method if its estimator has it."""
    return available_if(lambda adapter: hasattr(load_estimator(adapter.name), method))


class TableAsSlices(TransformerMixin, BaseEstimator):
    """Views every row of a table as a slice of 8 x 8 pixels, and hands these to the estimator called ``name``."""

    def __init__(self, name="HealthyZScore", random_state=0):
        self.name = name
        self.random_state = random_state

    def fit(self, X, y=None):
        self.estimator_ = tiny(self.name, self.random_state).fit(self._view(X, reset=True))
        return self

    def transform(self, X):
        return numbers_of(self._estimator.transform(self._view(X)))

    @offered("decision_function")
    def decision_function(self, X):
        return self._estimator.decision_function(self._view(X)).mean((1, 2))

    @offered("predict")
    def predict(self, X):
        return self._estimator.predict(self._view(X)).any((1, 2)).astype(int)

    @property
    def _estimator(self):
        return getattr(self, "estimator_", tiny(self.name))

    def _view(self, X, reset=False):
        table = validate_data(self, X, dtype=np.float64, reset=reset)
        columns = table[:, np.arange(8) % table.shape[1]]
        slices = np.linspace(0.5, 1, 8)[:, None] / (1 + np.exp(-columns[:, None]))
        return input_of(self.name, slices.astype(np.float32))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def checks_of(estimator):
    """Return scikit-learn's checks of an estimator of tables, by name; some run twice, with other options."""
    checks = {}
    for _, check in estimator_checks.estimator_checks_generator(estimator):
        checks.setdefault(check.func.__name__, []).append(check)
    return checks


def test_every_check_of_scikit_learn_is_on_the_page_once():
    assert sorted(AS_THEY_ARE + ON_ROWS + WITH_TWINS) == sorted(checks_of(TableAsSlices()))
    assert sorted(WITH_TWINS) == sorted(TWINS)


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
@pytest.mark.parametrize("check", AS_THEY_ARE)
def test_checks_that_hand_no_samples_over_pass(check, name):
    estimator = make() if name == "ScanDetector" else load_estimator(name)()
    getattr(estimator_checks, check)(name, estimator)


@pytest.mark.parametrize("name", OF_SLICES)
@pytest.mark.parametrize("check", ON_ROWS)
def test_checks_of_results_pass_with_rows_as_slices(check, name):
    adapter = TableAsSlices(name)
    for one in checks_of(adapter)[check]:
        one(adapter)


TWINS = {}


def twin_of(*checks):
    def register(twin):
        TWINS.update(dict.fromkeys(checks, twin))
        return pytest.mark.parametrize("name", OF_SLICES)(twin)

    return register


@twin_of(
    "check_complex_data", "check_dtype_object", "check_estimators_empty_data_messages", "check_estimators_nan_inf",
    "check_estimator_sparse_tag", "check_estimator_sparse_array", "check_estimator_sparse_matrix", "check_fit1d",
    "check_fit2d_1feature", "check_fit2d_predict1d",
)  # fmt: skip
def test_what_no_slices_are_is_refused_by_every_method(name):
    slices = random_slices()
    holed = [np.where(slices == slices.max(), bad, slices) for bad in (np.nan, np.inf, -np.inf)]
    others = [slices.astype(complex), slices.astype(object), slices.astype(str), sparse.coo_array(slices)]
    assert not get_tags(ready(name)).input_tags.sparse
    for bad in (*holed, *others, slices[:0], slices[0], slices[..., None], slices[:, :, :1]):
        for method in (tiny(name).fit, *methods_of(ready(name))):
            with pytest.raises(InputError):
                method(bad)


@twin_of("check_n_features_in", "check_n_features_in_after_fitting")
def test_slices_of_another_size_than_in_fit_are_refused(name):
    larger = input_of(name, random_slices(image_shape=(16, 8)))
    for method in methods_of(ready(name)):
        with pytest.raises(InputError, match="as in fit"):
            method(larger)


@twin_of(
    "check_readonly_memmap_input", "check_f_contiguous_array_estimator", "check_transformer_data_not_an_array",
    "check_array_api_input", "check_estimators_dtypes", "check_transformer_preserve_dtypes",
)  # fmt: skip
def test_the_kind_of_array_changes_no_result(name, tmp_path):
    slices = random_slices().round()  # 0 and 1, which all types hold
    expected = results(ready(name), slices)
    np.save(tmp_path / "slices.npy", slices)
    mapped = np.load(tmp_path / "slices.npy", mmap_mode="r")
    kinds = [mapped, np.asfortranarray(slices), slices.tolist(), torch.from_numpy(slices)]
    for X in (*kinds, *map(slices.astype, ("float64", "float16", "int64", "uint8", "bool"))):
        np.testing.assert_array_equal(results(ready(name), X), expected)
    learnt = results(tiny(name).fit(input_of(name, mapped)), mapped)
    np.testing.assert_array_equal(
        learnt, results(tiny(name).fit(input_of(name, slices.astype("int64"))), mapped)
    )


@twin_of(
    "check_estimators_fit_returns_self", "check_estimators_overwrite_params", "check_dont_overwrite_parameters",
    "check_fit_check_is_fitted", "check_fit_score_takes_y", "check_positive_only_tag_during_fit",
    "check_transformer_n_iter", "check_dict_unchanged",
)  # fmt: skip
def test_fit_returns_self_and_changes_nothing_but_what_ends_in_an_underscore(name):
    estimator, X = tiny(name), input_of(name, random_slices())
    before, tags = estimator.get_params(), get_tags(estimator)
    with pytest.raises(NotFittedError):
        check_is_fitted(estimator)
    assert estimator.fit(X) is estimator
    check_is_fitted(estimator)
    assert estimator.get_params() == before
    assert get_tags(estimator) == tags
    learnt = set(vars(estimator)) - set(before) - {"_loaded"}  # the network on its device
    assert learnt
    assert all(one.endswith("_") and not one.startswith("_") for one in learnt)
    assert getattr(estimator, "n_iter_", 1) >= 1
    for method in methods_of(estimator):
        method(X)
    assert set(vars(estimator)) - set(before) - {"_loaded"} == learnt
    for method in (estimator.fit, *filter(None, [getattr(estimator, "score", None)])):
        assert list(inspect.signature(method).parameters)[:2] == ["X", "y"]


def test_scan_detector_learns_and_finds_the_same_of_the_same_scans():
    steps, healthy = Pipeline([("step", HealthyZScore())]), [image(seed) for seed in range(4)]
    detector, scans = make(pipeline=steps).fit(healthy), [image(5), image(6, lesion=True)]
    one, other = (one.get_fdata() for one in detector.decision_function(scans))
    for again in (make(pipeline=steps).fit(healthy), pickle.loads(pickle.dumps(detector))):
        np.testing.assert_array_equal(again.decision_function(scans)[1].get_fdata(), other)
    reverse = detector.decision_function(scans[::-1])
    np.testing.assert_array_equal(reverse[1].get_fdata(), one)
    np.testing.assert_array_equal(reverse[0].get_fdata(), other)
    np.testing.assert_array_equal(detector.decision_function(scans[1:])[0].get_fdata(), other)
    assert detector.get_params()["pipeline"][0].get_params() == HealthyZScore().get_params()
    learnt = set(vars(detector)) - set(detector.get_params())
    assert all(name.endswith("_") and not name.startswith("_") for name in learnt)
    for method in (make().decision_function, make().predict, make().score_samples):
        with pytest.raises(NotFittedError):
            method(scans)
