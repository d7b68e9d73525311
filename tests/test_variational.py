import pickle

import numpy as np
import pytest
import torch
from conftest import build, make_slices, plant_lesions
from sklearn.metrics import average_precision_score, roc_auc_score

from skmimood.baselines import VAERestoration
from skmimood.networks.vae import VAE, negative_elbo
from skmimood.networks.weights import new_network


def small(**parameters) -> VAERestoration:
    common = {
        "channels": 8, "depth": 2, "latent_dim": 8, "erosion": 1, "median_filter": 3, "n_steps": 20,
        "learning_rate": 3e-3, "warmup_iter": 10, "validation_fraction": 0.25, "precision": "float32",
        "random_state": 0, "max_iter": 150,
    }  # fmt: skip
    return build(VAERestoration, **{**common, **parameters})


@pytest.fixture(scope="module")
def fitted(healthy) -> VAERestoration:
    return small().fit(healthy)


@pytest.fixture
def detector(fitted) -> VAERestoration:
    return pickle.loads(pickle.dumps(fitted))


@pytest.fixture(scope="module")
def lesions():
    return plant_lesions(make_slices(12, seed=3))


@pytest.mark.parametrize("n_steps", [0, 20])
def test_a_planted_lesion_scores_higher_than_its_surroundings(detector, lesions, n_steps):
    slices, masks = lesions
    maps = detector.set_params(n_steps=n_steps).decision_function(slices)
    assert roc_auc_score(masks.ravel(), maps.ravel()) > 0.95
    assert average_precision_score(masks.ravel(), maps.ravel()) > 10 * masks.mean()


def test_the_descent_brings_a_lesion_nearer_to_healthy_tissue_and_leaves_the_rest(detector, lesions):
    slices, masks = lesions
    healthy = make_slices(12, seed=3)
    restored = detector.map_and_restore(slices)[1]
    assert np.abs(restored - healthy)[masks].mean() < 0.7 * np.abs(slices - healthy)[masks].mean()
    plain = detector.set_params(n_steps=0).map_and_restore(slices)[1]
    off = ~masks & (healthy > 0)
    assert np.abs(restored - slices)[off].mean() < np.abs(plain - slices)[off].mean()


def test_a_heavier_prior_on_the_change_keeps_nearer_to_the_scan(detector, lesions):
    slices, _ = lesions
    light, heavy = (
        np.abs(detector.set_params(tv_weight=weight).map_and_restore(slices)[1] - slices).mean()
        for weight in (0.2, 10)
    )
    assert heavy < 0.7 * light


def test_no_result_depends_on_the_other_slices(detector, lesions):
    slices, _ = lesions
    together = detector.decision_function(slices)
    np.testing.assert_allclose(detector.decision_function(slices[5:6])[0], together[5], atol=1e-5)


def test_the_bound_of_a_perfect_reconstruction_is_the_divergence_alone():
    images = torch.rand(3, 1, 8, 8)
    mean, log_variance = torch.zeros(3, 4), torch.zeros(3, 4)
    assert negative_elbo(images, images, mean, log_variance, noise_std=0.1).tolist() == [0, 0, 0]
    assert negative_elbo(images, images, mean + 2, log_variance, noise_std=0.1).tolist() == [8, 8, 8]
    assert negative_elbo(images, images + 0.1, mean, log_variance, noise_std=0.1).numpy() == pytest.approx(32)


@pytest.mark.parametrize("shape", [(32, 32), (30, 37)])
def test_images_of_any_shape_come_back_in_it(shape):
    config = {"image_shape": list(shape), "widths": [4, 8], "latent_dim": 3}
    network = new_network(VAE, config, torch.Generator().manual_seed(0))
    restored, mean, log_variance = network(torch.rand(2, 1, *shape))
    assert restored.shape == (2, 1, *shape)
    assert mean.shape == log_variance.shape == (2, 3)
