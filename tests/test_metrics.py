import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.model_selection import GridSearchCV, PredefinedSplit

from skmimood.exceptions import InputError
from skmimood.metrics import (
    auroc,
    average_precision,
    best_dice,
    dice_at_threshold,
    false_positive_rate,
    lesion_detection,
    pixel_auroc_scorer,
    pixel_average_precision_scorer,
    pixel_best_dice_scorer,
    token_labels,
)

SCORERS = [pixel_average_precision_scorer, pixel_best_dice_scorer, pixel_auroc_scorer]


def _random_case(seed, levels=None):
    """Return labels with at least one lesion pixel, and scores, tied if `levels` is given."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 6, 3))
    labels = rng.random(shape) < rng.uniform(0.05, 0.9)
    labels.flat[rng.integers(labels.size)] = True
    scores = rng.integers(0, levels, shape) / 7 if levels else rng.standard_normal(shape)
    return labels, scores.astype(rng.choice([np.float32, np.float64]))


def _dice(labels, detected):
    return 2 * np.sum(labels & detected) / (labels.sum() + detected.sum())


@pytest.mark.parametrize("levels", [None, 2, 4])
def test_best_dice_is_the_maximum_over_all_thresholds(levels):
    for seed in range(150):
        labels, scores = _random_case(seed, levels)
        dice, threshold = best_dice(labels, scores, return_threshold=True)
        brute = {t: _dice(labels, scores >= t) for t in np.unique(scores)}  # every cut, from below
        assert dice == pytest.approx(max(brute.values()), abs=1e-12)
        assert dice == pytest.approx(dice_at_threshold(labels, scores, threshold), abs=1e-12)
        highest = max(t for t, value in brute.items() if value >= dice - 1e-12)
        assert not np.any((scores < highest) & (scores > threshold))
        assert threshold < highest


def test_best_dice_does_not_depend_on_the_order_of_tied_pixels():
    labels = np.array([True, False, True, False])
    assert best_dice(labels, np.zeros(4)) == best_dice(labels[::-1], np.zeros(4)) == pytest.approx(2 / 3)


def test_best_dice_keeps_float32_scores_apart():
    scores = np.nextafter(np.float32(1), np.float32([2, 0]))
    dice, threshold = best_dice([True, False], scores, return_threshold=True)
    assert dice == dice_at_threshold([True, False], scores, threshold) == 1


def test_perfect_and_inverted_scores_reach_the_bounds():
    labels = np.zeros((2, 8, 8), dtype=bool)
    labels[0, 2:4, 2:4] = True
    assert best_dice(labels, labels) == average_precision(labels, labels) == auroc(labels, labels) == 1
    assert auroc(labels, 1.0 - labels) == 0


def test_average_precision_is_the_mean_precision_at_the_lesion_pixels():
    for seed in range(50):
        labels, scores = _random_case(seed)
        ranked = labels.ravel()[np.argsort(-scores.ravel())]
        precision = np.cumsum(ranked) / np.arange(1, ranked.size + 1)
        assert average_precision(labels, scores) == pytest.approx(precision[ranked].mean())


def test_auroc_is_the_probability_that_a_lesion_pixel_scores_higher():
    for seed in range(50):
        labels, scores = _random_case(seed, levels=5)
        if labels.all():
            continue
        pairs = scores[labels][:, None] - scores[~labels]
        assert auroc(labels, scores) == pytest.approx(np.mean(pairs > 0) + 0.5 * np.mean(pairs == 0))


def test_only_pixels_in_where_count():
    labels, scores = _random_case(0)
    padded = [
        np.concatenate([values, np.full_like(values, fill)])
        for values, fill in ((labels, True), (scores, np.nan))
    ]
    where = np.concatenate([np.ones_like(labels), np.zeros_like(labels)])
    for metric in (best_dice, average_precision, auroc):
        assert metric(*padded, where=where) == metric(labels, scores)
    assert dice_at_threshold(*padded, 0.1, where=where) == dice_at_threshold(labels, scores, 0.1)


def test_the_false_positive_rate_is_the_share_of_healthy_pixels_above_the_threshold():
    labels = np.array([0, 0, 0, 0, 1])
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.9])
    assert false_positive_rate(labels, scores, 0.3) == 0.25
    assert dice_at_threshold(labels, scores, 0.4) == 1
    assert false_positive_rate(labels, scores, np.inf) == 0
    assert dice_at_threshold(labels, scores, np.inf) == 0


@pytest.mark.parametrize("metric", [best_dice, average_precision, auroc])
def test_without_lesions_metrics_warn_and_are_nan(metric):
    with pytest.warns(UndefinedMetricWarning, match="undefined without lesion pixels"):
        assert np.isnan(metric(np.zeros((2, 3, 3)), np.ones((2, 3, 3))))


def test_without_healthy_pixels_rates_warn_and_are_nan():
    with pytest.warns(UndefinedMetricWarning, match="without healthy pixels"):
        assert np.isnan(auroc(np.ones(4), np.arange(4.0)))
    with pytest.warns(UndefinedMetricWarning, match="without healthy pixels"):
        assert np.isnan(false_positive_rate(np.ones(4), np.arange(4.0), 2))


@pytest.mark.parametrize(
    ("y_true", "y_score", "fault"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2)), r"same shape; got \(2, 3\) and \(3, 2\)"),
        (np.array([0, 1]), np.array([0.1, np.nan]), "1 NaN or infinite"),
        (np.array([0, 2]), np.array([0.1, 0.2]), "y_true must hold only 0 and 1"),
        (np.array([0.0, np.nan]), np.array([0.1, 0.2]), "y_true must hold only 0 and 1"),
        (np.array(["a", "b"]), np.array([0.1, 0.2]), "y_true must hold only 0 and 1"),
        (np.array([0, 1]), np.array(["a", "b"]), "y_score must be numeric"),
        (np.array([]), np.array([]), "no pixels"),
    ],
)
@pytest.mark.parametrize("metric", [best_dice, average_precision, auroc])
def test_wrong_inputs_are_named(metric, y_true, y_score, fault):
    with pytest.raises(InputError, match=fault):
        metric(y_true, y_score)


def test_a_nan_threshold_and_a_foreign_where_are_refused():
    with pytest.raises(InputError, match="threshold must be a number"):
        dice_at_threshold([0, 1], [0.1, 0.2], np.nan)
    with pytest.raises(InputError, match="where must have the shape of y_true"):
        best_dice([0, 1], [0.1, 0.2], where=[True])


def _three_lesions():
    truth = np.zeros((2, 12, 12), dtype=bool)
    truth[0, 1:3, 1:3] = True
    truth[0, 6:10, 6:10] = True
    truth[1, 0:2, 0:2] = True
    return truth


def test_lesions_are_detected_by_overlap_and_false_alarms_are_counted():
    truth = _three_lesions()
    detected = np.zeros_like(truth)
    detected[0, 2, 2] = True  # a quarter of the first lesion
    detected[0, 6, 6] = True  # a sixteenth of the second
    detected[1, 8:10, 8:10] = True  # beside the third
    found = lesion_detection(truth, detected, min_overlap=0.25)
    assert (found.n_lesions, found.n_detected, found.n_detections, found.n_false_positives) == (3, 1, 3, 1)
    assert found.recall == pytest.approx(1 / 3)
    assert found.precision == pytest.approx(2 / 3)
    assert found.false_positives_per_image == 0.5
    assert lesion_detection(truth, detected, min_overlap=0.05).n_detected == 2


def test_small_detections_can_be_ignored():
    truth = _three_lesions()
    detected = np.zeros_like(truth)
    detected[0, 2, 2] = detected[1, 8, 8] = True
    found = lesion_detection(truth, detected, min_size=2)
    assert (found.n_detected, found.n_detections, found.n_false_positives) == (0, 0, 0)
    assert np.isnan(found.precision)


def test_pixels_that_touch_at_a_corner_are_one_lesion_also_through_slices():
    truth = np.zeros((1, 2, 4, 4), dtype=bool)
    truth[0, 0, 1, 1] = truth[0, 1, 2, 2] = True
    assert lesion_detection(truth, truth).n_lesions == 1
    assert lesion_detection(truth[0], truth[0]).n_lesions == 2


def test_images_without_lesions_only_raise_false_alarms():
    found = lesion_detection(np.zeros((3, 4, 4)), np.ones((3, 4, 4)))
    assert np.isnan(found.recall)
    assert found.false_positives_per_image == 1


def test_wrong_detections_are_refused():
    truth = _three_lesions()
    with pytest.raises(InputError, match="one shape"):
        lesion_detection(truth, truth[:1])
    with pytest.raises(InputError, match=r"np\.newaxis"):
        lesion_detection(truth[0], truth[0])
    with pytest.raises(InputError, match=r"min_overlap must be in \(0, 1\]; got 0"):
        lesion_detection(truth, truth, min_overlap=0)
    with pytest.raises(InputError, match="y_pred must hold only 0 and 1"):
        lesion_detection(truth, truth * 0.5)


@pytest.mark.parametrize("factor", [1, 3, 8, (2, 5)])
def test_token_labels_agree_with_a_loop_over_tokens(factor):
    fy, fx = (factor, factor) if isinstance(factor, int) else factor
    for seed in range(20):
        rng = np.random.default_rng(seed)
        masks = rng.random((2, *rng.integers(1, 20, 2))) < rng.uniform(0, 0.8)
        height, width = masks.shape[1:]
        labels = {rule: token_labels(masks, factor, rule=rule) for rule in ("any", "half", "nearest")}
        assert labels["any"].shape == (2, -(-height // fy), -(-width // fx))
        for i, r, c in np.ndindex(labels["any"].shape):
            token = masks[i, r * fy : (r + 1) * fy, c * fx : (c + 1) * fx]
            assert labels["any"][i, r, c] == token.any()
            assert labels["half"][i, r, c] == (token.sum() / (fy * fx) >= 0.5)
            row, column = min(fy // 2, token.shape[0] - 1), min(fx // 2, token.shape[1] - 1)
            assert labels["nearest"][i, r, c] == token[row, column]


def test_wrong_token_arguments_are_named():
    masks = np.zeros((1, 8, 8))
    with pytest.raises(InputError, match="rule must be"):
        token_labels(masks, rule="all")
    with pytest.raises(InputError, match="factor must be at least 1; got 0"):
        token_labels(masks, 0)
    with pytest.raises(InputError, match=r"np\.newaxis"):
        token_labels(masks[0])
    with pytest.raises(InputError, match="masks must hold only 0 and 1"):
        token_labels(masks + 2)


class _Contrast(BaseEstimator):
    """Scores a pixel by its intensity, or its inverse."""

    def __init__(self, sign=1):
        self.sign = sign

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def decision_function(self, X):
        return self.sign * X


def _images():
    rng = np.random.default_rng(0)
    masks = np.zeros((6, 8, 8), dtype=bool)
    masks[:4, 2:4, 2:5] = True
    return (masks + rng.random(masks.shape)).astype(np.float32), masks


@pytest.mark.parametrize("scorer", SCORERS)
def test_a_grid_search_picks_the_candidate_that_finds_the_lesions(scorer):
    images, masks = _images()
    folds = PredefinedSplit([0, 1, 0, 1, 0, 1])
    search = GridSearchCV(_Contrast(), {"sign": [-1, 1]}, cv=folds, scoring=scorer).fit(images, masks)
    assert search.best_params_ == {"sign": 1}
    assert search.best_score_ == pytest.approx(scorer(_Contrast(), images[:4], masks[:4]), abs=0.3)


@pytest.mark.parametrize("scorer", SCORERS)
def test_on_a_fold_without_lesions_a_scorer_warns_once_and_returns_nan(scorer):
    images, masks = _images()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert np.isnan(scorer(_Contrast(), images[4:], masks[4:]))
    assert [warning.category for warning in caught] == [UndefinedMetricWarning]


@pytest.mark.parametrize("scorer", SCORERS)
def test_whatever_is_not_0_is_lesion_to_a_scorer(scorer):
    images, masks = _images()
    expected = scorer(_Contrast(), images, masks)
    assert scorer(_Contrast(), images, masks * np.uint8(255)) == expected
    assert scorer(_Contrast(), images, masks * 0.5) == expected
    with pytest.raises(InputError, match="y must hold numbers"):
        scorer(_Contrast(), images, np.where(masks, np.nan, 0))


@pytest.mark.parametrize("scorer", SCORERS)
def test_scorers_pickle(scorer):
    assert pickle.loads(pickle.dumps(scorer)) is scorer


def test_scorers_ask_for_masks():
    with pytest.raises(InputError, match="needs lesion masks; got y=None"):
        pixel_auroc_scorer(_Contrast(), _images()[0], None)


def test_metrics_import_neither_torch_nor_scikit_learn():
    code = "import sys, skmimood.metrics; print([m for m in ('torch', 'sklearn') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
