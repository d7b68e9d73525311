import numpy as np
import pytest
import torch
from conftest import build, make_slices, plant_lesions
from sklearn.metrics import average_precision_score, roc_auc_score

from skmimood.baselines import ReverseDistillation
from skmimood.networks.distillation import ReverseDistiller
from skmimood.networks.weights import new_network

AS_DARK_AS_A_CENTRE = 0.15  # such a lesion has an intensity that healthy slices have elsewhere


@pytest.fixture(scope="module")
def detector(healthy) -> ReverseDistillation:
    return build(
        ReverseDistillation, channels=8, depth=3, backbone_max_iter=60, learning_rate=3e-3, warmup_iter=10,
        validation_fraction=0.25, precision="float32", random_state=0, max_iter=100,
    ).fit(healthy)  # fmt: skip


@pytest.fixture(scope="module")
def lesions():
    return plant_lesions(make_slices(12, seed=3), value=AS_DARK_AS_A_CENTRE)


def test_a_planted_lesion_scores_higher_than_its_surroundings(detector, lesions):
    slices, masks = lesions
    maps = detector.decision_function(slices)
    assert roc_auc_score(masks.ravel(), maps.ravel()) > 0.95
    assert average_precision_score(masks.ravel(), maps.ravel()) > 12 * masks.mean()


def test_teacher_and_student_part_in_lesions_and_nowhere_else(detector, lesions):
    slices, masks = lesions
    healthy = detector.decision_function(make_slices(12, seed=3))
    maps = detector.decision_function(slices)
    assert maps[masks].mean() > 3 * healthy[masks].mean()
    assert maps.min() >= 0
    assert detector.predict(make_slices(40, seed=4)).mean() < 0.03


def test_it_heals_nothing_and_says_so_by_returning_the_slices(detector, lesions):
    assert np.array_equal(detector.transform(lesions[0]), lesions[0])


def test_no_result_depends_on_the_other_slices(detector, lesions):
    slices, _ = lesions
    together = detector.decision_function(slices)
    np.testing.assert_allclose(detector.decision_function(slices[5:6])[0], together[5], atol=1e-5)


def test_both_trainings_leave_their_history(detector):
    assert len(detector.history_["loss"]) == 100
    assert len(detector.history_["backbone_loss"]) == 60
    assert detector.n_iter_ == 160
    assert detector.history_["loss"][-1] < 0.3 * detector.history_["loss"][0]


def test_a_student_that_returns_the_features_has_no_distance():
    config = {"feature_widths": [4, 8], "widths": [2, 4, 8]}
    network = new_network(ReverseDistiller, config, torch.Generator().manual_seed(0))
    images = torch.rand(2, 1, 30, 37)
    features = network.encoder(images)
    assert [one.shape for one in network(images)] == [(2, 16, 20), (2, 8, 10)]
    for head, one in zip(network.to_features, features[::-1], strict=True):
        head.forward = lambda x, one=one: 3 * one  # only the angle counts
    assert all(distance.abs().max() < 1e-5 for distance in network(images))
