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
from skmimood.networks.transformer import TokenTransformer
from skmimood.networks.weights import network_state, new_network
from skmimood.runtime.streams import Streams
from skmimood.tokens import critic as token_critic
from skmimood.tokens.critic import TokenCritic

N_CODES = 32


def steps(threshold: float = 0.5, **common) -> list[tuple]:
    """Return the steps of `small_steps` with the critic in the place of the detector."""
    tokenizer, _, inpainter = small_steps(**common)
    tokenizer[1].set_params(training__batch_size=8, channels=8, n_augmentations=0)
    own = inpainter[1].get_params(deep=False)
    shared = (own.keys() & TokenCritic().get_params().keys()) - {"mask_generator"}
    training = {name: clone(own[name], safe=False) for name in shared}
    return [tokenizer, ("detector", TokenCritic(threshold=threshold, **training)), inpainter]


def untrained_inpainter(*, config, seed, **ignored):
    """Stand in for the in-painter's training: its samples are any code, about equally likely."""
    network = new_network(TokenTransformer, config, Streams.at(seed, 0).torch)
    return {"state": network_state(network), "history": {}}


def count_trainings(memory) -> int:
    """Count the trained networks in a cache: each cached call leaves one output."""
    return sum("train_" in str(path) for path in memory.rglob("output.pkl"))


@pytest.fixture(scope="module")
def trained(healthy):
    """Return a pipeline whose critic learnt from samples so poor that a short training tells them apart."""
    pipeline = Pipeline(steps(max_iter=60, threshold=0.3, validation_fraction=0.25))
    pipeline[1:].set_params(
        detector__training__max_iter=150, detector__mask_generator="brush", inpainter__training__max_iter=100
    )
    pipeline.set_params(detector__training__learning_rate=4e-3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_critic, "train_token_inpainter", untrained_inpainter)
        return pipeline.fit(healthy)


@pytest.fixture
def critic(trained):
    """Return a copy of the trained critic that a test may change."""
    return pickle.loads(pickle.dumps(trained[1]))


@pytest.fixture(scope="module")
def scans(trained):
    return trained[0].transform(make_slices(12, seed=2))


@pytest.fixture(scope="module")
def quick_scans():
    """Return tokens of a tokeniser that has hardly learnt anything: for contracts, not for quality."""
    return small_steps(max_iter=3)[0][1].fit_transform(make_slices(20))


def quick_critic(**parameters) -> TokenCritic:
    return steps(max_iter=3)[1][1].set_params(**parameters)


def test_a_foreign_token_scores_higher_than_its_surroundings(critic, scans):
    rng = np.random.default_rng(0)
    replaced = rng.random(scans.tokens.shape) < 0.1
    tokens = np.where(replaced, rng.integers(0, N_CODES, scans.tokens.shape), scans.tokens)
    changed = tokens != scans.tokens
    scores = critic.decision_function(dataclasses.replace(scans, tokens=tokens))
    assert roc_auc_score(changed.ravel(), scores.ravel()) > 0.85


def test_tokens_of_a_planted_lesion_score_higher_than_those_of_the_healthy_slice(trained, critic):
    healthy = make_slices(12, seed=3)
    lesions, masks = plant_lesions(healthy)
    inside = token_labels(masks, 4, rule="half")
    with_lesion, without = (critic.decision_function(trained[0].transform(X)) for X in (lesions, healthy))
    assert with_lesion[inside].mean() > 1.5 * without[inside].mean()


def test_resampling_what_the_critic_doubts_heals_a_planted_lesion(trained):
    healthy = make_slices(12, seed=3)
    lesions, masks = plant_lesions(healthy)
    maps, healed = trained[-1].detect(trained[:-1].transform(lesions))
    assert roc_auc_score(masks.ravel(), maps.ravel()) > 0.9
    assert np.abs(healed - healthy)[masks].mean() < 0.5 * np.abs(lesions - healthy)[masks].mean()


def test_scores_are_probabilities_of_each_token(critic, scans):
    scores = critic.decision_function(scans)
    assert scores.shape == (12, 8, 8)
    assert scores.dtype == np.float32
    assert 0 <= scores.min() <= scores.max() <= 1


@pytest.mark.numerics
@pytest.mark.parametrize("batch_size", [1, 5])
def test_no_score_depends_on_the_batch_or_on_the_neighbours(critic, scans, batch_size):
    expected = critic.decision_function(scans)
    critic.set_params(training__batch_size=batch_size)
    assert_same(critic.decision_function(scans), expected)
    order = np.random.default_rng(0).permutation(len(scans))
    assert_same(critic.decision_function(scans[order]), expected[order])


def test_the_generator_is_trained_once_with_the_inpainter(tmp_path):
    Pipeline(steps(max_iter=3, memory=str(tmp_path))).fit(make_slices(20))
    assert count_trainings(tmp_path) == 3


def test_a_generator_with_other_masks_is_trained_apart(tmp_path):
    pipeline = Pipeline(steps(max_iter=3, memory=str(tmp_path)))
    pipeline.set_params(detector__generator_mask_generator="maskgit_cosine").fit(make_slices(20))
    assert count_trainings(tmp_path) == 4


def test_the_critic_depends_on_its_generator(quick_scans):
    first, second = (
        quick_critic(generator_mask_generator=law).fit(quick_scans) for law in ("brush", "maskgit_cosine")
    )
    assert (first.history_["loss"] != second.history_["loss"]).any()


def test_training_leaves_the_tokens_and_the_generator_as_they_were(quick_scans, monkeypatch):
    kept = {}

    def remember(**arguments):
        kept.update(untrained_inpainter(**arguments)["state"])
        return {"state": kept}

    monkeypatch.setattr(token_critic, "train_token_inpainter", remember)
    before = quick_scans.tokens.copy()
    config = quick_critic().fit(quick_scans).config_ | {"n_inputs": N_CODES + 1, "n_outputs": N_CODES}
    np.testing.assert_array_equal(quick_scans.tokens, before)
    for name, weights in untrained_inpainter(config=config, seed=0)["state"].items():
        np.testing.assert_array_equal(kept[name], weights)


def test_the_same_seed_gives_the_same_critic_and_touches_no_global_generator(quick_scans):
    import torch

    numpy_before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    first, second = (quick_critic().fit(quick_scans).decision_function(quick_scans) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    assert (torch.get_rng_state() == torch_before).all()


def test_the_drawn_seed_tells_the_whole_training(quick_scans):
    drawn = quick_critic(random_state=np.random.RandomState(5)).fit(quick_scans)
    again = quick_critic(random_state=drawn.seed_).fit(quick_scans)
    np.testing.assert_array_equal(again.decision_function(quick_scans), drawn.decision_function(quick_scans))


@pytest.mark.parametrize("law", ["maskgit_cosine", {"brush": 0.7, "maskgit_cosine": 0.3}])
def test_the_masks_of_the_critic_can_be_chosen(quick_scans, law):
    assert np.isfinite(quick_critic(mask_generator=law).fit(quick_scans).history_["loss"]).all()


def test_a_callable_serves_as_either_mask_generator(quick_scans):
    def lower_half(n, grid, rng):
        return np.repeat([np.arange(grid[0])[:, None] + np.zeros(grid) >= grid[0] // 2], n, axis=0)

    laws = {"mask_generator": lower_half, "generator_mask_generator": lower_half}
    critic = quick_critic(memory="unused", **laws).fit(quick_scans)
    assert np.isfinite(critic.history_["loss"]).all()


def test_its_training_parameters_and_their_defaults_are_those_of_the_inpainter():
    inpainter, own = MaskedTokenInpainter().get_params(), TokenCritic().get_params()
    assert own.pop("generator_mask_generator") == inpainter["mask_generator"]
    training = own.keys() - {"threshold", "mask_generator"}
    assert {name: inpainter[name] for name in training} == {name: own[name] for name in training}


def test_a_grid_search_over_thresholds_trains_nothing_anew(tmp_path):
    healthy = make_slices(20)
    lesions, masks = plant_lesions(make_slices(6, seed=1))
    X, y = np.concatenate([healthy, lesions]), np.concatenate([np.zeros_like(healthy, bool), masks])
    pipeline = Pipeline(steps(max_iter=3, memory=str(tmp_path)))
    folds = PredefinedSplit(np.r_[np.full(20, -1), np.zeros(6, int)])
    search = GridSearchCV(pipeline, {"detector__threshold": [0.3, 0.5, 0.7]}, cv=folds).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert count_trainings(tmp_path) == 3


def test_a_saved_pipeline_gives_the_same_scores_and_maps(trained, scans, tmp_path):
    save_model(trained, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    np.testing.assert_array_equal(loaded[1].decision_function(scans), trained[1].decision_function(scans))
    np.testing.assert_array_equal(
        loaded.decision_function(scans.images), trained.decision_function(scans.images)
    )


def test_a_pickle_scores_the_same_and_a_clone_is_unfitted(trained, critic, scans):
    np.testing.assert_array_equal(critic.decision_function(scans), trained[1].decision_function(scans))
    assert b"torch" not in pickle.dumps(trained[1])
    copy = clone(trained[1])
    assert copy.get_params() == trained[1].get_params()
    with pytest.raises(NotFittedError):
        copy.decision_function(scans)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("threshold", 1.5), ("threshold", None), ("mask_generator", "brushes"),
        ("generator_mask_generator", {}), ("drop_path", 1.0), ("batch_size", 0),
    ],
)  # fmt: skip
def test_a_parameter_out_of_range_is_refused_by_name(quick_scans, parameter, value):
    with pytest.raises(InputError, match=rf"TokenCritic: (training: )?{parameter} must"):
        build(TokenCritic, **{parameter: value}).fit(quick_scans)


def test_plain_images_are_refused_with_a_way_out(healthy):
    with pytest.raises(InputError, match="output of VQTokenizer"):
        TokenCritic().fit(healthy)
