import numpy as np
import pytest
from conftest import build, make_slices, plant_lesions
from sklearn.metrics import average_precision_score, roc_auc_score

from skmimood.baselines import ForeignPatchInterpolation
from skmimood.detectors.foreign_patch import mix_patches, most_alike


def small(**parameters) -> ForeignPatchInterpolation:
    common = {
        "n_neighbors": 63, "channels": 8, "depth": 3, "learning_rate": 1e-2, "warmup_iter": 10,
        "validation_fraction": 0.25, "precision": "float32", "random_state": 0, "max_iter": 200,
    }  # fmt: skip
    return build(ForeignPatchInterpolation, **{**common, **parameters})


def subjects(n: int, seed: int) -> np.ndarray:
    """Return slices of subjects who differ in brightness, so that a patch of another one can be told."""
    gains = np.random.default_rng(seed).uniform(0.5, 1, (n, 1, 1)).astype(np.float32)
    return gains * make_slices(n, seed=seed)


@pytest.fixture(scope="module")
def detector() -> ForeignPatchInterpolation:
    return small().fit(subjects(64, 0))


def test_a_square_of_foreign_intensity_is_found(detector):
    slices, masks = plant_lesions(subjects(12, 3), value=0.7)
    maps = detector.decision_function(slices)
    assert 0 <= maps.min() <= maps.max() <= 1
    assert roc_auc_score(masks.ravel(), maps.ravel()) > 0.9
    assert average_precision_score(masks.ravel(), maps.ravel()) > 5 * masks.mean()


def test_it_heals_nothing_and_says_so_by_returning_the_slices(detector):
    slices, _ = plant_lesions(make_slices(3, seed=3))
    assert np.array_equal(detector.transform(slices), slices)


def test_few_healthy_pixels_are_called_anomalous(detector):
    assert detector.predict(subjects(40, 4)).mean() < 0.03


def test_maps_are_0_where_the_surface_is_cut_off(detector):
    slices = make_slices(3, seed=5)
    cut = detector.set_params(erosion=2).decision_function(slices)
    detector.set_params(erosion=0)
    assert not cut[slices == 0].any()


def test_the_factor_of_a_mixture_is_that_of_the_pixels_that_changed():
    rng = np.random.default_rng(0)
    own, foreign = rng.random((2, 50, 32, 40)).astype(np.float32)
    mixed, factors = mix_patches(own, foreign, rng)
    assert mixed.dtype == factors.dtype == np.float32
    changed = factors > 0
    assert np.abs(mixed - own)[~changed].max() <= 1e-3
    assert np.allclose((mixed - own)[changed], (factors * (foreign - own))[changed], atol=1e-6)
    heights, widths = changed.any(2).sum(1), changed.any(1).sum(1)
    assert min(heights.min(), widths.min()) >= 2
    assert max(heights.max(), widths.max()) <= 0.4 * 40 + 1
    assert all(len(np.unique(one[one > 0])) == 1 for one in factors)
    assert factors[changed].min() >= 0.05
    assert factors.max() <= 0.95


def test_a_mixture_of_equal_slices_is_no_anomaly():
    images = make_slices(4)
    mixed, factors = mix_patches(images, images, np.random.default_rng(0))
    assert np.array_equal(mixed, images)
    assert not factors.any()


def test_the_other_slice_is_one_of_those_that_are_most_alike():
    images = np.concatenate([make_slices(5), 0.2 * make_slices(5)])
    neighbours = most_alike(images, 4)
    assert (neighbours[:5] < 5).all()
    assert (neighbours[5:] >= 5).all()
    assert not (neighbours == np.arange(10)[:, None]).any()
    assert most_alike(images, 100).shape == (10, 9)
    assert most_alike(images[:1], 4).tolist() == [[0]]
