import pickle

import numpy as np
import pytest
from conftest import build, make_slices, plant_lesions
from joblib import Parallel, delayed
from rounding import assert_same
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import Pipeline

from skmimood import VQTokenizer, load_model, save_model
from skmimood.detectors.intensity import IntensityThreshold
from skmimood.detectors.reverse_distillation import ReverseDistillation
from skmimood.detectors.zscore import HealthyZScore
from skmimood.exceptions import InputError, ModelLoadError, SkmimoodWarning
from skmimood.preprocessing.heads import eroded, head_masks
from skmimood.tokens.tokenizer_residual import TokenizerResidual

RIVALS = ["intensity", "zscore", "residual"]


@pytest.fixture(scope="module")
def rivals(healthy) -> dict[str, Pipeline]:
    """Return a fitted pipeline of each rival. Do not change them."""
    tokenizer = build(
        VQTokenizer, n_codes=16, code_dim=8, channels=16, channel_multipliers=(1, 2), augment=False, max_iter=60,
        learning_rate=3e-3, warmup_iter=10, validation_fraction=0.25, precision="float32", random_state=0,
    )  # fmt: skip
    steps = {
        "intensity": [("last", IntensityThreshold())],
        "zscore": [("last", HealthyZScore())],
        "residual": [("tokenizer", tokenizer), ("last", TokenizerResidual(validation_fraction=0.25))],
    }
    return {name: Pipeline(steps[name]).fit(healthy) for name in RIVALS}


@pytest.fixture
def rival(request, rivals) -> Pipeline:
    return rivals[request.param]


@pytest.fixture(scope="module")
def lesions():
    return plant_lesions(make_slices(12, seed=3))


def auroc(maps, masks) -> float:
    return roc_auc_score(masks.ravel(), maps.ravel())


@pytest.mark.parametrize("rival", RIVALS, indirect=True)
def test_a_planted_lesion_scores_higher_than_its_surroundings(rival, lesions):
    slices, masks = lesions
    maps = rival.decision_function(slices)
    assert auroc(maps, masks) > 0.9
    assert maps[masks].mean() > 2 * maps[~masks].mean()
    assert rival.score(slices, masks) > 5 * masks.mean()


@pytest.mark.parametrize("rival", RIVALS, indirect=True)
def test_maps_and_healed_slices_are_float32_of_the_shape_of_the_slices(rival, lesions):
    for result in (rival.decision_function(lesions[0]), rival.transform(lesions[0])):
        assert result.dtype == np.float32
        assert result.shape == lesions[0].shape
        assert result.min() >= 0


@pytest.mark.parametrize("rival", RIVALS, indirect=True)
def test_predict_marks_few_healthy_pixels(rival):
    assert rival.predict(make_slices(40, seed=4)).mean() < 0.04


def test_predict_finds_a_lesion_that_departs_from_the_mean(rivals, lesions):
    slices, truth = lesions
    masks = rivals["zscore"].predict(slices)
    assert masks[truth].mean() > 0.9
    assert masks[~truth].mean() < 0.05


@pytest.mark.numerics
@pytest.mark.parametrize("rival", RIVALS, indirect=True)
def test_no_result_depends_on_the_neighbours_of_a_sample(rival, lesions):
    slices = lesions[0]
    together = rival.decision_function(slices)
    alone = np.concatenate([rival.decision_function(slices[i : i + 1]) for i in range(len(slices))])
    assert_same(together, alone)


@pytest.mark.parametrize("rival", RIVALS, indirect=True)
def test_a_saved_rival_gives_the_same_maps_and_masks(rival, lesions, tmp_path):
    save_model(rival, tmp_path / "model")
    for loaded in (load_model(tmp_path / "model"), pickle.loads(pickle.dumps(rival))):
        np.testing.assert_array_equal(
            loaded.decision_function(lesions[0]), rival.decision_function(lesions[0])
        )
        np.testing.assert_array_equal(loaded.predict(lesions[0]), rival.predict(lesions[0]))
        assert loaded["last"].get_params() == rival["last"].get_params()


@pytest.mark.parametrize("rival", RIVALS, indirect=True)
def test_nothing_is_restored_from_a_file_that_is_incomplete(rival):
    arrays, values = rival["last"].__skmimood_state__()
    empty = clone(rival["last"])
    with pytest.raises(ModelLoadError, match="should have learnt"):
        empty.__skmimood_restore__(arrays, {"threshold_": 1.0})
    for name, array in arrays.items():
        for wrong in (array[..., :0], np.full_like(array, np.nan)):
            with pytest.raises(ModelLoadError, match=name):
                empty.__skmimood_restore__({name: wrong}, values)
    assert not hasattr(empty, "threshold_")


@pytest.mark.parametrize("rival", RIVALS, indirect=True)
def test_a_clone_keeps_the_parameters_and_forgets_what_was_learnt(rival, lesions):
    last = clone(rival["last"])
    assert last.get_params() == rival["last"].get_params()
    with pytest.raises(NotFittedError):
        last.decision_function(rival[:-1].transform(lesions[0]) if len(rival) > 1 else lesions[0])


@pytest.mark.parametrize("rival", RIVALS, indirect=True)
def test_samples_with_a_lesion_are_not_learnt_from(rival, healthy, lesions):
    mixed = np.concatenate([lesions[0], healthy])
    y = np.concatenate([lesions[1], np.zeros(healthy.shape, bool)])
    X = rival[:-1].transform(mixed) if len(rival) > 1 else mixed
    again = clone(rival["last"]).fit(X, y)
    assert again.threshold_ == rival["last"].threshold_


@pytest.mark.parametrize("rival", RIVALS, indirect=True)
def test_tags_say_that_input_is_three_dimensional(rival):
    tags = rival["last"].__sklearn_tags__()
    assert tags.input_tags.three_d_array
    assert not tags.input_tags.two_d_array


@pytest.mark.parametrize("rival", RIVALS, indirect=True)
def test_predict_warns_when_the_threshold_belongs_to_another_rate(rival, lesions):
    other = pickle.loads(pickle.dumps(rival)).set_params(last__fpr=0.2)
    with pytest.warns(SkmimoodWarning, match="calibrated with other"):
        other.predict(lesions[0])


@pytest.mark.parametrize(
    ("estimator", "parameter", "value"),
    [
        (IntensityThreshold, "equalize", "volume"), (IntensityThreshold, "bright", "yes"),
        (IntensityThreshold, "smoothing", -1.0), (IntensityThreshold, "smoothing", "much"),
        (ReverseDistillation, "smoothing", 1e6), (ReverseDistillation, "depth", 11),
        (IntensityThreshold, "erosion", 1.5), (IntensityThreshold, "fpr", 1.0),
        (HealthyZScore, "n_templates", 0), (HealthyZScore, "floor", 0.0), (HealthyZScore, "residual", "negative"),
    ],
)  # fmt: skip
def test_a_parameter_out_of_range_is_refused_by_name(healthy, estimator, parameter, value):
    with pytest.raises(InputError, match=f"{parameter} must be"):
        estimator(**{parameter: value}).fit(healthy)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("residual", "squared"), ("min_filter", 2), ("mean_filter", 0), ("validation_fraction", 1.0)],
)
def test_a_parameter_of_the_residual_out_of_range_is_refused_by_name(rivals, healthy, parameter, value):
    with pytest.raises(InputError, match=f"{parameter} must be"):
        TokenizerResidual(**{parameter: value}).fit(rivals["residual"][0].transform(healthy))


@pytest.mark.parametrize("estimator", [IntensityThreshold, HealthyZScore])
def test_slices_of_another_size_are_refused(healthy, estimator):
    with pytest.raises(InputError, match="32 x 32 pixels as in fit"):
        estimator().fit(healthy).decision_function(make_slices(2, size=40))


def test_a_grid_search_in_a_plain_pipeline_finds_the_better_sign(healthy):
    slices, masks = plant_lesions(healthy[:20])
    X, y = np.concatenate([healthy, slices]), np.concatenate([np.zeros(healthy.shape, bool), masks])
    split = PredefinedSplit(np.repeat([-1, 0], [len(healthy), len(slices)]))
    search = GridSearchCV(
        Pipeline([("intensity", IntensityThreshold())]), {"intensity__bright": [False, True]}, cv=split, n_jobs=1
    )  # fmt: skip
    assert search.fit(X, y).best_params_ == {"intensity__bright": True}


@pytest.mark.numerics
def test_rivals_run_in_parallel(rivals, lesions):
    last = rivals["zscore"]
    maps = Parallel(n_jobs=2, prefer="threads")(
        delayed(last.decision_function)(part) for part in np.split(lesions[0], 2)
    )
    assert_same(np.concatenate(maps), last.decision_function(lesions[0]))


# Intensity


@pytest.mark.parametrize("equalize", ["slice", "training", "none"])
def test_equalisation_keeps_the_order_of_the_pixels_of_a_slice(healthy, equalize):
    intensity = IntensityThreshold(equalize=equalize).fit(healthy)
    head = head_masks(healthy[:1])[0]
    scores = intensity.decision_function(healthy[:1])[0][head]
    assert (np.diff(scores[np.argsort(healthy[0][head], kind="stable")]) >= 0).all()
    assert len(np.unique(scores)) > 5


def test_equalisation_against_the_training_slices_makes_scores_uniform(healthy):
    intensity = IntensityThreshold(equalize="training").fit(healthy)
    scores = intensity.decision_function(healthy)[head_masks(healthy)]
    np.testing.assert_allclose(np.quantile(scores, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.05)


def test_equalisation_of_each_slice_forgives_a_change_of_contrast(healthy):
    slices, _ = plant_lesions(make_slices(4), value=0.95)
    maps = {
        equalize: IntensityThreshold(equalize=equalize).fit(healthy).decision_function
        for equalize in ("slice", "training")
    }
    change = {name: np.abs(score(slices) - score(slices**0.8)).mean() for name, score in maps.items()}
    assert change["slice"] < 0.1 * change["training"]


def test_dark_lesions_are_found_when_dark_is_anomalous(healthy):
    slices, masks = plant_lesions(make_slices(12, seed=3), value=0.0)
    intensity = IntensityThreshold().fit(healthy)
    assert auroc(intensity.decision_function(slices), masks) < 0.5
    assert auroc(intensity.set_params(bright=False).decision_function(slices), masks) > 0.9


@pytest.mark.parametrize("bright", [True, False])
def test_erosion_zeroes_the_rim_and_nothing_else(healthy, bright):
    intensity = IntensityThreshold(bright=bright).fit(healthy)
    whole = intensity.decision_function(healthy)
    inner = intensity.set_params(erosion=3).decision_function(healthy)
    inside = eroded(head_masks(healthy), 3)
    assert 0 < inside.sum() < head_masks(healthy).sum()
    np.testing.assert_array_equal(inner, whole * inside)


def test_smoothing_lowers_the_score_of_a_speck_more_than_that_of_a_lesion(healthy):
    slices, masks = plant_lesions(make_slices(4, seed=3))
    slices[:, 22, 12] = 1.0
    maps = IntensityThreshold(smoothing=1.5).fit(healthy).decision_function(slices)
    assert maps[:, 22, 12].max() < maps[masks].mean()


def test_the_healed_slices_of_the_threshold_are_the_slices(rivals, lesions):
    np.testing.assert_array_equal(rivals["intensity"].transform(lesions[0]), lesions[0])


def test_a_head_is_found_in_noise_with_its_holes_and_without_specks():
    rng = np.random.default_rng(0)
    clean = make_slices(3, size=64)
    noisy = np.maximum(clean, 0.06 * rng.random(clean.shape)).astype(np.float32)
    noisy[:, 1:3, 1:3] = 0.5  # a speck
    noisy[:, 20:24, 30:34] = 0.0  # a hole
    np.testing.assert_array_equal(head_masks(noisy), clean > 0)


def test_both_halves_of_a_brain_in_two_parts_belong_to_it():
    halves = np.zeros((1, 32, 32), np.float32)
    halves[:, 4:28, 4:14] = halves[:, 8:20, 18:24] = 0.5
    np.testing.assert_array_equal(head_masks(halves), halves > 0)


def test_an_empty_slice_scores_nothing(rivals):
    empty = np.zeros((1, 32, 32), np.float32)
    for name in ("intensity", "zscore"):
        assert rivals[name].decision_function(empty).max() == 0


# z-score


def two_levels(n_samples: int, seed: int) -> np.ndarray:
    """Slices of two levels of a head: every second one is of the upper, which is smaller and has no dark centre."""
    slices = make_slices(n_samples, seed)
    upper = np.pad(make_slices(n_samples // 2, seed, size=20), ((0, 0), (6, 6), (6, 6)))
    slices[::2] = np.where((upper > 0) & (upper < 0.3), 0.45, upper)
    return slices


def test_templates_tell_levels_apart():
    upper = two_levels(12, seed=5)[::2]
    upper[:, 14:18, 14:18] = 0.15  # as dark as the centre of the lower level, and there alone healthy
    one, two = (
        HealthyZScore(n_templates=n, random_state=0).fit(two_levels(64, seed=1)).decision_function(upper)
        for n in (1, 2)
    )
    assert one[:, 14:18, 14:18].mean() < 2
    assert two[:, 14:18, 14:18].mean() > 5


def test_the_score_is_the_distance_to_the_mean_in_standard_deviations(healthy):
    zscore = HealthyZScore(floor=1e-6).fit(healthy)
    mean, deviation = healthy.mean(0, dtype=float), healthy.std(0, dtype=float)
    expected = np.abs(healthy[:, 16, 16] - mean[16, 16]) / deviation[16, 16]
    np.testing.assert_allclose(zscore.decision_function(healthy)[:, 16, 16], expected, rtol=1e-3)
    heads = head_masks(healthy)
    np.testing.assert_allclose(
        zscore.map_and_restore(healthy)[1], np.where(heads, mean, healthy), rtol=1e-5, atol=1e-7
    )


def test_the_floor_bounds_the_score_where_healthy_slices_agree(healthy):
    same = np.repeat(healthy[:1], 4, axis=0)
    slices, masks = plant_lesions(healthy[:1])
    maps = HealthyZScore(floor=0.1).fit(same).decision_function(slices)
    np.testing.assert_allclose(maps[masks], (slices - healthy[:1])[masks] / 0.1, rtol=1e-4)


def test_the_positive_residual_ignores_what_is_darker_than_the_mean(healthy):
    slices, masks = plant_lesions(make_slices(4, seed=3), value=0.0)
    zscore = HealthyZScore().fit(healthy)
    assert zscore.decision_function(slices)[masks].mean() > 2
    assert zscore.set_params(residual="positive").decision_function(slices)[masks].max() == 0


def test_more_templates_than_slices_are_refused(healthy):
    with pytest.raises(InputError, match="n_templates=5 groups cannot be made of 4"):
        HealthyZScore(n_templates=5).fit(healthy[:4])


# Residual of the tokenizer


def test_the_residual_is_that_of_the_decoded_tokens(rivals, lesions):
    pipeline = clone(rivals["residual"]["last"]).set_params(min_filter=1, mean_filter=1)
    scans = rivals["residual"][0].transform(lesions[0])
    pipeline.fit(scans)
    decoded = scans.tokenizer.inverse_transform(scans)
    heads = head_masks(lesions[0])
    np.testing.assert_array_equal(pipeline.map_and_restore(scans)[1][heads], decoded[heads])
    np.testing.assert_allclose(pipeline.decision_function(scans), np.abs(lesions[0] - decoded), atol=1e-6)
    positive = pipeline.set_params(residual="positive").decision_function(scans)
    np.testing.assert_allclose(positive, np.maximum(lesions[0] - decoded, 0), atol=1e-6)


def test_plain_images_are_refused_with_a_way_out(healthy):
    with pytest.raises(InputError, match="output of VQTokenizer"):
        TokenizerResidual().fit(healthy)
