import dataclasses
import pickle

import numpy as np
import pytest
from conftest import build, make_slices, plant_lesions, small_steps
from rounding import assert_same
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import Pipeline

from skmimood import MaskedTokenInpainter, load_model, save_model
from skmimood.exceptions import InputError
from skmimood.metrics import token_labels
from skmimood.tokens.likelihood import TokenLikelihoodDetector, lattice_masks, partition_masks

MODES = ["random", "complementary", "unmasked"]
N_CODES = 32


def steps(threshold: float = 3.0, **common) -> list[tuple]:
    """Return the steps of `small_steps` with the likelihood in the place of the detector."""
    tokenizer, _, inpainter = small_steps(**common)
    tokenizer[1].set_params(training__batch_size=8, channels=8, n_augmentations=0)
    own = inpainter[1].get_params(deep=False)
    training = {
        name: clone(own[name], safe=False)
        for name in own.keys() & TokenLikelihoodDetector().get_params().keys()
    }
    return [
        tokenizer,
        ("detector", TokenLikelihoodDetector(threshold=threshold, **training)),
        inpainter,
    ]


def count_trainings(memory) -> int:
    """Count the trained networks in a cache: each cached call leaves one output."""
    return sum("train_" in str(path) for path in memory.rglob("output.pkl"))


@pytest.fixture(scope="module")
def trained(healthy, tmp_path_factory):
    """Return a pipeline trained enough to tell a lesion from its surroundings."""
    memory = str(tmp_path_factory.mktemp("cache"))
    pipeline = Pipeline(steps(max_iter=60, validation_fraction=0.25, memory=memory))
    pipeline[1:].set_params(detector__training__max_iter=100, inpainter__training__max_iter=100)
    return pipeline.fit(healthy)


@pytest.fixture
def detector(trained):
    """Return a copy of the trained detector that a test may change."""
    return pickle.loads(pickle.dumps(trained[1]))


@pytest.fixture(scope="module")
def scans(trained):
    return trained[0].transform(make_slices(12, seed=2))


def with_tokens(scans, tokens):
    return dataclasses.replace(scans, tokens=tokens)


@pytest.mark.parametrize("visible", MODES)
def test_a_foreign_token_scores_higher_than_its_surroundings(detector, scans, visible):
    rng = np.random.default_rng(0)
    replaced = rng.random(scans.tokens.shape) < 0.05
    tokens = np.where(replaced, rng.integers(0, N_CODES, scans.tokens.shape), scans.tokens)
    changed = tokens != scans.tokens
    scores = detector.set_params(visible=visible).decision_function(with_tokens(scans, tokens))
    assert roc_auc_score(changed.ravel(), scores.ravel()) > 0.95


@pytest.mark.parametrize("visible", MODES)
def test_tokens_of_a_planted_lesion_score_higher_than_those_of_the_healthy_slice(trained, detector, visible):
    healthy = make_slices(12, seed=3)
    lesions, masks = plant_lesions(healthy)
    inside = token_labels(masks, 4, rule="half")
    detector.set_params(visible=visible)
    with_lesion, without = (detector.decision_function(trained[0].transform(X)) for X in (lesions, healthy))
    assert with_lesion[inside].mean() > 1.5 * without[inside].mean()


@pytest.mark.parametrize("visible", MODES)
def test_scores_are_nats_and_fewer_than_those_of_a_guess(detector, scans, visible):
    scores = detector.set_params(visible=visible).decision_function(scans)
    assert scores.shape == (12, 8, 8)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    assert scores.min() >= 0
    assert scores.mean() < 0.5 * np.log(N_CODES)


def probability_of_all_codes(detector, scans, row: int, column: int) -> float:
    """Put each code in turn at one place of a slice and add the probabilities that it is scored with."""
    tokens = np.repeat(scans.tokens[:1], N_CODES, axis=0)
    tokens[:, row, column] = np.arange(N_CODES)
    variants = dataclasses.replace(scans, images=np.repeat(scans.images[:1], N_CODES, axis=0), tokens=tokens)
    return float(np.exp(-detector.decision_function(variants)[:, row, column].astype(float)).sum())


@pytest.mark.parametrize(("row", "column"), [(0, 0), (2, 5), (7, 4)])
@pytest.mark.parametrize(("visible", "n_masks"), [("complementary", 16), ("random", 2), ("random", 3)])
def test_the_law_that_scores_a_token_does_not_depend_on_the_token(
    detector, scans, visible, n_masks, row, column
):
    detector.set_params(visible=visible, n_masks=n_masks)
    assert probability_of_all_codes(detector, scans, row, column) == pytest.approx(1, abs=1e-4)


def test_a_mean_over_masks_is_the_geometric_mean_of_laws_that_do_not_see_the_token(detector, scans):
    assert 0.5 < probability_of_all_codes(detector, scans, 2, 5) <= 1 + 1e-4


def test_unmasked_the_network_sees_the_token_that_it_scores(detector, scans):
    detector.set_params(visible="unmasked")
    assert abs(probability_of_all_codes(detector, scans, 2, 5) - 1) > 1e-3


def test_the_modes_differ(detector, scans):
    first, second, third = (detector.set_params(visible=mode).decision_function(scans) for mode in MODES)
    assert (first != second).any()
    assert (first != third).any()
    assert (second != third).any()


@pytest.mark.parametrize("n_masks", range(2, 24))
@pytest.mark.parametrize("grid", [(8, 8), (5, 7)])
def test_random_masks_hide_a_half_or_a_third_and_each_token_equally_often(n_masks, grid):
    masks = partition_masks(n_masks, grid, np.random.default_rng(0))
    assert masks.shape == (n_masks, *grid)
    share = masks.mean((1, 2))
    assert (np.minimum(abs(share - 1 / 2), abs(share - 1 / 3)) < 1 / masks[0].size).all()
    assert len(np.unique(masks.sum(0))) == 1


def test_sixteen_masks_hide_each_token_six_times():
    assert (partition_masks(16, (20, 20), np.random.default_rng(0)).sum(0) == 6).all()


@pytest.mark.parametrize("grid", [(8, 8), (5, 7), (1, 4)])
def test_complementary_masks_hide_each_token_once_and_no_two_neighbours_together(grid):
    masks = lattice_masks(grid)
    assert masks.shape == (4, *grid)
    assert (masks.sum(0) == 1).all()
    assert not (masks[:, 1:] & masks[:, :-1]).any()
    assert not (masks[:, :, 1:] & masks[:, :, :-1]).any()


@pytest.mark.numerics
@pytest.mark.parametrize("visible", MODES)
@pytest.mark.parametrize("batch_size", [1, 5])
def test_no_score_depends_on_the_batch_or_on_the_neighbours(detector, scans, visible, batch_size):
    expected = detector.set_params(visible=visible).decision_function(scans)
    detector.set_params(training__batch_size=batch_size)
    assert_same(detector.decision_function(scans), expected)
    order = np.random.default_rng(0).permutation(len(scans))
    assert_same(detector.decision_function(scans[order]), expected[order])


def test_restoring_unlikely_tokens_heals_a_planted_lesion(trained):
    healthy = make_slices(12, seed=3)
    lesions, masks = plant_lesions(healthy)
    maps, healed = trained[-1].detect(trained[:-1].transform(lesions))
    assert roc_auc_score(masks.ravel(), maps.ravel()) > 0.9
    assert np.abs(healed - healthy)[masks].mean() < 0.5 * np.abs(lesions - healthy)[masks].mean()


def test_the_network_is_trained_once_for_the_detector_and_the_inpainter(tmp_path):
    pipeline = Pipeline(steps(max_iter=3, memory=str(tmp_path))).fit(make_slices(20))
    assert count_trainings(tmp_path) == 2
    for name, weights in pipeline[1].state_.items():
        np.testing.assert_array_equal(weights, pipeline[2].state_[name])


def test_with_another_training_it_is_trained_apart(tmp_path):
    pipeline = Pipeline(steps(max_iter=3, memory=str(tmp_path))).set_params(
        detector__mask_generator="maskgit_cosine"
    )
    pipeline.fit(make_slices(20))
    assert count_trainings(tmp_path) == 3


def test_its_training_parameters_and_their_defaults_are_those_of_the_inpainter():
    inpainter = MaskedTokenInpainter().get_params()
    own = {"threshold", "visible", "n_masks"}
    training = {k: v for k, v in TokenLikelihoodDetector().get_params().items() if k not in own}
    assert {k: inpainter[k] for k in training} == training


def test_a_grid_search_over_thresholds_and_modes_trains_nothing_anew(tmp_path):
    healthy = make_slices(20)
    lesions, masks = plant_lesions(make_slices(6, seed=1))
    X, y = np.concatenate([healthy, lesions]), np.concatenate([np.zeros_like(healthy, bool), masks])
    grid = {"detector__threshold": [2.0, 3.0], "detector__visible": ["complementary", "unmasked"]}
    pipeline = Pipeline(steps(max_iter=3, memory=str(tmp_path)))
    folds = PredefinedSplit(np.r_[np.full(20, -1), np.zeros(6, int)])
    search = GridSearchCV(pipeline, grid, cv=folds).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert count_trainings(tmp_path) == 2


def test_a_saved_pipeline_gives_the_same_scores_and_maps(trained, scans, tmp_path):
    save_model(trained, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    np.testing.assert_array_equal(loaded[1].decision_function(scans), trained[1].decision_function(scans))
    np.testing.assert_array_equal(
        loaded.decision_function(scans.images), trained.decision_function(scans.images)
    )


def test_a_pickle_scores_the_same_and_a_clone_is_unfitted(trained, detector, scans):
    np.testing.assert_array_equal(detector.decision_function(scans), trained[1].decision_function(scans))
    assert b"torch" not in pickle.dumps(trained[1])
    copy = clone(trained[1])
    assert copy.get_params() == trained[1].get_params()
    with pytest.raises(NotFittedError):
        copy.decision_function(scans)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("threshold", -1.0), ("threshold", "6"), ("visible", "some"), ("n_masks", 1), ("n_masks", 2.5),
        ("mask_generator", "brushes"), ("depth", 0), ("max_iter", 0),
    ],
)  # fmt: skip
def test_a_parameter_out_of_range_is_refused_by_name(scans, parameter, value):
    with pytest.raises(InputError, match=parameter):
        build(TokenLikelihoodDetector, **{parameter: value}).fit(scans)


def test_a_mode_that_does_not_exist_is_refused_also_after_the_fit(detector, scans):
    with pytest.raises(InputError, match="visible must be one of"):
        detector.set_params(visible="some").decision_function(scans)


def test_plain_images_are_refused_with_a_way_out(healthy):
    with pytest.raises(InputError, match="output of VQTokenizer"):
        TokenLikelihoodDetector().fit(healthy)
