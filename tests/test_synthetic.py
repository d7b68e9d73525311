import numpy as np
from conftest import make_slices

from skmimood.training.painted_anomalies import paint_anomalies

HEALTHY = make_slices(40, seed=5, size=64)


def painted(seed=0, images=HEALTHY):
    return paint_anomalies(images, np.random.default_rng(seed))


def test_only_what_is_marked_has_visibly_changed():
    slices, changed = painted()
    assert np.abs(slices - HEALTHY)[~changed].max() <= 0.04
    assert np.abs(slices - HEALTHY)[changed].min() > 0.04


def test_nearly_every_slice_gets_an_anomaly_and_none_is_covered_by_it():
    shares = painted()[1].mean((1, 2))
    assert (shares > 0).mean() > 0.8
    assert shares.max() < 0.5


def test_anomalies_are_brighter_and_darker_and_stay_in_the_head():
    slices, changed = painted()
    difference = (slices - HEALTHY)[changed]
    assert (difference > 0).mean() > 0.1
    assert (difference < 0).mean() > 0.1
    assert not changed[HEALTHY == 0].any()
    assert 0 <= slices.min() <= slices.max() <= 1


def test_the_same_seed_paints_the_same():
    np.testing.assert_array_equal(painted()[0], painted()[0])
    assert not np.array_equal(painted(1)[0], painted()[0])


def test_the_slices_themselves_are_left_alone_and_empty_ones_stay_empty():
    images = HEALTHY.copy()
    images[3] = 0
    before = images.copy()
    slices, changed = painted(images=images)
    np.testing.assert_array_equal(images, before)
    assert not changed[3].any()
    assert slices[3].max() == 0


def test_a_single_slice_can_be_painted():
    slices, changed = painted(images=HEALTHY[:1])
    assert slices.shape == changed.shape == (1, 64, 64)
