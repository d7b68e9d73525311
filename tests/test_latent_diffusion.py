import numpy as np
import pytest
import torch
from conftest import build, make_slices, plant_lesions
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline

from skmimood import VQTokenizer
from skmimood.baselines import LatentDiffusion
from skmimood.exceptions import InputError
from skmimood.tokens.latent_diffusion import signal_kept, standardised_codes, with_time

COMMON = {
    "learning_rate": 3e-3,
    "warmup_iter": 10,
    "validation_fraction": 0.25,
    "precision": "float32",
    "random_state": 0,
}


@pytest.fixture(scope="module")
def tokenizer(healthy) -> VQTokenizer:
    sizes = {"n_codes": 32, "code_dim": 8, "channels": 16, "channel_multipliers": (1, 2), "augment": False}
    return build(VQTokenizer, **sizes, **COMMON, max_iter=100).fit(healthy)


@pytest.fixture(scope="module")
def pipeline(tokenizer, healthy) -> Pipeline:
    """Return a pipeline fitted long enough to restore. Do not change it."""
    diffusion = build(LatentDiffusion, channels=32, levels=2, n_steps=5, **COMMON, max_iter=300)
    return Pipeline([("tokenizer", tokenizer), ("diffusion", diffusion.fit(tokenizer.transform(healthy)))])


@pytest.fixture(scope="module")
def lesions():
    return plant_lesions(make_slices(12, seed=3))


def test_a_planted_lesion_scores_higher_than_its_surroundings(pipeline, lesions):
    slices, masks = lesions
    maps = pipeline.decision_function(slices)
    assert maps.shape == slices.shape
    inside = slices > 0
    assert roc_auc_score(masks[inside], maps[inside]) > 0.9


def test_what_is_restored_is_nearer_to_healthy_tissue(pipeline, lesions):
    slices, masks = lesions
    healthy = make_slices(12, seed=3)
    scans = pipeline["tokenizer"].transform(slices)
    restored = pipeline["diffusion"].restore(scans)
    assert restored.shape == (12, 3, *scans.tokens.shape[1:])  # one of each depth
    decoded = pipeline["tokenizer"].inverse_transform(restored[:, -1])
    before = pipeline["tokenizer"].inverse_transform(scans.tokens)
    assert np.abs(decoded - healthy)[masks].mean() < 0.8 * np.abs(before - healthy)[masks].mean()


def test_the_deeper_the_noise_the_more_tokens_change(pipeline, lesions):
    scans = pipeline["tokenizer"].transform(lesions[0])
    restored = pipeline["diffusion"].restore(scans)
    changed = (restored != scans.tokens[:, None]).mean((0, 2, 3))
    assert changed[0] < changed[1] < changed[2]


def test_a_depth_near_0_gives_the_slice_back(tokenizer, pipeline, lesions):
    scans = tokenizer.transform(lesions[0])
    shallow = build(
        LatentDiffusion, channels=16, levels=2, noise_depths=(0.001,), n_steps=1, **COMMON, max_iter=3
    )
    restored = shallow.fit(tokenizer.transform(make_slices(24))).restore(scans)
    assert (restored[:, 0] == scans.tokens).mean() > 0.9


def test_the_chain_keeps_nearly_all_of_the_signal_at_first_and_nearly_none_at_last():
    kept = signal_kept()
    assert kept.shape == (1000,)
    assert (kept.diff() < 0).all()
    assert kept[0] > 0.99
    assert kept[-1] < 0.01


def test_times_are_told_apart_and_the_same_for_all_places():
    told = with_time(torch.zeros(1000, 2, 3, 3), torch.arange(1000))[:, 2:]
    assert (told == told[:, :, :1, :1]).all()
    assert len(torch.unique(told[:, :, 0, 0], dim=0)) == 1000


def test_codes_are_standardised_in_each_dimension():
    codes = standardised_codes(np.random.default_rng(0).normal(3, 5, (40, 4)))
    assert np.allclose(codes.mean(0), 0, atol=1e-5)
    assert np.allclose(codes.std(0), 1, atol=1e-4)


@pytest.mark.parametrize("depths", [(), (0.0,), (0.5, 1.5)])
def test_depths_outside_of_the_chain_are_refused(tokenizer, depths):
    with pytest.raises(InputError, match="noise_depths must be a sequence of shares"):
        LatentDiffusion(noise_depths=depths).fit(tokenizer.transform(make_slices(8)))
