import numpy as np
import pytest
import torch
from conftest import build, make_slices
from sklearn.metrics import average_precision_score, roc_auc_score

from skmimood import load_model, save_model
from skmimood.baselines import FAnoGAN
from skmimood.networks.adversarial import GeneratorWithEncoder
from skmimood.networks.weights import new_network


def small(**parameters) -> FAnoGAN:
    common = {
        "channels": 8, "depth": 2, "latent_dim": 8, "erosion": 1, "median_filter": 3, "learning_rate": 2e-3,
        "warmup_iter": 10, "validation_fraction": 0.25, "precision": "float32", "random_state": 0,
        "batch_size": 8, "encoder_max_iter": 200, "max_iter": 400,
    }  # fmt: skip
    return build(FAnoGAN, **{**common, **parameters})


@pytest.fixture(scope="module")
def detector(healthy) -> FAnoGAN:
    return small().fit(healthy)


def test_a_planted_lesion_scores_higher_than_its_surroundings(detector, dark_lesions):
    slices, masks = dark_lesions
    maps = detector.decision_function(slices)
    assert roc_auc_score(masks.ravel(), maps.ravel()) > 0.95
    assert average_precision_score(masks.ravel(), maps.ravel()) > 12 * masks.mean()


def test_what_the_generator_makes_of_a_code_is_like_a_healthy_slice(detector, healthy):
    network = detector._network()
    codes = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        made = network.autoencoder.decode(codes)[:, 0].numpy()
    nearest = np.abs(made[:, None] - healthy).mean((2, 3)).min(1)
    assert nearest.mean() < 0.7 * np.abs(healthy - healthy.mean((1, 2), keepdims=True)).mean()


def test_a_lesion_is_restored_to_healthy_tissue(detector, dark_lesions):
    slices, masks = dark_lesions
    healthy = make_slices(12, seed=3)
    restored = detector.map_and_restore(slices)[1]
    assert np.abs(restored - healthy)[masks].mean() < 0.7 * np.abs(slices - healthy)[masks].mean()


def test_the_score_of_a_slice_is_higher_with_a_lesion(detector, dark_lesions):
    slices, _ = dark_lesions
    scores, healthy = detector.score_samples(slices), detector.score_samples(make_slices(12, seed=3))
    assert scores.dtype == np.float64
    assert scores.shape == (12,)
    assert roc_auc_score(np.repeat([1, 0], 12), np.concatenate([scores, healthy])) > 0.9
    assert detector.score_samples(np.zeros((1, 32, 32)))[0] == 0


def test_no_result_depends_on_the_other_slices(detector, dark_lesions):
    slices, _ = dark_lesions
    together, scores = detector.decision_function(slices), detector.score_samples(slices)
    np.testing.assert_allclose(detector.decision_function(slices[5:6])[0], together[5], atol=1e-5)
    np.testing.assert_allclose(detector.score_samples(slices[5:6])[0], scores[5], rtol=1e-4)


def test_kappa_weighs_the_features_as_it_was_in_fit(detector, dark_lesions, tmp_path):
    slices, _ = dark_lesions
    with torch.inference_mode():
        residual, features = detector._network()(torch.from_numpy(slices[:, None]))
    expected = (residual + features).numpy()
    np.testing.assert_allclose(detector.score_samples(slices), expected, rtol=1e-4)
    save_model(detector, tmp_path / "model")
    loaded = load_model(tmp_path / "model").set_params(kappa=7.0)
    np.testing.assert_allclose(loaded.score_samples(slices), expected, rtol=1e-4)


def test_both_trainings_leave_their_history_and_only_the_encoder_validates(detector):
    assert len(detector.history_["loss"]) == 200
    assert len(detector.history_["generator_loss"]) == 400
    assert detector.n_iter_ == 600
    assert detector.history_["validation_loss"][-1] < detector.history_["validation_loss"][0]


@pytest.fixture
def network():
    config = {"image_shape": [16, 16], "widths": [4, 8], "latent_dim": 3}
    return new_network(GeneratorWithEncoder, config, torch.Generator().manual_seed(0))


def learning(network, generates):
    """Return the parts that a step of both losses gives a gradient."""
    images, codes, mix = torch.rand(5, 1, 16, 16), torch.randn(5, 3), torch.rand(5)
    sum(network(images, codes, mix, generates)).backward()
    names = {name for name, weight in network.named_parameters() if weight.grad is not None}
    return {".".join(name.split(".")[: 1 + name.startswith("autoencoder")]) for name in names}


def test_the_critic_learns_in_every_step_and_the_generator_in_some(network):
    assert learning(network, False) == {"critic"}
    generator = {f"autoencoder.{part}" for part in ("from_code", "decoder", "to_image")}
    assert learning(network, True) == {"critic"} | generator


def test_the_generator_wants_the_critic_to_take_its_images_for_real(network):
    images, codes, mix = torch.rand(5, 1, 16, 16), torch.randn(5, 3), torch.rand(5)
    disbelief, _ = network(images, codes, mix, True)
    expected = -network.critic(network.autoencoder.decode(codes)).mean()
    assert disbelief.item() == pytest.approx(expected.item(), abs=1e-6)


def test_training_the_encoder_changes_neither_generator_nor_critic(healthy):
    brief = {"max_iter": 2, "warmup_iter": 0}
    one, more = (small(encoder_max_iter=n, **brief).fit(healthy[:16]).state_ for n in (1, 3))
    changed = {name for name in one if not np.array_equal(one[name], more[name])}
    assert changed
    assert all(name.startswith(("autoencoder.encoder", "autoencoder.to_code")) for name in changed)
