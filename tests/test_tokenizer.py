import warnings
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from conftest import build, make_slices, plant_lesions, small_steps
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline

from skmimood import TokenizedScans, VQTokenizer, load_model, save_model
from skmimood.exceptions import CodebookCollapseWarning, InputError
from skmimood.preprocessing.heads import head_masks
from skmimood.tokens import tokenizer as module
from skmimood.training.parameters import Training


@pytest.fixture
def tokenizer(quick_pipeline):
    return quick_pipeline[0]


def test_healthy_slices_survive_tokenisation(fitted, healthy):
    tokenizer = fitted[0]
    error = -tokenizer.score(healthy)
    blank = np.abs(healthy - healthy.mean((1, 2), keepdims=True)).mean()
    assert error < 0.35 * blank


def test_training_lowers_the_validation_loss(fitted):
    losses = fitted[0].history_["validation_loss"]
    assert losses[-1] < 0.5 * losses[0]


def test_transform_gives_a_grid_of_code_indices(fitted, healthy):
    scans = fitted[0].transform(healthy)
    assert isinstance(scans, TokenizedScans)
    assert scans.tokens.shape == (len(healthy), 8, 8)
    assert scans.tokens.min() >= 0
    assert scans.tokens.max() < fitted[0].n_codes


def test_inverse_transform_of_scans_and_of_their_tokens_is_the_same(fitted, healthy):
    scans = fitted[0].transform(healthy[:4])
    images = fitted[0].inverse_transform(scans)
    assert images.dtype == np.float32
    assert images.shape == healthy[:4].shape
    np.testing.assert_array_equal(images, fitted[0].inverse_transform(scans.tokens))


@pytest.mark.parametrize("tokens", [np.full((1, 8, 8), 99), np.zeros((1, 4, 4), int), np.zeros((1, 8, 8))])
def test_tokens_that_cannot_be_are_refused(fitted, tokens):
    with pytest.raises(InputError, match="Tokens must"):
        fitted[0].inverse_transform(tokens)


def test_sizes_that_are_no_multiple_of_a_token_are_padded_and_cropped_back(tokenizer):
    images = make_slices(6, size=37)[:, :, :30]
    scans = tokenizer.fit(images).transform(images)
    assert scans.tokens.shape == (6, 10, 8)
    assert tokenizer.inverse_transform(scans).shape == images.shape


def test_samples_with_a_lesion_are_dropped_from_fit(tokenizer, healthy):
    lesions, masks = plant_lesions(make_slices(4, seed=1))
    mixed, y = np.concatenate([healthy, lesions]), np.concatenate([np.zeros_like(healthy, bool), masks])
    with_lesions = tokenizer.fit(mixed, y).state_
    without = tokenizer.fit(healthy).state_
    for name, array in without.items():
        np.testing.assert_array_equal(with_lesions[name], array)


def test_a_set_without_any_healthy_sample_is_refused(tokenizer):
    lesions, masks = plant_lesions(make_slices(4))
    with pytest.raises(InputError, match="Every one of the 4 samples has a lesion"):
        tokenizer.fit(lesions, masks)


def test_bad_input_46_a_collapsed_codebook_is_warned_about_with_its_figure(tokenizer):
    with pytest.warns(CodebookCollapseWarning, match=r"perplexity [\d.]+, \d+ of 256 codes"):
        tokenizer.set_params(n_codes=256).fit(np.zeros((8, 8, 8), np.float32))


def test_code_usage_is_reported(fitted):
    assert 1 < fitted[0].perplexity_ <= fitted[0].n_active_codes_ <= 32


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((32, 32)), r"For one image pass X\[np.newaxis\]"),
        (np.zeros((2, 32, 32, 1)), "must have shape"),
        (np.zeros((0, 32, 32)), "0 samples"),
        (np.zeros((2, 4, 32)), "at least 8 pixels"),
        (np.full((2, 32, 32), np.nan), "2048 NaN or infinite"),
        (np.full((2, 32, 32), np.inf), "NaN or infinite"),
        (np.full((2, 32, 32), 255.0), "Clip each scan"),
        (np.zeros((2, 32, 32), complex), "real numbers"),
        (np.array([["a"]]), "real numbers"),
        ([np.zeros((8, 8)), np.zeros((9, 9))], "one size"),
    ],
)
def test_bad_input_45_images_that_cannot_be_learnt_from_are_refused_in_image_words(
    tokenizer, images, message
):
    with pytest.raises(InputError, match=message):
        tokenizer.fit(images)


def test_bad_input_45_another_image_size_than_in_fit_is_refused(fitted):
    with pytest.raises(InputError, match="32 x 32 pixels as in fit; got 40 x 32"):
        fitted[0].transform(np.zeros((1, 40, 32), np.float32))


def test_transform_before_fit_says_so(tokenizer, healthy):
    with pytest.raises(NotFittedError):
        tokenizer.transform(healthy)


def test_a_mask_of_another_length_is_refused(tokenizer, healthy):
    with pytest.raises(InputError, match="one mask for each sample"):
        tokenizer.fit(healthy, np.zeros((3, 32, 32)))


@pytest.mark.parametrize("parameter", ["n_codes", "channels", "max_iter", "batch_size"])
def test_a_size_that_is_no_positive_integer_is_refused_by_name(healthy, parameter):
    with pytest.raises(InputError, match=f"{parameter} must be a positive integer"):
        build(VQTokenizer, **{parameter: 0}).fit(healthy)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("validation_fraction", 1.5), ("gradient_clip", 0), ("codebook_decay", 2), ("warmup_iter", -5),
        ("n_augmentations", -1), ("channel_multipliers", 3), ("channel_multipliers", ()), ("random_state", -1),
        ("n_iter_no_change", 0), ("learning_rate", "fast"), ("precision", "float16"), ("quantizer", "lfq"),
        ("device", "gpu"), ("device", None), ("flip", "yes"), ("augment", 1), ("standardize", None), ("resume", 2),
    ],
)  # fmt: skip
def test_a_training_parameter_out_of_range_is_refused_by_name(healthy, parameter, value):
    with pytest.raises(InputError, match=rf"VQTokenizer: (training: )?{parameter} must be"):
        build(VQTokenizer, **{parameter: value}).fit(healthy)


def test_all_faults_are_named_at_once(healthy):
    with pytest.raises(
        InputError,
        match=r"n_codes must be .*; training: batch_size must be .*; training: gradient_clip must be",
    ):
        build(VQTokenizer, n_codes=0, batch_size=0, gradient_clip=-1).fit(healthy)


def test_images_of_a_single_token_are_refused_in_image_words():
    with pytest.raises(InputError, match=r"8 x 8 pixels make 1 x 1 tokens of 8 pixels"):
        build(VQTokenizer, channel_multipliers=(1, 2, 4)).fit(np.zeros((4, 8, 8), np.float32))


def test_a_mask_of_another_size_is_refused(tokenizer, healthy):
    with pytest.raises(InputError, match="one mask for each sample"):
        tokenizer.fit(healthy, np.zeros((len(healthy), 16, 16)))


def test_training_tokens_hold_each_slice_and_its_turned_copies(fitted, healthy):
    scans = fitted[0].transform(healthy)
    tokens = fitted[0].training_tokens(scans)
    assert tokens.shape == (len(healthy), 3, 8, 8)
    np.testing.assert_array_equal(tokens[:, 0], scans.tokens)
    assert (tokens[:, 1] != scans.tokens).any((1, 2)).mean() > 0.9


def test_codes_survive_without_restarts(tokenizer, healthy):
    tokenizer.set_params(restart_below=0.0, codebook_decay=0.01, training__max_iter=30).fit(healthy)
    assert np.isfinite(tokenizer.state_["quantizer.codes"]).all()


def test_intensities_a_little_outside_the_range_are_only_warned_about(tokenizer, healthy):
    with pytest.warns(UserWarning, match="expected in"):
        tokenizer.fit(healthy * 1.5)


def test_fit_leaves_the_global_generators_alone(tokenizer, healthy):
    import torch

    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokenizer.fit(healthy)
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


def test_a_standardising_tokenizer_bears_another_contrast(healthy):
    tokenizer = build(
        VQTokenizer,
        n_codes=16,
        code_dim=8,
        channels=16,
        max_iter=20,
        warmup_iter=5,
        standardize=True,
        random_state=0,
    ).fit(healthy)
    other = np.where(healthy > 0, 0.1 + 0.6 * healthy, 0).astype(np.float32)
    same = tokenizer.transform(healthy).tokens == tokenizer.transform(other).tokens
    assert same.mean() > 0.9


def test_slices_that_were_standardised_come_back_in_their_own_intensities(healthy):
    tokenizer = build(VQTokenizer, standardize=True)
    seen = tokenizer.seen(healthy)
    assert np.abs(seen - healthy).max() > 0.1
    back = tokenizer.unseen(seen, healthy)
    inside = (healthy > 0.1) & (seen < 1) & (seen > 0.011)  # what has not been clipped
    np.testing.assert_allclose(back[inside], healthy[inside], atol=1e-3)
    assert back[healthy == 0].max() == 0


def test_without_standardising_slices_are_seen_as_they_are(healthy):
    assert VQTokenizer().seen(healthy) is healthy


@pytest.fixture(scope="module", params=["cosine", "fsq"])
def other_codes(request, healthy):
    """Return a pipeline with another kind of codes, of which the tokenizer alone is trained well."""
    pipeline = Pipeline(small_steps(max_iter=3))
    pipeline.set_params(
        tokenizer__quantizer=request.param, tokenizer__training__max_iter=120, tokenizer__training__batch_size=8,
        detector__network="unet", detector__depth=2,
        detector__corruption="painted", detector__n_painted=1, detector__threshold=0.0,
    )  # fmt: skip
    return pipeline.fit(healthy)


def test_other_kinds_of_codes_carry_healthy_slices_too(other_codes, healthy):
    tokenizer = other_codes[0]
    blank = np.abs(healthy - healthy.mean((1, 2), keepdims=True)).mean()
    assert -tokenizer.score(healthy) < 0.35 * blank
    assert tokenizer.perplexity_ > 4


def test_a_pipeline_with_other_codes_knows_their_number_in_every_step(other_codes, healthy):
    tokenizer, detector, inpainter = other_codes.named_steps.values()
    n_codes = {"cosine": 32, "fsq": 30}[tokenizer.quantizer]
    assert len(tokenizer.codes) == tokenizer.n_codes_ == n_codes
    assert detector.config_["n_inputs"] == inpainter.config_["n_outputs"] == n_codes
    restored = inpainter.restore(other_codes[:2].transform(healthy[:4]))
    assert restored.min() >= 0
    assert restored.max() < n_codes
    with pytest.raises(InputError, match=rf"Tokens must lie in \[0, {n_codes - 1}\]"):
        tokenizer.inverse_transform(np.full((1, 8, 8), n_codes))


def test_a_pipeline_with_other_codes_is_the_same_when_loaded(other_codes, healthy, tmp_path):
    save_model(other_codes, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded[0].get_params() == other_codes[0].get_params()
    np.testing.assert_array_equal(
        loaded.decision_function(healthy[:4]), other_codes.decision_function(healthy[:4])
    )


def test_networks_of_before_there_were_other_codes_stay_valid(fitted):
    # Their names in the cache and what load_model expects depend on the configuration.
    assert list(fitted[0].config_) == [
        "patch_size", "channels", "channel_multipliers", "n_res_blocks", "n_codes", "code_dim", "codebook_decay",
        "restart_below",
    ]  # fmt: skip


@pytest.mark.parametrize("weight", [0.0, 0.05, 0.5, 1.0])
def test_errors_off_the_head_count_in_the_loss_by_the_weight_of_the_background(monkeypatch, weight):
    images = make_slices(6)
    heads = head_masks(images)
    error = torch.where(torch.from_numpy(heads), 0.1, 0.3)[:, None]
    network = Mock(side_effect=lambda batch, generator: (batch + error, None), downsampling=4)
    monkeypatch.setattr(module, "train", lambda network, loss, *arguments, **named: loss)
    loss = module.train_vqvae(
        images=images, heads=heads, config=VQTokenizer()._config(), commitment=0.25, background_weight=weight,
        augment=False, recipe=Training(), seed=0, runtime=None,
    )  # fmt: skip
    found = loss(network, np.arange(6), SimpleNamespace(torch=torch.Generator()), False)
    n_off, n_inside = (~heads).sum(), heads.sum()
    expected = (0.1 * n_inside + weight * 0.3 * n_off) / (n_inside + weight * n_off)
    assert float(found) == pytest.approx(expected, rel=1e-5)
