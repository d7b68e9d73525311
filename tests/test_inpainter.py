import copy

import numpy as np
import pytest
import torch
from conftest import build, make_slices, plant_lesions
from rounding import assert_same
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.pipeline import Pipeline

from skmimood import MaskedTokenInpainter, load_model, save_model
from skmimood.exceptions import InputError, SkmimoodWarning
from skmimood.maps.residuals import upsample
from skmimood.preprocessing.heads import eroded, head_masks
from skmimood.tokens.background import mark_background
from skmimood.tokens.inpainter import train_token_inpainter
from skmimood.training.loop import Runtime
from skmimood.training.parameters import Training


@pytest.fixture(scope="module")
def lesions():
    return plant_lesions(make_slices(12, seed=3))


def test_a_planted_lesion_scores_higher_than_its_surroundings(fitted, lesions):
    slices, masks = lesions
    maps = fitted.decision_function(slices)
    assert roc_auc_score(masks.ravel(), maps.ravel()) > 0.9
    assert average_precision_score(masks.ravel(), maps.ravel()) > 5 * masks.mean()


def test_healing_brings_a_lesion_back_towards_healthy_tissue(fitted, lesions):
    slices, masks = lesions
    healthy = make_slices(12, seed=3)
    healed = fitted.transform(slices)
    assert np.abs(healed - healthy)[masks].mean() < 0.5 * np.abs(slices - healthy)[masks].mean()


def test_maps_lie_between_0_and_1_in_float32(fitted, lesions):
    maps = fitted.decision_function(lesions[0])
    assert maps.dtype == np.float32
    assert maps.shape == lesions[0].shape
    assert 0 <= maps.min() <= maps.max() <= 1


def test_predict_marks_about_fpr_of_healthy_pixels(fitted):
    masks = fitted.predict(make_slices(40, seed=4))
    assert masks.dtype == bool
    assert masks.mean() < 0.04


def test_predict_finds_the_lesion(fitted, lesions):
    slices, truth = lesions
    masks = fitted.predict(slices)
    assert masks[truth].mean() > 0.9
    # The filters of the maps leave a rim around a lesion.
    assert masks[truth].mean() > 3 * masks[~truth].mean()


def test_score_is_the_average_precision_over_pixels(fitted, lesions):
    slices, masks = lesions
    expected = average_precision_score(masks.ravel(), fitted.decision_function(slices).ravel())
    assert fitted.score(slices, masks) == pytest.approx(expected)


def test_restore_returns_every_restoration(fitted, lesions):
    scans = fitted[:-1].transform(lesions[0])
    restored = fitted[-1].restore(scans)
    assert restored.shape == (12, 2, 8, 8)
    changed = (restored != scans.tokens[:, None]).any(1)
    assert (scans.anomaly[changed] > 0).all()
    assert changed.any()


@pytest.mark.numerics
def test_fewer_restorations_are_a_prefix_of_more(fitted, lesions):
    scans, inpainter = fitted[:-1].transform(lesions[0]), fitted[-1]
    try:
        two = inpainter.restore(scans)
        four = inpainter.set_params(n_restorations=4).restore(scans)
    finally:
        inpainter.set_params(n_restorations=2)
    assert_same(two, four[:, :2])


def test_nothing_changes_when_no_token_exceeds_the_threshold(fitted, lesions):
    try:
        fitted.set_params(detector__threshold=1.0)
        scans = fitted[:-1].transform(lesions[0])
        restored = fitted[-1].restore(scans)
        maps, healed = fitted[-1].detect(scans)
    finally:
        fitted.set_params(detector__threshold=0.2)
    np.testing.assert_array_equal(restored, np.repeat(scans.tokens[:, None], 2, axis=1))
    nothing = maps <= fitted[-1].threshold_
    np.testing.assert_array_equal(healed[nothing], lesions[0][nothing])


@pytest.mark.numerics
@pytest.mark.parametrize("batch_size", [1, 3, 7, 32])
def test_no_result_depends_on_the_batch_size(fitted, lesions, batch_size):
    expected = fitted.decision_function(lesions[0])
    original = {
        name: fitted.get_params()[name] for name in fitted.get_params() if name.endswith("batch_size")
    }
    try:
        maps = fitted.set_params(**dict.fromkeys(original, batch_size)).decision_function(lesions[0])
    finally:
        fitted.set_params(**original)
    assert_same(maps, expected)


@pytest.mark.numerics
def test_no_result_depends_on_the_neighbours_of_a_sample(fitted, lesions):
    slices = lesions[0]
    together = fitted.decision_function(slices)
    alone = np.concatenate([fitted.decision_function(slices[i : i + 1]) for i in range(len(slices))])
    assert_same(together, alone)
    assert_same(together[::-1], fitted.decision_function(slices[::-1]))


@pytest.mark.parametrize("combination", ["similarity", "mean", "median", "min"])
def test_every_combination_of_restorations_finds_the_lesion(fitted, lesions, combination):
    slices, masks = lesions
    try:
        maps = fitted.set_params(inpainter__maps__combination=combination).decision_function(slices)
    finally:
        fitted.set_params(inpainter__maps__combination="similarity")
    assert roc_auc_score(masks.ravel(), maps.ravel()) > 0.85


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("maps__combination", "best"), ("maps__min_filter", 2),
        ("maps__mean_filter", 0),
        ("n_steps", 0), ("n_restorations", 1.5), ("temperature", 0.0), ("fpr", 1.0),
    ],
)  # fmt: skip
def test_an_inference_parameter_out_of_range_is_refused_by_name(fitted, lesions, parameter, value):
    original = fitted[-1].get_params()[parameter]
    try:
        fitted[-1].set_params(**{parameter: value})
        with pytest.raises(InputError, match=parameter.rpartition("__")[2]):
            fitted.decision_function(lesions[0])
    finally:
        fitted[-1].set_params(**{parameter: original})


def test_predict_warns_when_the_threshold_belongs_to_other_parameters(fitted, lesions):
    try:
        fitted.set_params(inpainter__n_steps=1)
        with pytest.warns(SkmimoodWarning, match="calibrated with other"):
            fitted.predict(lesions[0])
    finally:
        fitted.set_params(inpainter__n_steps=2)


def test_predict_warns_when_the_threshold_belongs_to_another_rate(fitted, lesions):
    try:
        fitted.set_params(inpainter__fpr=0.2)
        with pytest.warns(SkmimoodWarning, match="calibrated with other"):
            fitted.predict(lesions[0])
    finally:
        fitted.set_params(inpainter__fpr=0.01)


def test_calibrating_on_the_training_slices_is_warned_about(quick_pipeline, healthy):
    with pytest.warns(SkmimoodWarning, match="none were held out"):
        quick_pipeline.set_params(inpainter__training__validation_fraction=0.0).fit(healthy)


def test_tokens_of_another_grid_are_refused(fitted):
    scans = fitted[:-1].transform(make_slices(2))
    import dataclasses

    other = dataclasses.replace(scans, tokens=scans.tokens[:, :4], anomaly=scans.anomaly[:, :4])
    for step in fitted[1:]:
        with pytest.raises(InputError, match="8 x 8 tokens a slice as in fit"):
            step.decision_function(other)


def test_scans_that_passed_no_detector_are_refused(fitted, healthy):
    with pytest.raises(InputError, match="has not passed a token detector"):
        fitted[-1].restore(fitted[0].transform(healthy))


def test_the_last_score_is_never_anomalous_when_a_restoration_ended_early(fitted, lesions):
    """A restoration leaves the batch only once no token exceeds the threshold."""
    try:
        fitted.set_params(inpainter__n_steps=30)
        scans = fitted[:-1].transform(lesions[0])
        more = fitted[-1].restore(scans)
        fitted.set_params(inpainter__n_steps=31)
        most = fitted[-1].restore(scans)
    finally:
        fitted.set_params(inpainter__n_steps=2)
    import torch

    scores = fitted[1].score_tensor(torch.from_numpy(more).flatten(0, 1)).unflatten(0, (12, 2)).numpy()
    settled = (scores <= 0.2).all((2, 3))
    assert settled.any()
    np.testing.assert_array_equal(more[settled], most[settled])


def variant(fitted, **parameters):
    """Return the fitted pipeline with other inference parameters of its last step."""
    return Pipeline([*fitted.steps[:-1], ("inpainter", copy.deepcopy(fitted[-1]).set_params(**parameters))])


def test_the_positive_residual_finds_bright_lesions_alone(fitted):
    healthy = make_slices(12, seed=3)
    positive = variant(fitted, maps__residual="positive")
    bright, masks = plant_lesions(healthy, value=1.0)
    dark, _ = plant_lesions(healthy, value=0.02)
    assert roc_auc_score(masks.ravel(), positive.decision_function(bright).ravel()) > 0.9
    assert positive.decision_function(dark)[masks].mean() < 0.5 * fitted.decision_function(dark)[masks].mean()


@pytest.mark.parametrize("weight", ["changed", "anomaly"])
def test_a_weighted_residual_is_the_residual_times_what_is_suspected_of_the_token(fitted, lesions, weight):
    unfiltered = {"maps__min_filter": 1, "maps__mean_filter": 1}
    scans = fitted[:-1].transform(lesions[0])
    changed = (fitted[-1].restore(scans) != scans.tokens[:, None]).mean(1)
    suspicion = {"changed": changed, "anomaly": scans.anomaly}[weight].astype(np.float32)
    plain = variant(fitted, **unfiltered).decision_function(lesions[0])
    weighted = variant(fitted, maps__residual_weight=weight, maps__weight_power=0.5, **unfiltered)
    factor = upsample(torch.from_numpy(suspicion), 4, (32, 32)).numpy() ** 0.5
    np.testing.assert_allclose(weighted.decision_function(lesions[0]), plain * factor, atol=1e-6)


def test_erosion_leaves_out_the_surface_of_the_head(fitted, lesions):
    maps = variant(fitted, maps__erosion=3).decision_function(lesions[0])
    inside = eroded(head_masks(lesions[0]), 3)
    assert maps[~inside].max() == 0
    np.testing.assert_array_equal(maps[inside], fitted.decision_function(lesions[0])[inside])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("maps__residual", "negative"), ("maps__residual_weight", "detector"), ("maps__weight_power", 0),
        ("maps__erosion", -1),
    ],
)  # fmt: skip
def test_a_wrong_choice_of_how_maps_are_made_is_named(fitted, lesions, name, value):
    with pytest.raises(InputError, match=f"{name.replace('__', ': ')} must be"):
        variant(fitted, **{name: value}).decision_function(lesions[0])


@pytest.fixture(scope="module")
def with_unet(fitted, healthy):
    """Return the fitted pipeline with a U-Net as in-painter, which leaves tokens off the head as they are."""
    unet = build(
        MaskedTokenInpainter, n_steps=2, n_restorations=2, network="unet", depth=2, width=16, skip_background=True,
        random_state=0, max_iter=60, warmup_iter=10, learning_rate=2e-3, batch_size=16,
    )  # fmt: skip
    return Pipeline([*fitted.steps[:-1], ("inpainter", unet.fit(fitted[:-1].transform(healthy)))])


def test_a_unet_heals_lesions_and_leaves_what_is_off_the_head(with_unet, lesions):
    slices, masks = lesions
    healthy = make_slices(12, seed=3)
    healed = with_unet.transform(slices)
    assert np.abs(healed - healthy)[masks].mean() < 0.5 * np.abs(slices - healthy)[masks].mean()
    scans = with_unet[:-1].transform(slices)
    off_head = mark_background(torch.from_numpy(scans.tokens), slices, 4).numpy() < 0
    changed = (with_unet[-1].restore(scans) != scans.tokens[:, None]).any(1)
    assert changed.any()
    assert off_head.any()
    assert not changed[off_head].any()


def test_a_unet_maps_a_slice_alike_in_any_batch_and_once_saved(with_unet, lesions, tmp_path):
    together = with_unet.decision_function(lesions[0])
    alone = np.concatenate([with_unet.decision_function(one[None]) for one in lesions[0]])
    assert_same(together, alone)
    save_model(with_unet, tmp_path / "model")
    np.testing.assert_array_equal(load_model(tmp_path / "model").decision_function(lesions[0]), together)


def test_a_unet_learns_in_few_steps_what_stands_beside_what():
    # All tokens of a slice are the same, so that one that is visible tells those that are hidden.
    tokens = np.tile(np.arange(64)[:, None, None, None] % 8, (1, 1, 8, 8))
    config = {"n_inputs": 9, "n_outputs": 8, "grid": [8, 8], "code_dim": 8, "widths": [16, 32]}
    learnt = train_token_inpainter(
        tokens=tokens, codes=np.eye(8, dtype=np.float32), config=config, mask_generator="brush", seed=0,
        recipe=Training(max_iter=60, warmup_iter=5, learning_rate=5e-3), runtime=Runtime("test", "cpu"),
    )  # fmt: skip
    assert learnt["history"]["validation_loss"].min() < 0.25 * np.log(8)
