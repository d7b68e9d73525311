import pickle

import numpy as np
import pytest
from conftest import as_if_fitted_with, build, make_slices, plant_lesions, small_steps
from rounding import assert_same
from sklearn.base import clone
from sklearn.metrics import make_scorer
from sklearn.model_selection import GridSearchCV, GroupKFold, ParameterGrid, PredefinedSplit
from sklearn.pipeline import Pipeline

from skmimood import RestorationSearchCV, VQTokenizer, restoration_path
from skmimood.baselines import TokenCritic, TokenizerResidual, TokenLikelihoodDetector
from skmimood.exceptions import InputError
from skmimood.metrics import average_precision
from skmimood.model_selection import score_path

GRID = {
    "detector__threshold": [0.3, 0.5],
    "inpainter__n_restorations": [1, 3],
    "inpainter__n_steps": [2, 1],
}


@pytest.fixture(scope="module")
def slices():
    return plant_lesions(make_slices(6, seed=3))[0]


def copy_of(pipeline, **parameters):
    return pickle.loads(pickle.dumps(pipeline)).set_params(**parameters)


def assert_is_path(pipeline, slices, **grid):
    """Assert that each member of the path has the maps of a run of its own; return how many differ from the first."""
    path = list(restoration_path(pipeline, slices, **grid))
    for parameters, maps in path:
        assert_same(maps, copy_of(pipeline, **parameters).decision_function(slices))
    return sum((maps != path[0][1]).any() for _, maps in path)


@pytest.mark.numerics
@pytest.mark.parametrize("combination", ["similarity", "median"])
def test_a_path_has_the_maps_of_separate_runs(fitted, slices, combination):
    pipeline = copy_of(fitted, inpainter__maps__combination=combination)
    n_different = assert_is_path(
        pipeline, slices, thresholds=np.array([0.2, 0.7]), n_steps=(3, 1), n_restorations=[5, 1]
    )
    assert n_different > 4


@pytest.mark.numerics
@pytest.mark.parametrize(
    "choices",
    [
        {"maps__residual_weight": "changed"},
        {"skip_background": True},
    ],
)
def test_a_path_has_the_maps_of_separate_runs_however_they_are_made(fitted, slices, choices):
    pipeline = copy_of(fitted)
    pipeline[-1].set_params(maps__erosion=1, **choices)
    as_if_fitted_with(pipeline, inpainter__skip_background=choices.get("skip_background", False))
    assert_is_path(pipeline, slices, thresholds=[0.2], n_steps=[1, 3], n_restorations=[1, 2])


@pytest.mark.numerics
@pytest.mark.parametrize("kind", [TokenLikelihoodDetector, TokenCritic])
def test_a_path_goes_behind_any_detector(healthy, slices, kind):
    steps = small_steps(max_iter=3)
    options = {"n_masks": 2} if kind is TokenLikelihoodDetector else {}
    options |= {"depth": 1, "width": 16, "n_heads": 2, "max_iter": 3, "random_state": 0}
    pipeline = Pipeline([steps[0], ("critic", build(kind, **options)), steps[2]]).fit(healthy[:32])
    thresholds = np.quantile(pipeline[:-1].transform(slices).anomaly, [0.5, 0.9])
    assert assert_is_path(pipeline, slices, thresholds=thresholds, n_steps=[1, 2], n_restorations=[1, 2])


def test_a_path_varies_what_it_is_given_and_leaves_the_estimator_as_it_is(fitted, slices):
    before = fitted.get_params()
    [(first, _), (second, _)] = restoration_path(fitted, slices, n_steps=[1, 3])
    assert first == {"detector__threshold": 0.2, "inpainter__n_steps": 1, "inpainter__n_restorations": 2}
    assert second == first | {"inpainter__n_steps": 3}
    assert {name: fitted.get_params()[name] for name in first} == {name: before[name] for name in first}


def test_all_t_and_r_cost_the_networks_one_run_with_the_largest(fitted, slices, batches):
    copy_of(fitted, inpainter__n_steps=4, inpainter__n_restorations=4).decision_function(slices)
    one_run = sum(batches)
    batches.clear()
    assert (
        len(list(restoration_path(fitted, slices, n_steps=[1, 2, 3, 4], n_restorations=[1, 2, 3, 4]))) == 16
    )
    assert sum(batches) == one_run


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"thresholds": [0.1, 1.5]}, "threshold must be a probability"),
        ({"n_steps": [0]}, "n_steps must be a positive integer"),
        ({"n_restorations": []}, "n_restorations has no values"),
    ],
)
def test_a_path_refuses_values_out_of_range_before_anything_is_computed(fitted, slices, values, fault):
    with pytest.raises(InputError, match=fault):
        restoration_path(fitted, slices, **values)


def test_a_path_refuses_other_estimators(slices):
    others = [VQTokenizer(), Pipeline([("tokenizer", VQTokenizer()), ("residual", TokenizerResidual())])]
    for other in others:
        with pytest.raises(InputError, match="must be a Pipeline that ends in a token detector"):
            restoration_path(other, slices)


@pytest.mark.numerics
def test_scores_of_a_path_come_in_the_order_of_a_parameter_grid(fitted, slices):
    scores = score_path(fitted, slices, GRID, lambda maps: float(maps.mean()))
    for score, parameters in zip(scores, ParameterGrid(GRID), strict=True):
        assert_same(score, copy_of(fitted, **parameters).decision_function(slices).mean())


@pytest.fixture(scope="module")
def data():
    """Return slices of which the last 8 have lesions, their masks, and a fold of each."""
    slices = make_slices(24, seed=5)
    planted, masks = plant_lesions(slices)
    has_lesion = np.arange(24) >= 16
    masks &= has_lesion[:, None, None]
    return np.where(masks, planted, slices), masks, np.where(has_lesion, np.arange(24) % 2, -1)


@pytest.fixture
def pipeline(quick_pipeline, tmp_path):
    names = [name for name in quick_pipeline.get_params() if name.endswith("__memory")]
    return quick_pipeline.set_params(**dict.fromkeys(names, str(tmp_path)))


def assert_same_results(ours, theirs):
    assert ours.cv_results_.keys() == theirs.cv_results_.keys()
    for key, expected in theirs.cv_results_.items():
        if key.endswith("_time"):
            assert (ours.cv_results_[key] >= 0).all()
        elif key.startswith(("mean_", "std_", "split")):
            assert_same(ours.cv_results_[key], expected)
        else:
            assert list(ours.cv_results_[key]) == list(expected)
    assert (ours.best_params_, ours.best_index_) == (theirs.best_params_, theirs.best_index_)
    assert_same(ours.best_score_, theirs.best_score_)
    assert ours.n_splits_ == theirs.n_splits_


@pytest.mark.numerics
def test_the_search_finds_what_grid_search_finds(pipeline, data):
    slices, masks, fold = data
    options = {"cv": PredefinedSplit(fold)}
    ours = RestorationSearchCV(pipeline, GRID, **options).fit(slices, masks)
    theirs = GridSearchCV(pipeline, GRID, **options).fit(slices, masks)
    assert_same_results(ours, theirs)
    assert len(set(ours.cv_results_["mean_test_score"])) > 2
    np.testing.assert_array_equal(ours.decision_function(slices[-2:]), theirs.decision_function(slices[-2:]))
    assert ours.score(slices, masks) == theirs.score(slices, masks)


def top_share(masks, maps):
    return average_precision(masks, maps) / masks.mean()


@pytest.mark.numerics
def test_the_search_takes_scorers_groups_and_several_grids_as_grid_search_does(pipeline, data):
    slices, masks, _ = data
    groups = np.arange(24) % 2
    grids = [
        {"inpainter__n_steps": [1, 2], "inpainter__n_restorations": [2]},
        {"detector__threshold": [0.3]},
    ]
    scoring = make_scorer(top_share, response_method="decision_function")
    options = {"cv": GroupKFold(2), "scoring": scoring, "refit": False, "return_train_score": True}
    ours = RestorationSearchCV(pipeline, grids, **options).fit(slices, masks, groups=groups)
    theirs = GridSearchCV(pipeline, grids, **options).fit(slices, masks, groups=groups)
    assert_same_results(ours, theirs)
    assert not hasattr(ours, "best_estimator_")


def test_the_search_fits_once_a_fold(pipeline, data, monkeypatch):
    slices, masks, fold = data
    fits = []
    fit = VQTokenizer.fit
    monkeypatch.setattr(VQTokenizer, "fit", lambda self, X, y=None: fits.append(len(X)) or fit(self, X, y))
    RestorationSearchCV(pipeline, GRID, cv=PredefinedSplit(fold), refit=False).fit(slices, masks)
    assert len(fits) == 2


def test_a_search_can_be_cloned_pickled_and_choose_by_a_rule(pipeline, data):
    slices, masks, fold = data
    search = RestorationSearchCV(
        pipeline, GRID, cv=PredefinedSplit(fold), refit=lambda results: len(results["params"]) - 1
    )
    search = clone(search).fit(slices, masks)
    assert search.best_params_ == search.cv_results_["params"][-1]
    search.refit = True  # a lambda does not pickle
    loaded = pickle.loads(pickle.dumps(search))
    assert loaded.best_params_ == search.best_params_
    np.testing.assert_array_equal(loaded.decision_function(slices[:2]), search.decision_function(slices[:2]))


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (
            {"param_grid": {"inpainter__maps__mean_filter": [3]}},
            "got inpainter__maps__mean_filter. Use GridSearchCV",
        ),
        ({"param_grid": {"inpainter__n_steps": [2, 0]}}, "n_steps must be a positive integer"),
        ({"param_grid": GRID, "scoring": "average_precision"}, "callable scorer.*GridSearchCV takes names"),
        ({"param_grid": GRID, "estimator": VQTokenizer()}, "must be a Pipeline that ends in"),
    ],
)
def test_what_the_search_cannot_do_is_refused_before_it_begins(pipeline, data, options, fault):
    with pytest.raises(InputError, match=fault):
        RestorationSearchCV(**{"estimator": pipeline, **options}).fit(data[0], data[1])


def subset_scorer(estimator, X, y):
    return float(estimator.decision_function(X[:1]).mean())


def test_a_scorer_that_fails_leaves_the_error_score(pipeline, data):
    slices, masks, fold = data
    grid = {"inpainter__n_steps": [1, 2]}
    options = {"cv": PredefinedSplit(fold), "scoring": subset_scorer, "refit": False}
    with pytest.raises(InputError, match="asks for other slices"):
        RestorationSearchCV(pipeline, grid, error_score="raise", **options).fit(slices, masks)
    search = RestorationSearchCV(pipeline, grid, **options)
    with pytest.warns(UserWarning, match="Scoring failed|non-finite") as caught:
        search.fit(slices, masks)
    assert "asks for other slices" in str(caught[0].message)
    assert np.isnan(search.cv_results_["mean_test_score"]).all()
