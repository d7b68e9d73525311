"""The sample of slices that a fit learns from: uniform, and in the order of the scans."""

import numpy as np

from skmimood.scans.fitting import SliceReservoir


def test_the_reservoir_keeps_the_order_of_the_stream():
    reservoir = SliceReservoir(10, (2, 2), np.random.default_rng(0))
    for start in (0, 50, 100):
        reservoir.add(np.arange(start, start + 50, dtype=np.float32).reshape(-1, 1, 1) * np.ones((1, 2, 2)))
        kept = reservoir.slices
        assert len(np.unique(kept)) == 10
        assert np.all(np.diff(kept[:, 0, 0]) > 0)
        assert np.all(kept == kept[:, :1, :1])
    assert kept.max() > 50


def test_the_reservoir_draws_from_the_whole_stream_evenly():
    kept = np.zeros(40)
    for seed in range(300):
        reservoir = SliceReservoir(10, (1, 1), np.random.default_rng(seed))
        for start in range(0, 40, 8):
            reservoir.add(np.arange(start, start + 8, dtype=np.float32).reshape(-1, 1, 1))
        kept[reservoir.slices.ravel().astype(int)] += 1
    assert kept.sum() == 3000
    assert kept.min() > 45
    assert kept.max() < 105
