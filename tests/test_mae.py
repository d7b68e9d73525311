import pickle

import numpy as np
import pytest
import torch
from conftest import build, make_slices, plant_lesions
from rounding import assert_same
from scipy import ndimage
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from skmimood import load_model, persistence, save_model
from skmimood.detectors import masked_autoencoder as mae
from skmimood.detectors import pseudo_abnormal
from skmimood.detectors.masked_autoencoder import MaskedAutoencoderDetector
from skmimood.detectors.pseudo_abnormal import crop_and_mirror, darken_boxes
from skmimood.exceptions import InputError, SkmimoodWarning
from skmimood.networks.mae import to_images, to_patches
from skmimood.preprocessing.heads import eroded, head_masks


def small(**parameters) -> MaskedAutoencoderDetector:
    """Return a detector with networks that train in seconds."""
    common = {
        "patch_size": 4, "depth": 2, "width": 32, "n_heads": 2, "decoder_depth": 1, "decoder_width": 32,
        "decoder_n_heads": 2, "batch_size": 16, "learning_rate": 5e-3, "classifier_learning_rate": 2e-3,
        "warmup_iter": 10, "max_iter": 2, "classifier_max_iter": 2, "validation_fraction": 0.25, "random_state": 0,
        "precision": "float32",
    }  # fmt: skip
    return build(MaskedAutoencoderDetector, **common | parameters)


@pytest.fixture(scope="module")
def trained() -> MaskedAutoencoderDetector:
    """Return a detector trained enough to tell a lesion. Do not change it."""
    return small(max_iter=120, classifier_max_iter=150, augment=False).fit(make_slices(64))


@pytest.fixture(scope="module")
def healthy() -> np.ndarray:
    return make_slices(24)


@pytest.fixture(scope="module")
def lesions():
    return plant_lesions(make_slices(12, seed=3), value=0.0)


@pytest.fixture
def changeable(trained) -> MaskedAutoencoderDetector:
    return pickle.loads(pickle.dumps(trained))


@pytest.fixture
def n_trainings(monkeypatch) -> list[str]:
    """Return a list that grows by the name of each network that is trained."""
    names = []
    for module in (mae, pseudo_abnormal):

        def count(network, *arguments, _train=module.train, **keywords):
            names.append(type(network).__name__)
            return _train(network, *arguments, **keywords)

        monkeypatch.setattr(module, "train", count)
    return names


def weights(detector, part):
    return {name: array for name, array in detector.state_.items() if name.startswith(part)}


def assert_same_weights(first, second, part=""):
    first, second = weights(first, part), weights(second, part)
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])


def test_hidden_patches_are_predicted_better_than_by_the_mean(trained):
    slices = torch.from_numpy(make_slices(12, seed=3))
    network, visible = trained._networks()
    with torch.inference_mode():
        error = (network.autoencoder.reconstruct(slices, visible[:1])[:, 0] - slices).square()
    hidden = error > 0
    assert 0.5 < hidden.float().mean() < 0.8
    assert error[hidden].mean() < 0.3 * slices[hidden].var()


def test_visible_patches_are_pasted_back(trained, lesions):
    slices = torch.from_numpy(lesions[0])
    network, visible = trained._networks()
    with torch.inference_mode():
        patches, trials = to_patches(slices, 4), network.autoencoder.reconstruct(slices, visible)
    assert visible.shape == (4, 16)  # a quarter of 64 patches
    assert len({tuple(sorted(seen)) for seen in visible.tolist()}) == 4
    for trial, seen in zip(trials.unbind(1), visible, strict=True):
        torch.testing.assert_close(to_patches(trial, 4)[:, seen], patches[:, seen], rtol=0, atol=0)


def test_the_map_is_the_residual_of_the_trials_that_hide_a_pixel(trained, changeable, lesions):
    slices = lesions[0]
    network, visible = trained._networks()
    with torch.inference_mode(), trained._autocast():
        trials = network.autoencoder.reconstruct(torch.from_numpy(slices), visible).numpy()
    hidden = np.ones((4, 64))
    np.put_along_axis(hidden, visible.numpy(), 0, 1)
    share = hidden.mean(0).reshape(8, 8).repeat(4, 0).repeat(4, 1)
    expected = np.abs(slices[:, None] - trials).mean(1) / np.maximum(share, 0.25)
    maps, restored = changeable.set_params(min_filter=1, mean_filter=1).map_and_restore(slices)
    np.testing.assert_allclose(maps, expected, atol=5e-3)
    np.testing.assert_allclose(restored, np.where(head_masks(slices), trials.mean(1), slices), atol=5e-3)
    assert restored.min() >= 0
    assert restored.max() <= 1


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_planted_lesion_scores_higher_than_its_surroundings(trained, value):
    slices, masks = plant_lesions(make_slices(12, seed=3), value)
    maps = trained.decision_function(slices)
    assert maps.dtype == np.float32
    assert roc_auc_score(masks.ravel(), maps.ravel()) > 0.95


def test_the_positive_residual_sees_bright_lesions_only(changeable, lesions):
    dark, masks = lesions
    bright, _ = plant_lesions(make_slices(12, seed=3))
    changeable.set_params(residual="positive", min_filter=1, mean_filter=1)
    dark_maps, bright_maps = (changeable.decision_function(slices)[masks] for slices in (dark, bright))
    assert dark_maps.mean() < 0.02 < 0.2 < bright_maps.mean()


def test_maps_can_leave_out_the_scalp_and_specks(changeable, lesions):
    slices = lesions[0]
    maps = changeable.set_params(min_filter=1, mean_filter=1).decision_function(slices)
    inside = eroded(head_masks(slices), 3)
    cleared = changeable.set_params(erosion=3).decision_function(slices)
    np.testing.assert_array_equal(cleared, maps * inside)
    smooth = changeable.set_params(median_filter=3).decision_function(slices)
    np.testing.assert_array_equal(smooth, ndimage.median_filter(maps * inside, (1, 3, 3)))


def test_slices_with_dark_boxes_score_higher_than_healthy_ones(trained, lesions):
    healthy = make_slices(40, seed=3)
    boxes = plant_lesions(healthy, value=0.0)[0]
    scores = trained.score_samples(np.concatenate([healthy, boxes]))
    assert scores.dtype == np.float64
    assert 0 <= scores.min() <= scores.max() <= 1
    assert roc_auc_score(np.arange(80) >= 40, scores) > 0.9


@pytest.mark.numerics
@pytest.mark.parametrize("batch_size", [1, 3, 7, 32])
def test_no_result_depends_on_the_batch_size(trained, changeable, lesions, batch_size):
    changeable.set_params(training__batch_size=batch_size)
    for method in ("decision_function", "transform", "score_samples"):
        expected = getattr(trained, method)(lesions[0])
        assert_same(getattr(changeable, method)(lesions[0]), expected)


@pytest.mark.numerics
@pytest.mark.parametrize("method", ["decision_function", "score_samples"])
def test_no_result_depends_on_the_neighbours_of_a_sample(trained, lesions, method):
    slices, score = lesions[0], getattr(trained, method)
    together = score(slices)
    assert_same(together, np.concatenate([score(slices[i : i + 1]) for i in range(len(slices))]))
    assert_same(together[::-1], score(slices[::-1]))


def test_predict_marks_about_fpr_of_healthy_pixels_and_finds_the_lesion(trained, lesions):
    assert trained.predict(make_slices(40, seed=4)).mean() < 0.04
    slices, truth = lesions
    masks = trained.predict(slices)
    assert masks[truth].mean() > 5 * masks[~truth].mean()


def test_predict_warns_when_the_threshold_belongs_to_other_parameters(changeable, lesions):
    with pytest.warns(SkmimoodWarning, match="calibrated with other"):
        changeable.set_params(n_trials=2).predict(lesions[0])


def test_the_masks_of_fewer_trials_are_a_prefix_of_those_of_more(trained):
    network, four = trained._networks()
    eight = pseudo_abnormal.visible_patches(network.autoencoder, 8, trained.seed_)
    torch.testing.assert_close(eight[:4], four)


def test_the_mask_ratio_is_that_of_the_training(changeable, lesions):
    before = changeable.decision_function(lesions[0])
    np.testing.assert_array_equal(changeable.set_params(mask_ratio=0.5).decision_function(lesions[0]), before)


def test_the_same_seed_gives_the_same_weights_and_another_one_others(healthy):
    first, second, other = (small(random_state=seed).fit(healthy) for seed in (0, 0, 1))
    assert_same_weights(first, second)
    np.testing.assert_array_equal(first.score_samples(healthy), second.score_samples(healthy))
    for part in ("autoencoder", "classifier"):
        assert any(
            (weights(first, part)[name] != array).any() for name, array in weights(other, part).items()
        )
    assert (first._networks()[1] != other._networks()[1]).any()


def test_the_history_tells_of_both_trainings(trained):
    assert trained.n_iter_ == 270
    assert len(trained.history_["loss"]) == 120
    assert len(trained.history_["classifier_loss"]) == 150
    assert trained.history_["classifier_validation_loss"].min() < 0.67  # that of chance is ln 2


def test_the_classifier_starts_from_the_encoder(healthy):
    """With a rate that changes nothing, the two encoders stay the same."""
    detector = small(classifier_learning_rate=1e-30).fit(healthy)
    for name, array in weights(detector, "autoencoder.encoder").items():
        np.testing.assert_array_equal(detector.state_[name.replace("autoencoder", "classifier", 1)], array)


def test_samples_with_lesions_are_dropped(healthy):
    slices, masks = plant_lesions(healthy)
    mixed, y = np.concatenate([healthy, slices[:9]]), np.concatenate([masks & False, masks[:9]])
    assert_same_weights(small().fit(mixed, y), small().fit(healthy))


def test_other_parameters_of_the_classifier_train_the_classifier_alone(healthy, tmp_path, n_trainings):
    detector = small(memory=str(tmp_path))
    first = clone(detector).fit(healthy)
    assert n_trainings == ["MaskedAutoencoder", "ResidualClassifier"]
    second = clone(detector).set_params(classifier_max_iter=3, drop_path=0.2, n_trials=2).fit(healthy)
    assert n_trainings == ["MaskedAutoencoder", "ResidualClassifier", "ResidualClassifier"]
    assert_same_weights(first, second, "autoencoder")
    again = clone(detector).set_params(min_filter=1, residual="positive", fpr=0.1).fit(healthy)
    assert len(n_trainings) == 3
    assert_same_weights(first, again)


def test_a_grid_search_over_filters_trains_once_a_fold(healthy, tmp_path, n_trainings):
    slices, masks = plant_lesions(healthy)
    pipeline = Pipeline([("detector", small(memory=str(tmp_path)))])
    X, y = np.concatenate([healthy, slices[:8]]), np.concatenate([masks & False, masks[:8]])
    order = np.random.default_rng(0).permutation(len(X))
    search = GridSearchCV(pipeline, {"detector__min_filter": [1, 3]}, cv=2).fit(X[order], y[order])
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert len(n_trainings) == 6  # two networks for each of two folds and for all slices


def test_a_saved_model_gives_the_same_maps_and_scores(trained, lesions, tmp_path, monkeypatch):
    monkeypatch.setitem(persistence.ESTIMATORS, "MaskedAutoencoderDetector", mae.__name__)
    save_model(trained, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    for method in ("predict", "decision_function", "score_samples"):
        np.testing.assert_array_equal(
            getattr(loaded, method)(lesions[0]), getattr(trained, method)(lesions[0])
        )


def test_a_clone_has_the_parameters_and_nothing_learnt(trained):
    copy = clone(trained)
    assert copy.get_params() == trained.get_params()
    assert not [name for name in vars(copy) if name.endswith("_")]


def test_a_fit_that_ends_between_the_trainings_leaves_no_fitted_detector(healthy, monkeypatch):
    def interrupt(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(pseudo_abnormal, "train", interrupt)
    detector = small()
    with pytest.raises(KeyboardInterrupt):
        detector.fit(healthy)
    assert not detector.__sklearn_is_fitted__()


@pytest.mark.parametrize("shape", [(30, 37), (32, 20)])
def test_sides_need_not_be_multiples_of_the_patch(shape):
    slices = np.random.default_rng(0).random((8, *shape), np.float32)
    detector = small().fit(slices)
    maps, healed = detector.detect(slices)
    assert maps.shape == healed.shape == slices.shape
    assert np.isfinite(maps).all()
    assert detector.score_samples(slices).shape == (8,)


def test_patches_and_images_are_inverse():
    images = torch.rand(3, 30, 37, generator=torch.Generator().manual_seed(0))
    patches = to_patches(images, 4)
    assert patches.shape == (3, 8 * 10, 16)
    torch.testing.assert_close(patches[:, 11].view(3, 4, 4), images[:, 4:8, 4:8])
    torch.testing.assert_close(to_images(patches, 4, (30, 37)), images)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("patch_size", 0), ("mask_ratio", 1.0), ("n_trials", 0), ("residual", "squared"), ("min_filter", 2),
        ("mean_filter", 0), ("fpr", 1.0), ("depth", 0), ("decoder_depth", 0),
        ("decoder_width", 33), ("drop_path", 1.0), ("classifier_max_iter", 0), ("classifier_learning_rate", 0.0),
        ("width", 31), ("max_iter", 1.5), ("mask_ratio", "most"),
    ],
)  # fmt: skip
def test_a_parameter_out_of_range_is_refused_by_name(healthy, parameter, value):
    with pytest.raises(InputError, match=parameter):
        small(**{parameter: value}).fit(healthy)


def test_images_of_less_than_four_patches_are_refused(healthy):
    with pytest.raises(InputError, match="1 x 1 patches of 32 pixels; at least 4"):
        small(patch_size=32).fit(healthy)


def test_images_of_another_size_are_refused(trained):
    for method in (trained.detect, trained.score_samples):
        with pytest.raises(InputError, match="32 x 32 pixels as in fit"):
            method(np.zeros((1, 32, 36)))


def test_boxes_only_darken_and_leave_the_original_alone():
    images = np.full((200, 224, 224), 0.8, np.float32)
    darkened = darken_boxes(images, np.random.default_rng(0))
    assert (images == np.float32(0.8)).all()
    changed = darkened != images
    assert (darkened <= images).all()
    assert changed.any((1, 2)).all()
    # 1 to 9 boxes, 5 on average, of 10 to 39 pixels a side, of which some overlap.
    assert changed.sum((1, 2)).min() >= 100
    assert changed.sum((1, 2)).max() <= 9 * 39**2
    assert 0.8 * 5 * 24.5**2 < changed.sum((1, 2)).mean() < 5 * 24.5**2
    assert changed.any(0)[[0, -1]].any(1).all()  # up to the border
    assert changed.any(0).mean() > 0.9  # anywhere


def test_boxes_have_the_proportions_of_the_image():
    images = np.ones((300, 64, 128), np.float32)
    changed = darken_boxes(images, np.random.default_rng(0)) < 1
    heights, widths = changed.any(2).sum(1), changed.any(1).sum(1)
    assert heights.min() == 3  # 10 / 224 of 64
    assert widths.min() == 6  # 10 / 224 of 128


def test_a_crop_is_most_of_the_image_and_mirrored_half_the_time():
    ramp = torch.linspace(0, 1, 64).expand(400, 64, 64)
    crops = crop_and_mirror(ramp, torch.Generator().manual_seed(0))
    rise = crops[:, 32, -1] - crops[:, 32, 0]
    assert 0.4 < (rise < 0).float().mean() < 0.6
    assert rise.abs().min() > 0.7
    assert rise.abs().max() > 0.97
    assert (crops.std(1).amax(1) < 1e-5).all()  # rows stay rows
