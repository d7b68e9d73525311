import math

import numpy as np
import pytest

from skmimood.exceptions import InputError, ModelLoadError, SkmimoodWarning
from skmimood.maps.conformal import HealthyReference, ScoreHistogram


def _scores(seed, n_scans=40, n_pixels=500):
    rng = np.random.default_rng(seed)
    return [(rng.gamma(2.0, 0.05, n_pixels).astype(np.float32), rng.random()) for _ in range(n_scans)]


def test_new_healthy_pixels_exceed_the_threshold_at_the_stated_rate():
    reference = HealthyReference.from_scans(_scores(0, n_scans=50, n_pixels=2000))
    fresh = np.concatenate([pixels for pixels, _ in _scores(1, n_scans=50, n_pixels=2000)])
    for fpr in (0.2, 0.05, 0.01):
        assert np.mean(fresh > reference.pixel_threshold(fpr)) == pytest.approx(fpr, rel=0.15)


def test_new_healthy_scans_exceed_the_threshold_at_no_more_than_the_stated_rate():
    rng = np.random.default_rng(0)
    exceeded = []
    for _ in range(500):
        scores = rng.random(20)
        reference = HealthyReference.from_scans((np.ones(1, np.float32), score) for score in scores[:19])
        exceeded.append(scores[19] > reference.scan_threshold(0.05))
    assert np.mean(exceeded) == pytest.approx(0.05, abs=0.02)


def test_the_threshold_is_the_conformal_order_statistic():
    scans = [(np.arange(1, 100, dtype=np.float32), float(score)) for score in range(1, 20)]
    reference = HealthyReference.from_scans(scans)
    assert reference.scan_threshold(0.05) == 19  # ceil(20 * 0.95) = 19th smallest of 19
    assert reference.scan_threshold(0.1) == 18
    assert reference.pixel_threshold(0.05) == pytest.approx(95, rel=6e-4)


def test_the_rate_of_a_threshold_can_be_looked_up():
    scans = [(np.arange(1, 100, dtype=np.float32), float(score)) for score in range(1, 20)]
    reference = HealthyReference.from_scans(scans)
    for fpr in (0.05, 0.1, 0.5):
        assert reference.scan_fpr(reference.scan_threshold(fpr)) == pytest.approx(fpr)
    assert reference.pixel_fpr(reference.pixel_threshold(0.1)) == pytest.approx(0.1, abs=0.02)
    assert reference.scan_fpr(-1) == reference.pixel_fpr(-1) == 1
    assert reference.scan_fpr(1000) == pytest.approx(1 / 20)
    assert reference.scan_fpr(math.inf) == reference.pixel_fpr(math.inf) == 0


def test_a_score_is_above_the_threshold_exactly_when_its_p_value_is_at_most_the_rate():
    reference = HealthyReference.from_scans(_scores(2))
    fresh = np.concatenate([pixels for pixels, _ in _scores(3)])
    for fpr in (0.3, 0.0471, 0.01, 0.001):
        np.testing.assert_array_equal(
            fresh > reference.pixel_threshold(fpr), reference.pixel_pvalue(fresh) <= fpr
        )
    for score in np.linspace(-0.1, 1.1, 50):
        assert (score > reference.scan_threshold(0.07)) == (reference.scan_pvalue(score) <= 0.07)


@pytest.mark.parametrize("n", [9, 10, 99, 999, 1234, 2**20])
def test_a_rate_that_is_a_possible_p_value_calls_the_pixels_of_that_p_value(n):
    values, counts = np.arange(1, 10, dtype=np.float32), np.full(9, n // 9)
    counts[0] += n % 9
    reference = HealthyReference(values, counts, np.arange(n, dtype=float))
    scores = np.arange(12, dtype=np.float32)
    rates = {count / (n + 1) for count in 1 + np.append(np.cumsum(counts[::-1]), 0)} | {
        0.1,
        0.2,
        0.29,
        0.3,
        1 / 3,
        0.7,
    }
    for fpr in (rate for rate in rates if 1 / (n + 1) <= rate < 1):
        pvalues = reference.pixel_pvalue(scores)
        for read in (pvalues, pvalues.astype(np.float64)):
            assert ((scores > reference.pixel_threshold(fpr)) == (read <= fpr)).all()
    for fpr in (0.1, 0.29, 0.3, 1 / 3, 0.3 - 1e-16, 0.1 + 0.2):
        for score in np.linspace(0, n, 50).round():
            assert (score > reference.scan_threshold(fpr)) == (reference.scan_pvalue(score) <= fpr)


def test_p_values_are_conformal_fall_with_the_score_and_are_never_zero():
    pixels = np.array([0, 0, 1, 2], dtype=np.float32)
    reference = HealthyReference.from_scans([(pixels, 1.0), (pixels, 3.0)])
    pvalues = reference.pixel_pvalue(np.array([[-1, 0, 0.5], [1.5, 2.5, 2]], dtype=np.float32))
    np.testing.assert_allclose(pvalues, np.array([[9, 9, 5], [3, 1, 3]]) / 9, rtol=1e-6)
    assert pvalues.dtype == np.float32
    assert reference.scan_pvalue(2.0) == pytest.approx(2 / 3)
    assert reference.scan_pvalue(99.0) == pytest.approx(1 / 3)


def test_a_missing_pixel_has_a_missing_p_value():
    reference = HealthyReference.from_scans(_scores(0))
    assert np.isnan(reference.pixel_pvalue(np.array([np.nan], np.float32))[0])


def test_negative_scores_and_scores_of_any_magnitude_keep_their_order():
    pixels = np.array([-1e6, -3.0, -1e-6, -0.0, 0.0, 1e-6, 3.0, 1e6], dtype=np.float32)
    values, counts = (table := ScoreHistogram()).add(pixels) or table.occupied()
    assert counts.tolist() == [1, 1, 1, 2, 1, 1, 1]
    np.testing.assert_allclose(values, pixels[[0, 1, 2, 4, 5, 6, 7]], rtol=6e-4, atol=1e-30)
    assert np.all(values >= pixels[[0, 1, 2, 4, 5, 6, 7]])


def test_too_few_scans_give_an_infinite_threshold_and_a_warning_with_the_number_needed():
    reference = HealthyReference.from_scans(_scores(0, n_scans=5))
    with pytest.warns(SkmimoodWarning, match=r"at least 19 healthy scans for calibration; there are 5"):
        assert reference.scan_threshold(0.05) == math.inf


def test_too_few_pixels_give_an_infinite_threshold_and_a_warning():
    reference = HealthyReference.from_scans(_scores(0, n_scans=1, n_pixels=10))
    with pytest.warns(SkmimoodWarning, match="at least 99 healthy pixels"):
        assert reference.pixel_threshold(0.01) == math.inf


@pytest.mark.parametrize("fpr", [0, 1, -0.1, 1.5, math.nan, "0.05", None, True])
def test_a_rate_outside_zero_and_one_is_refused(fpr):
    reference = HealthyReference.from_scans(_scores(0))
    with pytest.raises(InputError, match="between 0 and 1"):
        reference.pixel_threshold(fpr)
    with pytest.raises(InputError, match="between 0 and 1"):
        reference.scan_threshold(fpr)


@pytest.mark.parametrize("scans", [[], [(np.zeros(0, np.float32), 1.0)]])
def test_calibration_without_scans_or_pixels_is_refused(scans):
    with pytest.raises(InputError, match="at least 1 healthy scan"):
        HealthyReference.from_scans(scans)


@pytest.mark.parametrize("scan", [(np.array([np.nan], np.float32), 1.0), (np.ones(3, np.float32), math.inf)])
def test_scores_that_are_not_finite_are_refused(scan):
    with pytest.raises(InputError, match="NaN or inf"):
        HealthyReference.from_scans([scan])


def test_the_table_is_small_however_many_pixels_there_are():
    rng = np.random.default_rng(0)
    scans = ((rng.gamma(2, 0.05, 10**6).astype(np.float32), 0.5) for _ in range(3))
    reference = HealthyReference.from_scans(scans)
    assert reference.n_pixels == 3 * 10**6
    assert sum(array.nbytes for array in reference.to_arrays().values()) < 10**6


def test_a_reference_comes_back_from_its_arrays():
    reference = HealthyReference.from_scans(_scores(0))
    again = HealthyReference.from_arrays(reference.to_arrays())
    assert again.pixel_threshold(0.01) == reference.pixel_threshold(0.01)
    assert again.scan_threshold(0.05) == reference.scan_threshold(0.05)
    assert again.n_pixels == reference.n_pixels


@pytest.mark.parametrize(
    "damage",
    [
        {"pixel_values": np.zeros(0, np.float32)},
        {"pixel_counts": np.array([-1, 2])},
        {"pixel_values": np.array([2.0, 1.0], np.float32)},
        {"scan_scores": np.array([np.nan])},
        {"scan_scores": np.zeros((1, 1))},
        {"pixel_values": None},
    ],
)
def test_damaged_arrays_are_refused_when_a_model_is_loaded(damage):
    arrays = {
        "pixel_values": np.array([1.0, 2.0], np.float32),
        "pixel_counts": np.array([3, 4]),
        "scan_scores": np.array([0.5]),
    }
    HealthyReference.from_arrays(arrays)
    with pytest.raises(ModelLoadError):
        HealthyReference.from_arrays({**arrays, **damage})
    with pytest.raises(ModelLoadError):
        HealthyReference.from_arrays({name: arrays[name] for name in arrays if name not in damage})
