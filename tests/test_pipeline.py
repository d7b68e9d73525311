import copy
import pickle

import numpy as np
import pytest
from conftest import make_slices, plant_lesions, small_steps
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GridSearchCV, KFold, PredefinedSplit
from sklearn.pipeline import Pipeline

from skmimood import VQTokenizer, make_mimood_pipeline
from skmimood.exceptions import InputError, SkmimoodWarning
from skmimood.metrics import pixel_average_precision_scorer
from skmimood.pipeline import PRESET_IMAGE_SIZE, PRESETS, preset_of
from skmimood.scans.fitting import warn_about_size

GRID = {
    "detector__threshold": [0.1, 0.3],
    "inpainter__n_steps": [1, 2],
    "inpainter__n_restorations": [1, 2],
}


def count_trainings(memory) -> int:
    """Count the trained networks in a cache: each cached call leaves one output."""
    return sum("train_" in str(path) for path in memory.rglob("output.pkl"))


@pytest.fixture(scope="module")
def cohort():
    """Return slices, masks and folds: healthy slices to learn from (-1), slices with lesions to validate on (0)."""
    healthy = make_slices(20)
    lesions, masks = plant_lesions(make_slices(6, seed=1))
    y = np.concatenate([np.zeros_like(healthy, bool), masks])
    fold = np.r_[np.full(20, -1), np.zeros(6, int)]
    return np.concatenate([healthy, lesions]), y, fold


def test_the_steps_are_named_as_documented():
    assert list(make_mimood_pipeline().named_steps) == ["tokenizer", "evidence", "detector", "inpainter"]
    assert list(make_mimood_pipeline("paper").named_steps) == ["tokenizer", "detector", "inpainter"]


def test_the_paper_preset_has_every_value_that_the_paper_states():
    pipeline = make_mimood_pipeline("paper")
    stated = {
        "tokenizer__n_codes": 256,
        "tokenizer__code_dim": 256,
        "tokenizer__training__max_iter": 300_000,
        "tokenizer__training__learning_rate": 5e-5,
        "tokenizer__training__weight_decay": 1e-5,
        "detector__threshold": 0.005,
        "detector__corruption": "random",
        "detector__mask_generator": "brush",
        "detector__depth": 12,
        "detector__drop_path": 0.1,
        "detector__training__max_iter": 200_000,
        "detector__training__learning_rate": 5e-5,
        "detector__training__weight_decay": 1e-5,
        "inpainter__n_steps": 8,
        "inpainter__n_restorations": 4,
        "inpainter__mask_generator": "brush",
        "inpainter__depth": 12,
        "inpainter__drop_path": 0.1,
        "inpainter__training__max_iter": 200_000,
        "inpainter__training__learning_rate": 5e-5,
        "inpainter__training__weight_decay": 1e-5,
    }
    assert PRESET_IMAGE_SIZE["paper"] == 160
    parameters = pipeline.get_params()
    assert {name: parameters[name] for name in stated} == stated


def test_the_paper_preset_makes_400_tokens_of_160_pixels():
    tokenizer = make_mimood_pipeline("paper")[0]
    assert (160 // (tokenizer.patch_size * 2 ** (len(tokenizer.channel_multipliers) - 1))) ** 2 == 400


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_builds_and_clones(preset):
    pipeline = make_mimood_pipeline(preset, random_state=3, memory=None)
    assert clone(pipeline).get_params()["detector__random_state"] == 3


def test_an_unknown_preset_is_refused_with_the_choices():
    with pytest.raises(InputError, match="'paper', 'small', 'tiny', 'toy'"):
        make_mimood_pipeline("huge")


def test_predicting_before_fit_says_so(quick_pipeline, healthy):
    with pytest.raises(NotFittedError):
        quick_pipeline.predict(healthy)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_grid_search_trains_each_network_once(cohort, tmp_path, n_jobs):
    X, y, fold = cohort
    pipeline = Pipeline(small_steps(max_iter=3, memory=str(tmp_path)))
    search = GridSearchCV(
        pipeline,
        GRID,
        cv=PredefinedSplit(fold),
        scoring=pixel_average_precision_scorer,
        n_jobs=n_jobs,
        refit=True,
    )
    search.fit(X, y)
    assert len(search.cv_results_["params"]) == 8
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    # The refit on all samples drops those with lesions, so it trains on what the fold trained on.
    assert count_trainings(tmp_path) == 3


def test_a_grid_search_of_24_candidates_after_a_fit_trains_nothing(cohort, tmp_path):
    X, y, fold = cohort
    pipeline = Pipeline(small_steps(max_iter=3, memory=str(tmp_path))).fit(X[fold == -1])
    before = count_trainings(tmp_path)
    grid = {**GRID, "inpainter__n_steps": [1, 2, 3], "detector__threshold": [0.05, 0.1, 0.2, 0.3]}
    search = GridSearchCV(pipeline, grid, cv=PredefinedSplit(fold)).fit(X, y)
    assert len(search.cv_results_["params"]) == 24
    assert before == 3
    assert count_trainings(tmp_path) == 3


def test_folds_of_healthy_slices_train_once_a_fold(cohort, tmp_path):
    X, y, _ = cohort
    pipeline = Pipeline(small_steps(max_iter=3, memory=str(tmp_path)))
    search = GridSearchCV(pipeline, GRID, cv=KFold(2, shuffle=True, random_state=0), refit=False).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert count_trainings(tmp_path) == 6


def test_the_default_cache_lasts_as_long_as_the_process(healthy):
    pipeline = make_mimood_pipeline("tiny")
    assert (
        pipeline.get_params()["detector__memory"]
        == make_mimood_pipeline("tiny").get_params()["tokenizer__memory"]
    )


def test_lesions_are_dropped_from_every_step(cohort, healthy):
    X, y, fold = cohort
    mixed = Pipeline(small_steps(max_iter=3)).fit(X, y)
    clean = Pipeline(small_steps(max_iter=3)).fit(X[fold == -1])
    np.testing.assert_array_equal(mixed.decision_function(X), clean.decision_function(X))


def test_the_same_seed_gives_the_same_bytes(cohort):
    X = cohort[0]
    first, second = (Pipeline(small_steps(max_iter=3)).fit(X).decision_function(X) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_another_seed_gives_other_maps(cohort):
    X = cohort[0]
    first, second = (
        Pipeline(small_steps(max_iter=3, random_state=seed)).fit(X).decision_function(X) for seed in (0, 1)
    )
    assert (first != second).any()


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_and_pickles_give_the_same_maps(fitted, healthy, duplicate):
    np.testing.assert_array_equal(
        duplicate(fitted).decision_function(healthy[:3]), fitted.decision_function(healthy[:3])
    )


def test_a_clone_of_a_fitted_pipeline_is_unfitted(fitted, healthy):
    with pytest.raises(NotFittedError):
        clone(fitted).decision_function(healthy)


def test_a_pickle_holds_no_tensor(fitted):
    assert b"torch" not in pickle.dumps(fitted)


def test_a_fitted_pipeline_hashes_the_same_after_a_round_trip(fitted):
    import joblib

    assert joblib.hash(fitted[0].state_) == joblib.hash(pickle.loads(pickle.dumps(fitted[0])).state_)


def test_float64_and_strided_images_give_the_maps_of_their_float32_copy(fitted, healthy):
    wide = np.repeat(healthy[:2].astype(np.float64), 2, axis=2)[:, :, ::2]
    np.testing.assert_array_equal(fitted.decision_function(wide), fitted.decision_function(healthy[:2]))


def test_a_lesion_is_marked_where_it_lies_in_slices_that_are_mirrored(fitted):
    slices, masks = plant_lesions(make_slices(12, seed=3))
    as_they_are, mirrored = (
        average_precision_score(truth.ravel(), fitted.decision_function(images).ravel())
        for images, truth in ((slices, masks), (slices[..., ::-1], masks[..., ::-1]))
    )
    assert mirrored > 0.9 * as_they_are > 5 * masks.mean()


def test_a_pipeline_is_known_as_that_of_a_preset_by_its_networks():
    for preset in PRESETS:
        pipeline = clone(make_mimood_pipeline(preset, device="cpu"))
        assert preset_of(pipeline.set_params(tokenizer__training__max_iter=1)) == preset
        assert preset_of(pipeline.set_params(tokenizer__patch_size=3)) is None
    assert preset_of(Pipeline([("tokenizer", VQTokenizer())])) is None


def test_a_preset_in_a_detector_of_another_size_is_warned_about():
    with pytest.warns(
        SkmimoodWarning, match=r"'small' is made for slices of 128 x 128 pixels and size is 64 x 32"
    ):
        warn_about_size(make_mimood_pipeline("small"), (64, 32))
    warn_about_size(make_mimood_pipeline("tiny"), (64, 64))
    warn_about_size(Pipeline([("tokenizer", VQTokenizer())]), (20, 20))
