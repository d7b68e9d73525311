import copy
import dataclasses

import numpy as np
import pytest
from conftest import build, make_slices, plant_lesions
from rounding import assert_same
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline

from benchmarks.timing.plain_reading import plain_maps
from skmimood import AnomalousTokenDetector, load_model, save_model
from skmimood.exceptions import InputError
from skmimood.metrics import token_labels


def test_replaced_tokens_score_higher_than_those_left_alone(fitted):
    scans = fitted[0].transform(make_slices(40, seed=2))
    rng = np.random.default_rng(0)
    replaced = rng.random(scans.tokens.shape) < 0.1
    tokens = np.where(replaced, rng.integers(0, 32, scans.tokens.shape), scans.tokens)
    changed = tokens != scans.tokens
    scores = fitted[1].decision_function(dataclasses.replace(scans, tokens=tokens))
    assert roc_auc_score(changed.ravel(), scores.ravel()) > 0.85


def test_tokens_of_a_planted_lesion_score_higher_than_those_of_the_healthy_slice(fitted):
    healthy = make_slices(12, seed=2)
    lesions, masks = plant_lesions(healthy)
    inside = token_labels(masks, 4, rule="half")
    with_lesion, without = (fitted[1].decision_function(fitted[0].transform(X)) for X in (lesions, healthy))
    assert with_lesion[inside].mean() > 1.5 * without[inside].mean()


def test_scores_are_probabilities_of_each_token(fitted, healthy):
    scores = fitted[1].decision_function(fitted[0].transform(healthy))
    assert scores.shape == (len(healthy), 8, 8)
    assert scores.dtype == np.float32
    assert 0 <= scores.min() <= scores.max() <= 1


def test_transform_hands_on_the_scores_and_the_detector(fitted, healthy):
    scans = fitted[0].transform(healthy[:3])
    detected = fitted[1].transform(scans)
    assert detected.detector is fitted[1]
    np.testing.assert_array_equal(detected.anomaly, fitted[1].decision_function(scans))


@pytest.mark.parametrize("corruption", ["random", {"random": 0.5, "painted": 0.5}])
@pytest.mark.parametrize("mask_generator", ["maskgit_cosine", {"brush": 0.7, "maskgit_cosine": 0.3}])
def test_the_law_of_corruption_and_the_mask_generator_can_be_chosen(
    quick_pipeline, healthy, corruption, mask_generator
):
    scans = quick_pipeline[0].fit_transform(healthy)
    detector = quick_pipeline[1].set_params(corruption=corruption, mask_generator=mask_generator).fit(scans)
    assert np.isfinite(detector.history_["loss"]).all()


def test_callables_serve_as_laws(quick_pipeline, healthy):
    seen = []

    def next_code(tokens, n_codes, rng):
        seen.append(tokens.shape)
        return (tokens + 1) % n_codes

    scans = quick_pipeline[0].fit_transform(healthy)
    quick_pipeline[1].set_params(corruption=next_code).fit(scans)
    quick_pipeline[1].set_params(corruption=lambda tokens, n_codes, rng: tokens, memory="unused").fit(scans)
    assert seen
    assert all(shape[1:] == (8, 8) for shape in seen)


@pytest.mark.parametrize("law", ["brushes", {}, {"brush": -1.0}])
def test_an_unknown_law_is_refused_with_the_choices(quick_pipeline, healthy, law):
    scans = quick_pipeline[0].fit_transform(healthy)
    with pytest.raises(InputError, match="mask_generator must be one of"):
        quick_pipeline[1].set_params(mask_generator=law).fit(scans)


def test_plain_images_are_refused_with_a_way_out(healthy):
    with pytest.raises(InputError, match="output of VQTokenizer"):
        AnomalousTokenDetector().fit(healthy)


def test_width_must_be_a_multiple_of_the_heads(quick_pipeline, healthy):
    scans = quick_pipeline[0].fit_transform(healthy)
    with pytest.raises(InputError, match="multiple of n_heads"):
        quick_pipeline[1].set_params(width=30, n_heads=4).fit(scans)


def test_a_threshold_that_is_no_probability_is_refused(quick_pipeline, healthy):
    with pytest.raises(InputError, match="probability"):
        quick_pipeline.set_params(detector__threshold=1.5).fit(healthy)


def test_painted_anomalies_teach_the_detector_to_find_a_lesion(fitted):
    healthy = make_slices(48, seed=7)
    detector = build(
        AnomalousTokenDetector,
        corruption="painted",
        n_painted=4,
        depth=2,
        width=32,
        network="unet",
        max_iter=400,
        batch_size=16,
        warmup_iter=10,
        learning_rate=4e-3,
        precision="float32",
        random_state=0,
    ).fit(fitted[0].transform(healthy))
    lesions, masks = plant_lesions(make_slices(12, seed=2))
    scores = detector.decision_function(fitted[0].transform(lesions))
    inside = token_labels(masks, 4, rule="half")
    assert roc_auc_score(inside.ravel(), scores.ravel()) > 0.8
    assert scores[inside].mean() > 2 * scores[~inside].mean()


@pytest.mark.parametrize("corruption", ["painted", {"painted": 0.5, "random": 0.5}])
def test_painted_anomalies_can_be_a_part_of_the_law(quick_pipeline, healthy, corruption):
    scans = quick_pipeline[0].fit_transform(healthy)
    detector = quick_pipeline[1].set_params(corruption=corruption, n_painted=2).fit(scans)
    assert np.isfinite(detector.history_["loss"]).all()


def test_the_share_of_painted_pixels_is_that_of_each_token(fitted, healthy):
    tokens, shares = fitted[0].painted_tokens(fitted[0].transform(healthy[:6]), 3)
    assert tokens.shape == shares.shape == (6, 3, 8, 8)
    assert 0 == shares.min() < shares.max() <= 1
    assert tokens.max() < fitted[0].n_codes
    again = fitted[0].painted_tokens(fitted[0].transform(healthy[:6]), 3)
    np.testing.assert_array_equal(again[0], tokens)


def test_a_number_of_painted_copies_that_is_none_is_refused(fitted, healthy):
    with pytest.raises(InputError, match="n_painted must be a positive integer"):
        build(AnomalousTokenDetector, corruption="painted", n_painted=0).fit(fitted[0].transform(healthy))


def unet(**parameters):
    return build(
        AnomalousTokenDetector,
        network="unet",
        depth=2,
        width=8,
        corruption="painted",
        n_painted=4,
        max_iter=250,
        batch_size=16,
        warmup_iter=10,
        learning_rate=4e-3,
        precision="float32",
        random_state=0,
        **parameters,
    )


@pytest.fixture(scope="module")
def fitted_unet(fitted):
    return unet().fit(fitted[0].transform(make_slices(48, seed=7)))


def test_a_unet_finds_a_lesion_after_a_short_training(fitted, fitted_unet):
    lesions, masks = plant_lesions(make_slices(12, seed=2))
    scores = fitted_unet.decision_function(fitted[0].transform(lesions))
    inside = token_labels(masks, 4, rule="half")
    assert scores.shape == inside.shape
    assert roc_auc_score(inside.ravel(), scores.ravel()) > 0.8


@pytest.mark.numerics
def test_a_unet_scores_a_slice_alike_in_any_batch(fitted, fitted_unet):
    scans = fitted[0].transform(make_slices(9, seed=2))
    together = fitted_unet.decision_function(scans)
    alone = np.concatenate([fitted_unet.decision_function(scans[i : i + 1]) for i in range(9)])
    assert_same(together, alone)


def test_a_unet_can_be_saved_and_learns_random_tokens_too(fitted, fitted_unet, healthy, tmp_path):
    scans = fitted[0].transform(healthy)
    save_model(fitted_unet, tmp_path / "unet")
    loaded = load_model(tmp_path / "unet")
    np.testing.assert_array_equal(loaded.decision_function(scans), fitted_unet.decision_function(scans))
    detector = unet().set_params(corruption="random", training__max_iter=3).fit(scans)
    assert np.isfinite(detector.history_["loss"]).all()


def test_a_unet_that_is_told_to_be_a_transformer_stays_one_until_the_next_fit(fitted, fitted_unet, tmp_path):
    scans = fitted[0].transform(make_slices(3, seed=2))
    changed = copy.deepcopy(fitted_unet).set_params(network="transformer")
    save_model(changed, tmp_path / "unet")
    for detector in (changed, load_model(tmp_path / "unet")):
        np.testing.assert_array_equal(detector.decision_function(scans), fitted_unet.decision_function(scans))


def test_the_width_of_a_unet_need_not_suit_heads_but_its_levels_are_few(fitted, healthy):
    scans = fitted[0].transform(healthy)
    unet().set_params(width=6, n_heads=4, training__max_iter=1).fit(scans)
    with pytest.raises(InputError, match="depth must be an integer from 1 to 6"):
        unet().set_params(depth=12).fit(scans)


@pytest.mark.numerics
def test_a_unet_behind_the_inpainter_gives_what_the_plain_reading_gives(fitted, fitted_unet):
    slices = plant_lesions(make_slices(5, seed=2))[0]
    pipeline = Pipeline([("tokenizer", fitted[0]), ("detector", fitted_unet), ("inpainter", fitted[-1])])
    assert_same(pipeline.decision_function(slices), plain_maps(pipeline, slices))


def test_no_slices_are_refused(fitted, healthy):
    with pytest.raises(InputError, match="no slices"):
        fitted[1].decision_function(fitted[0].transform(healthy)[:0])


def test_an_unknown_network_is_refused(fitted, healthy):
    with pytest.raises(InputError, match="network must be one of"):
        build(AnomalousTokenDetector, network="mlp").fit(fitted[0].transform(healthy))
