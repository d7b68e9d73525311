import numpy as np
import pytest
import torch
from conftest import build, make_slices, plant_lesions
from sklearn.metrics import average_precision_score, roc_auc_score

from skmimood.baselines import AnoVAEGAN
from skmimood.networks.adversarial import AdversarialVAE, Critic, SpatialVAE
from skmimood.networks.weights import new_network


def small(**parameters) -> AnoVAEGAN:
    common = {
        "channels": 8, "depth": 2, "latent_dim": 2, "erosion": 1, "median_filter": 3, "learning_rate": 3e-3,
        "warmup_iter": 10, "validation_fraction": 0.25, "precision": "float32", "random_state": 0, "max_iter": 150,
    }  # fmt: skip
    return build(AnoVAEGAN, **{**common, **parameters})


@pytest.fixture(scope="module")
def detector(healthy) -> AnoVAEGAN:
    return small().fit(healthy)


@pytest.fixture(scope="module")
def lesions():
    return plant_lesions(make_slices(12, seed=3))


def test_a_planted_lesion_scores_higher_than_its_surroundings(detector, lesions):
    slices, masks = lesions
    maps = detector.decision_function(slices)
    assert roc_auc_score(masks.ravel(), maps.ravel()) > 0.95
    assert average_precision_score(masks.ravel(), maps.ravel()) > 10 * masks.mean()


def test_a_lesion_is_healed_and_healthy_slices_stay(detector, lesions):
    slices, masks = lesions
    healthy = make_slices(12, seed=3)
    healed = detector.transform(slices)
    assert np.abs(healed - healthy)[masks].mean() < 0.7 * np.abs(slices - healthy)[masks].mean()
    assert np.abs(detector.transform(healthy) - healthy).mean() < 0.02


def test_no_result_depends_on_the_other_slices(detector, lesions):
    slices, _ = lesions
    together = detector.decision_function(slices)
    np.testing.assert_allclose(detector.decision_function(slices[5:6])[0], together[5], atol=1e-5)


@pytest.mark.parametrize(("latent", "shape"), [("spatial", (8, 16, 1, 1)), ("dense", (8, 16 * 8 * 8))])
def test_the_code_is_a_grid_or_one_vector(latent, shape):
    fitted = small(latent=latent, latent_dim=4, max_iter=1, warmup_iter=0).fit(make_slices(8))
    assert fitted.state_["autoencoder.to_code.weight"].shape == shape


@pytest.mark.parametrize("shape", [(32, 32), (30, 37)])
def test_images_of_any_shape_come_back_in_it(shape):
    config = {"image_shape": list(shape), "widths": [4, 8], "latent_dim": 3}
    network = new_network(SpatialVAE, config, torch.Generator().manual_seed(0))
    restored, mean, log_variance = network(torch.rand(2, 1, *shape))
    assert restored.shape == (2, 1, *shape)
    assert mean.shape == log_variance.shape == (2, 3, 8, -(-shape[1] // 4))


def linear_critic(slope: float) -> Critic:
    """Return a critic whose score is the sum of the pixels, times ``slope``."""
    critic = Critic(image_shape=[4, 4], widths=[1])
    critic.features = lambda images: images.flatten(1)
    critic.to_score = torch.nn.Linear(16, 1)
    with torch.no_grad():
        critic.to_score.weight.fill_(slope)
        critic.to_score.bias.zero_()
    return critic


@pytest.mark.parametrize(("slope", "penalty"), [(0.25, 0), (0.5, 10), (0.0, 10)])
def test_the_critic_is_penalised_for_slopes_other_than_one(slope, penalty):
    real, fake = torch.rand(2, 3, 1, 4, 4)
    found = linear_critic(slope).loss(real, fake, torch.rand(3))
    expected = slope * (fake - real).sum((1, 2, 3)).mean() + penalty  # the gradient has the length 4 * slope
    assert found.item() == pytest.approx(expected.item(), abs=1e-4)


def test_neither_loss_reaches_the_weights_of_the_other():
    config = {"image_shape": [16, 16], "widths": [4, 8], "latent_dim": 3, "is_spatial": True}
    network = new_network(AdversarialVAE, config, torch.Generator().manual_seed(0))
    images, noise, mix = torch.rand(5, 1, 16, 16), torch.randn(5, *network.code_shape), torch.rand(5)
    residual, divergence, disbelief, _ = network(images, noise, mix)
    (residual.mean() + divergence.mean() + disbelief).backward()
    assert all(weight.grad is None for weight in network.critic.parameters())
    assert all(weight.grad is not None for weight in network.autoencoder.parameters())
    network.zero_grad()
    network(images, noise, mix)[3].backward()
    assert all(weight.grad is None for weight in network.autoencoder.parameters())
    assert all(weight.grad is not None for weight in network.critic.parameters())


def test_the_adversary_changes_what_is_learnt(healthy):
    alone = small(adversarial_weight=0.0, max_iter=3).fit(healthy[:8])
    against = small(adversarial_weight=1.0, max_iter=3).fit(healthy[:8])
    assert not np.allclose(
        alone.decision_function(healthy[:2]), against.decision_function(healthy[:2]), atol=1e-4
    )
