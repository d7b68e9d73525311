import numpy as np
import pytest
import torch
from conftest import build, make_slices, plant_lesions
from sklearn.metrics import average_precision_score, roc_auc_score

from skmimood.baselines import SyntheticAnomalyRestorer
from skmimood.detectors.synthetic import with_severity
from skmimood.exceptions import InputError


@pytest.fixture(scope="module")
def detector(healthy) -> SyntheticAnomalyRestorer:
    return build(
        SyntheticAnomalyRestorer, channels=8, depth=3, erosion=1, median_filter=3, learning_rate=3e-3, warmup_iter=10,
        validation_fraction=0.25, precision="float32", random_state=0, max_iter=150,
    ).fit(healthy)  # fmt: skip


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
    assert np.abs(healed - healthy)[masks].mean() < 0.5 * np.abs(slices - healthy)[masks].mean()
    assert np.abs(detector.transform(healthy) - healthy).mean() < 0.02


def test_maps_are_means_over_the_severities(detector, lesions):
    slices, _ = lesions
    maps = [
        detector.set_params(severities=chosen).decision_function(slices)
        for chosen in ((0.2,), (1.0,), (0.2, 1.0))
    ]
    detector.set_params(severities=(0.25, 0.5, 0.75, 1.0))
    assert not np.allclose(maps[0], maps[1], atol=1e-3)
    np.testing.assert_allclose((maps[0] + maps[1]) / 2, maps[2], atol=1e-6)


def test_the_severity_is_a_channel_of_its_own():
    images = torch.rand(3, 4, 5)
    together = with_severity(images, torch.tensor([0.1, 0.2, 0.3]))
    assert together.shape == (3, 2, 4, 5)
    assert torch.equal(together[:, 0], images)
    assert torch.equal(together[:, 1, 0, 0], torch.tensor([0.1, 0.2, 0.3]))


@pytest.mark.parametrize("severities", [(), (0.0, 1.0), (1.5,)])
def test_severities_out_of_range_are_refused(severities):
    with pytest.raises(InputError, match="severities must be a sequence of severities"):
        SyntheticAnomalyRestorer(severities=severities).fit(make_slices(8))
