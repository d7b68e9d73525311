"""Slices of several channels: registered modalities of the same heads in one model."""

import numpy as np
import pytest
from conftest import build, make_slices, small_steps
from sklearn.pipeline import make_pipeline

from skmimood import SliceStandardizer, baselines, load_model, make_mimood_pipeline, save_model
from skmimood.datasets import make_brain_phantom
from skmimood.estimators import ESTIMATORS, load_estimator
from skmimood.exceptions import InputError
from skmimood.maps.base import BasePixelDetector
from skmimood.preprocessing.heads import have_heads, head_masks
from skmimood.tokens.base import TokenStep
from skmimood.tokens.tokenizer_residual import TokenizerResidual
from skmimood.training.painted_anomalies import paint_anomalies


def two_contrasts(n_samples, seed=0):
    """Return T1- and T2-weighted slices of the same brains, (n, 2, 32, 32)."""
    contrasts = [
        make_brain_phantom(n_samples, size=32, modality=name, random_state=seed)[0] for name in ("t1", "t2")
    ]
    return np.stack(contrasts, axis=1)


def small_pipeline(max_iter):
    """Return all four steps of preset tiny with networks that train in seconds."""
    pipeline = make_mimood_pipeline("tiny", memory=None, device="cpu")
    sizes = {
        "tokenizer": {"n_codes": 64, "code_dim": 8, "channels": 16},
        "evidence": {"channels": 8, "depth": 3, "augment": True},
        "detector": {"width": 16, "depth": 2, "n_painted": 2},
        "inpainter": {"width": 16, "depth": 2},
    }
    for name, parameters in sizes.items():
        training = {"max_iter": max_iter, "warmup_iter": 5, "batch_size": 12, "precision": "float32"}
        training = {f"training__{key}": value for key, value in training.items()}
        pipeline.named_steps[name].set_params(**parameters, **training)
    return pipeline


@pytest.fixture(scope="module")
def detector():
    return small_pipeline(max_iter=60).fit(two_contrasts(48))


@pytest.fixture(scope="module")
def one_sided():
    """Return slices in which a lesion shows in the second channel alone, and its masks."""
    scans = two_contrasts(6, seed=1)
    masks = np.zeros((6, 32, 32), bool)
    masks[:, 9:14, 19:24] = True
    scans[:, 1] = np.where(masks, 1.0, scans[:, 1])
    return scans, masks


def test_a_lesion_that_shows_in_the_second_channel_alone_is_found(detector, one_sided):
    scans, masks = one_sided
    maps = detector.decision_function(scans)
    assert maps.shape == masks.shape
    assert maps[masks].mean() > 2 * maps[~masks & head_masks(scans)].mean()
    assert maps[masks].mean() > 2 * detector.decision_function(two_contrasts(6, seed=1))[masks].mean()
    assert detector.score(scans, masks) > 0.4  # of 0.024 by chance


def test_healed_slices_have_the_channels_of_the_scan(detector, one_sided):
    scans, _ = one_sided
    healed = detector.transform(scans)
    assert healed.shape == scans.shape
    off_the_head = np.broadcast_to(~head_masks(scans)[:, None], scans.shape)
    np.testing.assert_array_equal(healed[off_the_head], scans[off_the_head])


def test_masks_of_lesions_have_no_channels(one_sided):
    scans, _ = one_sided
    with pytest.raises(InputError, match=r"shape \(6, 32, 32\)"):
        small_pipeline(max_iter=1)[0].fit(scans, scans > 0)


def test_a_saved_model_of_two_channels_maps_as_before(detector, one_sided, tmp_path):
    save_model(detector, tmp_path / "model")
    loaded = load_model(tmp_path / "model").set_params(tokenizer__device="cpu")
    scans, _ = one_sided
    np.testing.assert_array_equal(loaded.decision_function(scans), detector.decision_function(scans))
    with pytest.raises(InputError, match="2 channels"):
        loaded.predict(scans[:, :1])


@pytest.mark.parametrize("select", [np.s_[:, 0], np.s_[:, :1], np.s_[:, [0, 1, 1]]])
def test_slices_of_another_number_of_channels_are_refused(detector, one_sided, select):
    with pytest.raises(InputError, match="must have 2 channels"):
        detector.predict(one_sided[0][select])


def test_more_than_eight_channels_are_refused_with_a_word_on_their_axis():
    with pytest.raises(InputError, match="moveaxis"):
        SliceStandardizer().fit(np.zeros((4, 32, 32, 3)))


def test_one_channel_with_an_axis_of_its_own_is_the_same_to_the_bit():
    slices, scans = make_slices(24), make_slices(4, seed=5)
    plain = small_pipeline(max_iter=4).fit(slices)
    with_axis = small_pipeline(max_iter=4).fit(slices[:, None])
    for (_, one), (_, other) in zip(plain.steps, with_axis.steps, strict=True):
        for name, weights in one.state_.items():
            np.testing.assert_array_equal(other.state_[name], weights)
    maps, healed = plain[-1].detect(plain[:-1].transform(scans))
    same_maps, same_healed = with_axis[-1].detect(with_axis[:-1].transform(scans[:, None]))
    np.testing.assert_array_equal(same_maps, maps)
    np.testing.assert_array_equal(same_healed, healed[:, None])


def test_each_channel_is_standardised_by_itself_inside_the_head_of_all():
    slices = make_slices(4)
    dim = np.where(slices > 0, 0.05 + 0.02 * slices, 0)  # below what counts as a head
    both = np.stack([slices, dim], axis=1).astype(np.float32)
    standardised = SliceStandardizer().fit(both).transform(both)
    np.testing.assert_array_equal(standardised[:, 0], SliceStandardizer().fit(slices).transform(slices))
    inside = standardised[:, 1][head_masks(slices)]
    assert 0.3 < np.median(inside) < 0.5


def test_a_head_is_what_any_channel_shows():
    slices = make_slices(4)
    empty = np.zeros_like(slices)
    np.testing.assert_array_equal(head_masks(np.stack([empty, slices], axis=1)), head_masks(slices))
    assert have_heads(np.stack([empty, slices], axis=1)).all()


def test_painted_anomalies_have_one_place_and_own_contents_in_each_channel():
    slices = np.repeat(make_slices(40)[:, None], 2, axis=1)
    painted, changed = paint_anomalies(slices, np.random.default_rng(0))
    assert painted.shape == slices.shape
    assert changed.shape == (40, 32, 32)
    by_channel = np.abs(painted - slices) > 0.04
    np.testing.assert_array_equal(changed, by_channel.any(axis=1))
    has_changed = by_channel.any(axis=(2, 3))
    assert has_changed.all(axis=1).any()
    assert (has_changed.any(axis=1) & ~has_changed.all(axis=1)).any()
    both = by_channel.all(axis=1)
    assert np.abs(painted[:, 0] - painted[:, 1])[both].mean() > 0.05


TAKING = [
    name
    for name in ESTIMATORS
    if issubclass(cls := load_estimator(name), TokenStep | TokenizerResidual)
    and issubclass(cls, BasePixelDetector)
]


@pytest.mark.parametrize("name", TAKING)
def test_every_detector_on_tokens_takes_several_channels(name):
    tokenizer, detector, _ = (step for _, step in small_steps(max_iter=2))
    last = load_estimator(name)()
    nested = {"training__max_iter": 2, "training__warmup_iter": 1}
    last.set_params(**{key: value for key, value in nested.items() if key in last.get_params()})
    pipeline = make_pipeline(tokenizer, detector, last).fit(two_contrasts(12))
    scans = two_contrasts(2, seed=1)
    assert pipeline.decision_function(scans).shape == (2, 32, 32)
    assert pipeline.transform(scans).shape == scans.shape


def test_the_denoising_autoencoder_takes_several_channels(one_sided):
    scans, masks = one_sided
    network = {"channels": 8, "depth": 3, "augment": True, "random_state": 0, "warmup_iter": 5}
    detector = build(baselines.DenoisingAutoencoder, max_iter=40, **network).fit(two_contrasts(24))
    maps, healed = detector.detect(scans)
    assert maps.shape == masks.shape
    assert healed.shape == scans.shape


@pytest.mark.parametrize(
    "name", ["HealthyZScore", "IntensityThreshold", "ForeignPatchInterpolation", "SyntheticAnomalyRestorer"]
)
def test_a_detector_of_one_channel_says_who_takes_several(name):
    with pytest.raises(InputError, match=r"one channel.*make_mimood_pipeline"):
        getattr(baselines, name)().fit(two_contrasts(4))


def test_displays_show_the_first_channel(detector, one_sided):
    pytest.importorskip("matplotlib").use("agg")
    from skmimood.plotting import RestorationDisplay, SliceDisplay

    scans, masks = one_sided
    np.testing.assert_array_equal(
        SliceDisplay.from_estimator(detector, scans, masks).gallery.images, scans[:, 0]
    )
    np.testing.assert_array_equal(RestorationDisplay.from_estimator(detector, scans[:2]).images, scans[:2, 0])
