"""The protocol of the benchmark: fit, choice on val, test, and intervals over patients."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from benchmark_toys import Brightness, toy_set, with_lesion_area
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from benchmarks.protocol import scores, stages
from benchmarks.protocol.bootstrap import Resamples, count, pixel_figures, precision_recall
from skmimood import metrics


@pytest.fixture
def slices():
    return toy_set()


def rows_of(rows, **place):
    return [row for row in rows if place.items() <= row.items()]


def test_parameters_are_chosen_by_the_ap_on_val(slices):
    estimator = Brightness().fit(slices.training().images)
    chosen, trials = stages.select(estimator, {"bright": [False, True]}, slices.tumour("val"))
    assert chosen == {"bright": True}
    assert estimator.bright
    assert trials[1]["ap"] > trials[0]["ap"]


def test_a_single_candidate_is_set_without_scoring(slices):
    before = Brightness.calls["score"]
    estimator = Brightness()
    chosen, _ = stages.select(estimator, {"power": [2.0]}, slices.tumour("val"))
    assert (chosen, estimator.power, Brightness.calls["score"]) == ({"power": 2.0}, 2.0, before)


def test_lambda_t_and_r_are_chosen_from_one_path_as_from_separate_runs(slices, quick_pipeline, monkeypatch):
    quick_pipeline.fit(slices.training().images)
    grid = [
        {"detector__threshold": [0.3, 0.5], "inpainter__n_steps": [2, 1], "inpainter__n_restorations": [2]},
        {"inpainter__maps__mean_filter": [3, 7]},
    ]
    by_path = stages.select(quick_pipeline, grid, slices.tumour("val"))
    monkeypatch.setattr(stages, "varies_restorations_alone", lambda estimator, stage: False)
    assert stages.select(quick_pipeline, grid, slices.tumour("val")) == by_path
    assert len({trial["ap"] for trial in by_path[1]}) > 3


def test_the_choice_looks_at_evenly_spread_slices_of_many(slices):
    class Spy(Brightness):
        def decision_function(self, X):
            self.n_seen = len(X)
            return super().decision_function(X)

    spy = Spy()
    stages.select(spy, {"power": [1.0, 2.0]}, slices.tumour("val"), max_slices=4)
    assert spy.n_seen == 4


def test_the_threshold_comes_from_val_whatever_test_looks_like(slices):
    outcome = stages.evaluate(Brightness(), slices)
    row = rows_of(outcome.rows, split="test", slices="tumour", level="pixel", region="all")[0]
    val, test = slices.tumour("val"), slices.tumour("test")
    threshold = metrics.best_dice(val.lesions, val.images, return_threshold=True)[1]
    expected = metrics.dice_at_threshold(test.lesions, test.images, threshold)
    assert row["dice_at_val_threshold"] == expected
    assert row["dice_at_val_threshold"] < row["best_dice"]  # test lesions are darker than those of val


def test_figures_pool_the_pixels_of_the_slices_that_a_row_names(slices):
    rows = stages.evaluate(Brightness(), slices).rows
    test = slices.evaluated("test")
    head = rows_of(rows, split="test", slices="head", level="pixel")
    for name, value in exact(test.lesions, test.images).items():
        assert head[0][name] == pytest.approx(value, abs=1e-12)
    assert head[1]["region"] == "interior"
    inside = metrics.average_precision(test.lesions, test.images, where=test.region)
    assert head[1]["ap"] == pytest.approx(inside, abs=1e-12)
    assert len(rows_of(rows, slices="bright")) == 2 * 2
    assert all("seconds_per_32" in row for row in rows_of(rows, split="test", level="pixel"))


def test_thirds_by_lesion_area_hold_every_tumour_slice_once(slices):
    test = slices.evaluated("test")
    rows = np.where(test.has_lesion, np.arange(len(test)) % 7 + 1, 0)
    test = with_lesion_area(test, rows)
    thirds = scores.strata(test)
    together = np.stack([thirds[name] for name in ("small", "medium", "large")])
    np.testing.assert_array_equal(together.sum(0), test.has_lesion)
    areas = test.lesions.sum((1, 2))
    assert areas[thirds["small"]].max() < areas[thirds["medium"]].min()
    assert areas[thirds["medium"]].max() < areas[thirds["large"]].min()


def test_equal_scores_everywhere_are_worth_the_base_rate(slices):
    test = slices.evaluated("test")
    rows = scores.pixel_rows(np.ones_like(test.images), test, {"all": 1.0, "interior": 1.0})
    for row in rows_of(rows, slices="tumour", region="all"):
        base_rate = test[test.has_lesion].lesions.mean()
        assert row["ap"] == pytest.approx(base_rate)
        assert row["best_dice"] == pytest.approx(2 * base_rate / (1 + base_rate))
        assert row["auroc"] == 0.5
    assert rows_of(rows, slices="head", region="all")[0]["false_alarm_rate"] == 0.0


def test_a_region_without_lesions_leaves_figures_undefined_without_warning(slices):
    test = slices.tumour("test")
    outside = replace(test, region=~test.lesions)
    row = rows_of(scores.pixel_rows(test.images, outside), region="interior", slices="tumour")[0]
    assert np.isnan(row["ap"])


def test_a_false_alarm_takes_72_square_millimetres_of_connected_pixels():
    maps = np.zeros((4, 16, 16))
    maps[0, :4, :5] = 1  # 20 in one piece
    maps[1, :1, :10] = maps[1, 3:4, :10] = 1  # 20 in two
    maps[2, np.arange(16), np.arange(16)] = 1
    maps[2, 12:14, 5:9] = 1  # 16 joined at corners, and 8 apart
    maps[3, :4, :5] = 0.5
    np.testing.assert_array_equal(scores.false_alarms(maps, 0.5, 1.9), [True, False, False, False])
    np.testing.assert_array_equal(scores.false_alarms(maps, 0.5, 2.7), [True, True, True, False])
    assert not scores.false_alarms(maps, 0.5, 2.7, np.zeros(maps.shape, bool)).any()


def test_false_alarms_are_counted_on_tumour_free_slices_alone(slices):
    test = slices.evaluated("test")
    maps = test.lesions.astype(float)
    free = np.flatnonzero(~test.has_lesion)
    maps[free[0], 5:10, 5:10] = 1
    head = rows_of(scores.pixel_rows(maps, test, {"all": 0.5, "interior": 0.5}), slices="head", region="all")
    assert head[0]["false_alarm_rate"] == pytest.approx(1 / len(free))


def test_slices_are_scored_by_the_top_of_their_map_and_by_a_score_of_their_own(slices):
    class Classifier(Brightness):
        def score_samples(self, X):
            return -X.mean((1, 2))

    test = slices.evaluated("test")
    (row,) = scores.image_rows(test.lesions.astype(float), test)
    assert row["auroc"] == 1.0
    (row,) = scores.classifier_rows(Classifier(), test)
    assert row["region"] == "classifier"
    assert row["auroc"] < 1.0
    assert scores.classifier_rows(Brightness(), test) == []


def test_tokens_are_evaluated_on_val_and_test(slices, quick_pipeline):
    quick_pipeline.fit(slices.training().images)
    rows = rows_of(stages.evaluate(quick_pipeline, slices).rows, level="token")
    assert [(row["split"], row["slices"]) for row in rows] == [
        ("val", "tumour"), ("test", "tumour"), ("test", "head"),
    ]  # fmt: skip
    assert all(0 < row["ap"] < 1 for row in rows)


def test_a_fitted_step_that_comes_from_a_cache_counts_with_the_time_of_its_training(tmp_path, monkeypatch):
    clock = iter([0.0, 50.0, 100.0, 101.0])
    monkeypatch.setattr(stages, "time", SimpleNamespace(perf_counter=lambda: next(clock)))

    class Network(BaseEstimator):
        def fit(self, X):
            self.state_ = {"weights": np.ones(3)}
            return self

    seconds = [stages.fit(Network(), np.zeros((2, 8, 8)), tmp_path / "ledger.json") for _ in range(2)]
    assert seconds == [50.0, 50.0]


def test_a_training_is_told_whose_slices_it_gets(slices):
    told = []

    class Step(BaseEstimator):
        def fit(self, X, y=None, groups=None):
            told.append(groups)
            return self

        def transform(self, X):
            return X

    pipeline = Pipeline([("first", Step()), ("toy", Brightness()), ("last", Step())])
    pipeline["toy"].transform = lambda X: X
    images, patients = slices.training().images, slices.training().patients
    stages.fit(pipeline, images, None, patients)
    assert len(images) == len(patients)
    assert [groups.tolist() for groups in told] == 2 * [patients.tolist()]
    assert {*patients} == {"train-0", "train-1", "train-2"}


def exact(labels, scores):
    return {
        "best_dice": metrics.best_dice(labels, scores),
        "ap": metrics.average_precision(labels, scores),
        "auroc": metrics.auroc(labels, scores),
    }


def random_maps(n=12, seed=0, levels=None):
    rng = np.random.default_rng(seed)
    labels = rng.random((n, 24, 24)) < 0.05
    scores = (rng.normal(size=labels.shape) + 1.5 * labels).astype(np.float32)
    return labels, scores if levels is None else np.round(scores * levels).astype(np.float32)


def test_counts_of_few_distinct_scores_give_the_exact_figures():
    labels, scores = random_maps(levels=2)
    counts = count(labels, scores, np.arange(12) // 4, 0.0)
    figures = pixel_figures(counts.positives.sum(0), counts.negatives.sum(0))
    for name, value in exact(labels, scores).items():
        assert figures[name] == pytest.approx(value, abs=1e-12)
    assert counts.positives.sum() == labels.sum()
    assert counts.negatives.sum() == (~labels).sum()


def test_counts_in_bins_are_close_to_the_exact_figures():
    labels, scores = random_maps(n=40)
    counts = count(labels, scores, np.arange(40) // 4, 0.0, n_bins=1024)
    figures = pixel_figures(counts.positives.sum(0), counts.negatives.sum(0))
    for name, value in exact(labels, scores).items():
        assert figures[name] == pytest.approx(value, abs=3e-3)


def test_intervals_tell_the_exact_figures_with_those_at_the_val_threshold():
    labels, scores = random_maps(levels=2)
    counts = count(labels, scores, np.arange(12) // 4, 1.0)
    means = Resamples.of([counts], n_resamples=10).means
    assert means["ap"] == pytest.approx(exact(labels, scores)["ap"])
    assert means["dice_at_val_threshold"] == pytest.approx(metrics.dice_at_threshold(labels, scores, 1.0))


def test_an_interval_collapses_where_all_patients_are_the_same_one():
    labels, scores = random_maps(n=4)
    copies = count(np.tile(labels, (5, 1, 1)), np.tile(scores, (5, 1, 1)), np.repeat(np.arange(5), 4), 0.0)
    for mean, low, high in Resamples.of([copies], n_resamples=50).intervals().values():
        assert low == pytest.approx(mean)
        assert high == pytest.approx(mean)


def test_patients_are_drawn_with_all_their_slices():
    # Of two patients one is scored perfectly and one backwards: a resample of slices would mix them, one of
    # patients gives only three outcomes.
    labels, _ = random_maps(n=20)
    patients = np.repeat([0, 1], 10)
    scores = np.where(patients[:, None, None] == 0, labels, ~labels).astype(np.float32)
    draws = Resamples.of([count(labels, scores, patients, 0.5)], n_resamples=200).draws["auroc"]
    assert len(np.unique(draws.round(6))) == 3


def test_intervals_average_over_seeds():
    seeds = [count(*random_maps(seed=seed), np.arange(12) // 4, 0.0) for seed in range(2)]
    single = [Resamples.of([one], n_resamples=20) for one in seeds]
    both = Resamples.of(seeds, n_resamples=20)
    assert both.means["ap"] == pytest.approx(np.mean([one.means["ap"] for one in single]))
    np.testing.assert_allclose(both.draws["ap"], np.mean([one.draws["ap"] for one in single], axis=0))


def test_differences_are_paired_by_patient():
    labels, scores = random_maps()
    one = Resamples.of([count(labels, scores, np.arange(12) // 4, 0.0)], n_resamples=50)
    assert set(one.intervals(minus=one).values()) == {(0.0, 0.0, 0.0)}
    better = Resamples.of([count(labels, scores + labels, np.arange(12) // 4, 0.0)], n_resamples=50)
    mean, low, _ = better.intervals(minus=one)["ap"]
    assert mean > low > 0


def test_a_curve_starts_at_the_highest_scores_and_ends_at_the_base_rate():
    labels, scores = random_maps()
    recall, precision = precision_recall(count(labels, scores, np.zeros(12), 0.0))
    assert len(recall) <= 100
    assert (np.diff(recall) > 0).all()
    assert (recall[-1], precision[-1]) == (1.0, pytest.approx(labels.mean(), rel=0.3))
