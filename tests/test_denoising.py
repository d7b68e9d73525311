import pickle

import numpy as np
import pytest
import torch
from conftest import build, make_slices, plant_lesions
from joblib import Parallel, delayed
from rounding import assert_same
from sklearn.base import clone
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import Pipeline

from skmimood import VQTokenizer, load_model, save_model
from skmimood.baselines import AutoregressiveRestorer, TokenizerResidual
from skmimood.detectors.denoising import DenoisingAutoencoder
from skmimood.exceptions import InputError, SkmimoodWarning
from skmimood.networks.unet import UNet
from skmimood.networks.weights import new_network
from skmimood.preprocessing.heads import eroded, head_masks
from skmimood.training import denoising
from skmimood.training.denoising import coarse_noise
from skmimood.training.loop import train


def small_autoencoder(**parameters) -> DenoisingAutoencoder:
    """Return an autoencoder that makes 3 training steps unless told otherwise."""
    common = {"channels": 8, "depth": 3, "noise_resolution": 8, "erosion": 1, "median_filter": 3}
    training = {"learning_rate": 3e-3, "warmup_iter": 10, "validation_fraction": 0.25, "precision": "float32"}
    return build(
        DenoisingAutoencoder, **{**common, **training, "random_state": 0, "max_iter": 3, **parameters}
    )


@pytest.fixture(scope="module")
def autoencoder(healthy) -> DenoisingAutoencoder:
    return small_autoencoder(max_iter=100).fit(healthy)


@pytest.fixture(scope="module")
def lesions():
    return plant_lesions(make_slices(12, seed=3))


def test_a_planted_lesion_scores_higher_than_its_surroundings(autoencoder, lesions):
    slices, masks = lesions
    maps = autoencoder.decision_function(slices)
    assert maps.dtype == np.float32
    assert 0 <= maps.min() <= maps.max() <= 1
    assert roc_auc_score(masks.ravel(), maps.ravel()) > 0.95
    assert average_precision_score(masks.ravel(), maps.ravel()) > 10 * masks.mean()


def test_healing_brings_a_lesion_back_towards_healthy_tissue(autoencoder, lesions):
    slices, masks = lesions
    healthy = make_slices(12, seed=3)
    healed = autoencoder.transform(slices)
    assert 0 <= healed.min() <= healed.max() <= 1
    assert np.abs(healed - healthy)[masks].mean() < 0.5 * np.abs(slices - healthy)[masks].mean()


def test_predict_finds_the_lesion_and_marks_few_healthy_pixels(autoencoder, lesions):
    slices, truth = lesions
    masks = autoencoder.predict(slices)
    assert masks[truth].mean() > 5 * masks[~truth].mean()
    assert autoencoder.predict(make_slices(40, seed=4)).mean() < 0.04


def test_the_positive_residual_ignores_dark_lesions_and_keeps_bright_ones(autoencoder, lesions):
    dark, masks = plant_lesions(make_slices(12, seed=3), value=0.0)
    positive = pickle.loads(pickle.dumps(autoencoder)).set_params(residual="positive")
    assert autoencoder.decision_function(dark)[masks].mean() > 0.1
    assert positive.decision_function(dark)[masks].mean() < 0.02
    bright = [estimator.decision_function(lesions[0])[masks].mean() for estimator in (positive, autoencoder)]
    assert bright[0] > 0.95 * bright[1]


def test_scores_are_zero_on_the_rim_that_is_eroded(autoencoder, lesions):
    thicker = pickle.loads(pickle.dumps(autoencoder)).set_params(erosion=4, median_filter=1)
    maps, inside = thicker.decision_function(lesions[0]), eroded(head_masks(lesions[0]), 4)
    assert inside.any()
    assert maps[~inside].max() == 0
    whole = thicker.set_params(erosion=0).decision_function(lesions[0])
    np.testing.assert_array_equal(maps, whole * inside)


def test_the_median_filter_removes_specks(autoencoder):
    slices = make_slices(4, seed=5)
    slices[:, 20, 12] = 1.0
    unfiltered = pickle.loads(pickle.dumps(autoencoder)).set_params(median_filter=1)
    assert (
        autoencoder.decision_function(slices)[:, 20, 12]
        < 0.5 * unfiltered.decision_function(slices)[:, 20, 12]
    ).all()


def test_noise_falls_on_the_foreground_only():
    images = torch.from_numpy(make_slices(16, size=64))[:, None]
    noise = coarse_noise(images, 0.2, 8, torch.Generator().manual_seed(0))
    inside = images > 0
    assert noise.shape == images.shape
    assert (noise[~inside] == 0).all()
    assert (noise[inside] != 0).float().mean() > 0.99


def test_noise_is_the_same_under_the_same_seed_and_another_under_another():
    images = torch.ones(4, 1, 32, 32)
    first, again, other = (
        coarse_noise(images, 0.2, 8, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert (first != other).float().mean() > 0.99


def test_noise_is_coarse_and_of_the_deviation_asked_for():
    noise = coarse_noise(torch.ones(64, 1, 64, 64), 0.2, 8, torch.Generator().manual_seed(0))
    assert 0.1 < noise.std() < 0.2  # interpolation averages cells
    assert noise.diff(dim=-1).abs().mean() < 0.3 * noise.abs().mean()


def test_the_global_random_state_is_left_alone(healthy):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    small_autoencoder().fit(healthy)
    torch.testing.assert_close(torch.get_rng_state(), before)


def test_the_same_seed_learns_the_same_and_another_something_else(healthy):
    first, again, other = (small_autoencoder(random_state=seed).fit(healthy) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.history_["loss"], again.history_["loss"])
    assert (first.history_["loss"] != other.history_["loss"]).any()


@pytest.mark.parametrize("parameter", ["augment", "flip"])
def test_augmentation_changes_the_training(healthy, parameter):
    off, on = (small_autoencoder(**{parameter: value}).fit(healthy) for value in (False, True))
    assert (off.history_["loss"] != on.history_["loss"]).any()


@pytest.mark.numerics
@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_no_result_depends_on_the_batch_size_or_the_neighbours(autoencoder, lesions, batch_size):
    expected = autoencoder.decision_function(lesions[0])
    other = pickle.loads(pickle.dumps(autoencoder)).set_params(training__batch_size=batch_size)
    assert_same(other.decision_function(lesions[0]), expected)
    assert_same(autoencoder.decision_function(lesions[0][:batch_size]), expected[:batch_size])


@pytest.mark.parametrize("size", [30, 33])
def test_slices_need_not_be_multiples_of_the_levels(size):
    slices = make_slices(8, size=size)
    assert small_autoencoder().fit(slices).transform(slices).shape == slices.shape


@pytest.mark.parametrize("widths", [[4], [6, 12], [8, 16, 32, 64]])
def test_the_network_returns_images_of_the_shape_it_gets(widths):
    network = new_network(UNet, {"widths": widths}, torch.Generator().manual_seed(0))
    assert network(torch.rand(2, 1, 24, 20)).shape == (2, 1, 24, 20)


def test_the_output_layer_is_computed_in_float32():
    network = new_network(UNet, {"widths": [4, 8]}, torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        assert network(torch.rand(2, 1, 16, 16)).dtype == torch.float32


def test_a_saved_autoencoder_gives_the_same_maps_and_masks(autoencoder, lesions, tmp_path):
    save_model(autoencoder, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    np.testing.assert_array_equal(
        loaded.decision_function(lesions[0]), autoencoder.decision_function(lesions[0])
    )
    np.testing.assert_array_equal(loaded.predict(lesions[0]), autoencoder.predict(lesions[0]))
    assert loaded.get_params() == autoencoder.get_params()


def test_a_clone_keeps_the_parameters_and_forgets_what_was_learnt(autoencoder):
    copy = clone(autoencoder)
    assert copy.get_params() == autoencoder.get_params()
    assert not hasattr(copy, "state_")


@pytest.mark.numerics
def test_scoring_in_parallel_gives_the_same_maps(autoencoder, lesions):
    parts = np.split(lesions[0], 2)
    maps = Parallel(n_jobs=2, prefer="threads")(
        delayed(autoencoder.decision_function)(part) for part in parts
    )
    assert_same(np.concatenate(maps), autoencoder.decision_function(lesions[0]))


def test_samples_with_a_lesion_are_not_learnt_from(healthy, lesions):
    mixed = np.concatenate([lesions[0], healthy])
    y = np.concatenate([lesions[1], np.zeros(healthy.shape, bool)])
    alone, among_lesions = small_autoencoder().fit(healthy), small_autoencoder().fit(mixed, y)
    np.testing.assert_array_equal(alone.history_["loss"], among_lesions.history_["loss"])
    assert alone.threshold_ == among_lesions.threshold_


def test_a_grid_search_over_inference_parameters_trains_once(healthy, lesions, tmp_path, monkeypatch):
    trainings = []
    monkeypatch.setattr(denoising, "train", lambda *a, **k: trainings.append(1) or train(*a, **k))
    X = np.concatenate([healthy, lesions[0]])
    y = np.concatenate([np.zeros(healthy.shape, bool), lesions[1]])
    split = PredefinedSplit(np.repeat([-1, 0], [len(healthy), len(lesions[0])]))
    grid = {"dae__residual": ["absolute", "positive"], "dae__erosion": [0, 2], "dae__median_filter": [1, 3]}
    pipeline = Pipeline([("dae", small_autoencoder(memory=str(tmp_path)))])
    GridSearchCV(pipeline, grid, cv=split, n_jobs=1).fit(X, y)
    assert len(trainings) == 1


def test_predict_warns_when_the_threshold_belongs_to_other_parameters(autoencoder, lesions):
    other = pickle.loads(pickle.dumps(autoencoder)).set_params(median_filter=5)
    with pytest.warns(SkmimoodWarning, match="calibrated with other"):
        other.predict(lesions[0])


def test_slices_of_another_size_are_refused(autoencoder):
    with pytest.raises(InputError, match="32 x 32 pixels as in fit"):
        autoencoder.decision_function(make_slices(2, size=40))


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("noise_std", 0.0), ("noise_resolution", 0), ("residual", "squared"), ("erosion", -1), ("median_filter", 4),
        ("channels", 1.5), ("depth", 0), ("fpr", 0.0), ("max_iter", 0),
    ],
)  # fmt: skip
def test_a_parameter_out_of_range_is_refused_by_name(healthy, parameter, value):
    with pytest.raises(InputError, match=f"{parameter} must be"):
        small_autoencoder(**{parameter: value}).fit(healthy)


def test_a_threshold_from_training_slices_is_warned_about_where_fit_was_called(healthy):
    tokenizer = build(
        VQTokenizer, n_codes=8, code_dim=4, channels=8, max_iter=2, warmup_iter=0, random_state=0
    )
    tokens = tokenizer.fit(healthy).transform(healthy)
    restorer = build(
        AutoregressiveRestorer, depth=1, width=16, n_heads=2, max_iter=2, validation_fraction=0.0
    )
    for detector, X in (
        (small_autoencoder(validation_fraction=0.0), healthy),
        (restorer, tokens),
        (TokenizerResidual(validation_fraction=0.0), tokens),
    ):
        with pytest.warns(SkmimoodWarning, match="training slices themselves") as caught:
            detector.fit(X)
        assert {warning.filename for warning in caught} == {__file__}
