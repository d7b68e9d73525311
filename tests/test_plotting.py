import io
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from conftest import plant_lesions
from matplotlib import pyplot
from sklearn.model_selection import ParameterGrid

from skmimood.baselines import IntensityThreshold
from skmimood.exceptions import InputError
from skmimood.maps.conformal import HealthyReference
from skmimood.plotting import (
    COLUMNS,
    CodebookDisplay,
    ColourScale,
    FalsePositiveRateDisplay,
    LossCurveDisplay,
    RestorationDisplay,
    SearchCurveDisplay,
    SliceDisplay,
)
from skmimood.scans import Gallery, ScanResult

matplotlib.use("Agg")


def make_gallery(k=2):
    rng = np.random.default_rng(0)
    images, healed, maps = rng.uniform(0, 1, (3, k, 24, 20)).astype(np.float32)
    return Gallery(images, healed, maps, maps > 0.2, np.arange(k) + 7)


@pytest.fixture
def scans(healthy):
    return plant_lesions(healthy[:3])


@pytest.fixture
def ax():
    figure, ax = pyplot.subplots()
    yield ax
    pyplot.close(figure)


def reference(n=19, seed=0, factor=1.0):
    """Return a reference of exponential scores; those of the scans are evenly spaced quantiles."""
    rng = np.random.default_rng(seed)
    scan_scores = -factor * np.log((np.arange(n) + 0.5) / n)
    return HealthyReference.from_scans(
        (factor * rng.exponential(size=500).astype(np.float32), score) for score in scan_scores
    )


# Where displays are drawn


def test_a_display_of_its_own_leaves_no_trace_in_pyplot_and_shows_itself_in_notebooks():
    display = SliceDisplay(make_gallery(), 0.2).plot()
    assert pyplot.get_fignums() == []
    assert display._repr_png_().startswith(b"\x89PNG")


def test_a_display_takes_the_place_of_axes_of_the_caller(ax):
    display = SliceDisplay(make_gallery(), 0.2, title="unused").plot(ax)
    assert display.figure_ is ax.figure
    assert display.ax_.shape == (2, len(COLUMNS))
    assert display._repr_png_() is None
    assert not ax.axison
    ax.figure.savefig(io.BytesIO())


def test_a_display_draws_on_as_many_axes_as_it_has_panels():
    figure, axes = pyplot.subplots(2, len(COLUMNS))
    display = SliceDisplay(make_gallery(), 0.2).plot(axes)
    assert display.ax_[1, 0] is axes[1, 0]
    pyplot.close(figure)
    with pytest.raises(InputError, match="2 x 4 of them; got 3"):
        SliceDisplay(make_gallery(), 0.2).plot(axes[0, :3])


# Slices


def test_slices_have_a_row_each_and_the_stated_columns():
    display = SliceDisplay(make_gallery(k=3), 0.2, title="costs $5 and $6").plot()
    assert [ax.get_title() for ax in display.ax_[0]] == list(COLUMNS)
    assert display.ax_[0, 0].get_ylabel() == "slice 7"
    assert display.figure_.axes[-1].get_ylim() == (0, 0.4)  # the bar
    display.figure_.savefig(io.BytesIO())


def test_known_lesions_get_a_column_of_their_own():
    gallery = make_gallery()
    display = SliceDisplay(gallery, 0.2, truth=gallery.masks, row_labels=["one", "two"]).plot()
    assert display.ax_[0, 1].get_title() == "known lesion"
    assert display.ax_[0, 0].get_ylabel() == "one"


def test_a_scan_is_titled_with_its_verdict():
    result = ScanResult("sub_1", 0.5, 0.04, True, None, None, None, (), make_gallery())
    display = SliceDisplay.from_result(result, ColourScale(0.2))
    assert display.figure_.get_suptitle() == "sub_1: score 0.5, p = 0.04, anomalous"


def test_slices_of_an_estimator_show_its_maps_healed_slices_and_threshold(fitted, scans):
    display = SliceDisplay.from_estimator(fitted, *scans)
    assert np.array_equal(display.gallery.maps, fitted.decision_function(scans[0]))
    assert np.array_equal(display.gallery.healed, fitted.transform(scans[0]))
    assert np.array_equal(display.gallery.masks, fitted.predict(scans[0]))
    assert display.scale.threshold == fitted[-1].threshold_


# Restorations


def test_restorations_show_what_is_done_with_a_slice(fitted, scans):
    display = RestorationDisplay.from_estimator(fitted, *scans, n_restorations=2)
    titles = [ax.get_title() for ax in display.ax_[0]]
    assert titles == [
        "scan", "known lesion", "token anomaly", "restoration 1", "restoration 2", "healed", "map",
    ]  # fmt: skip
    assert display.restorations.shape == (3, 2, 32, 32)
    images, lesions = scans
    changed = np.abs(display.restorations[:, 0] - images)
    assert changed[lesions].mean() > changed[~lesions].mean()
    display.figure_.savefig(io.BytesIO())


def test_restorations_of_a_detector_without_tokens_are_refused(healthy):
    detector = IntensityThreshold().fit(healthy)
    with pytest.raises(InputError, match="must restore tokens"):
        RestorationDisplay.from_estimator(detector, healthy)


# Trainings


def test_losses_have_a_panel_a_network(fitted):
    display = LossCurveDisplay.from_estimator(fitted)
    assert [ax.get_title() for ax in display.ax_] == ["tokenizer", "detector", "inpainter"]
    training, validation = display.ax_[1].lines
    assert np.array_equal(validation.get_ydata(), fitted["detector"].history_["validation_loss"])
    assert training.get_ydata()[0] > training.get_ydata()[-1]


def test_two_networks_of_one_estimator_have_two_panels():
    loss = {"loss": np.ones(4), "validation_loss": np.zeros(0), "validation_step": np.zeros(0)}
    estimator = type("Two", (), {"history_": loss | {f"classifier_{name}": loss[name] for name in loss}})()
    display = LossCurveDisplay.from_estimator(estimator)
    assert [ax.get_title() for ax in display.ax_] == ["Two", "Two classifier"]


def test_losses_of_what_was_not_trained_are_refused(healthy):
    with pytest.raises(InputError, match="No network of IntensityThreshold"):
        LossCurveDisplay.from_estimator(IntensityThreshold().fit(healthy))


def test_a_codebook_is_counted(fitted, healthy):
    display = CodebookDisplay.from_estimator(fitted, healthy)
    assert display.counts.sum() == healthy.size / 16
    assert 1 < display.perplexity <= np.count_nonzero(display.counts)
    even = CodebookDisplay.from_predictions(np.arange(8), n_codes=16)
    assert even.perplexity == pytest.approx(8)
    assert even.ax_.get_title() == "8 of 16 codes, perplexity 8"


def test_a_codebook_needs_a_tokenizer(healthy):
    with pytest.raises(InputError, match="must be a VQTokenizer; got IntensityThreshold"):
        CodebookDisplay.from_estimator(IntensityThreshold(), healthy)


# Rates


@pytest.mark.parametrize("level", ["pixel", "scan"])
def test_rates_of_scans_alike_lie_on_the_diagonal_and_of_others_above(level):
    same = FalsePositiveRateDisplay.from_predictions(reference(200), reference(400, seed=1), level=level)
    assert np.abs(same.empirical - same.nominal).max() < 0.02
    other = FalsePositiveRateDisplay.from_predictions(
        reference(200), reference(400, seed=1, factor=3), level=level
    )
    assert np.all(other.empirical >= same.empirical)
    assert np.mean(other.empirical - other.nominal) > 0.1


def test_rates_are_those_that_thresholds_have():
    known, unseen = reference(), reference(9, seed=1)
    display = FalsePositiveRateDisplay.from_predictions(known, unseen, level="scan")
    rate = known.scan_scores.size // 2 / (known.n_scans + 1)
    above = np.mean(unseen.scan_scores > known.scan_threshold(rate))
    assert display.empirical[np.isclose(display.nominal, rate)] == above


def test_rates_of_another_level_are_refused():
    with pytest.raises(InputError, match="level must be one of"):
        FalsePositiveRateDisplay.from_predictions(reference(), reference(), level="voxel")


# Searches


@pytest.fixture
def search():
    """Return what displays take of a fitted search over lambda and T."""
    grid = ParameterGrid({"detector__threshold": [0.01, 0.1, 0.5], "inpainter__n_steps": [1, 2]})
    mean = np.array([0.1, 0.2, 0.4, 0.3, 0.2, 0.1])
    results = {"params": list(grid), "mean_test_score": mean, "std_test_score": np.full(6, 0.01)}
    return SimpleNamespace(cv_results_=results)


def test_a_search_has_a_line_for_each_value_of_the_other_parameter(search):
    display = SearchCurveDisplay.from_estimator(search, "detector__threshold", by="inpainter__n_steps")
    assert [line.get_label() for line in display.ax_.lines] == ["n_steps = 1", "n_steps = 2"]
    assert list(display.ax_.lines[0].get_ydata()) == [0.1, 0.4, 0.2]
    assert display.ax_.get_xscale() == "log"


def test_a_search_shows_the_best_over_what_it_does_not_show(search):
    (line,) = SearchCurveDisplay.from_estimator(search, "detector__threshold").ax_.lines
    assert list(line.get_ydata()) == [0.2, 0.4, 0.2]


def test_a_parameter_that_was_not_searched_over_is_refused(search):
    with pytest.raises(InputError, match="inpainter__temperature was not searched over"):
        SearchCurveDisplay.from_estimator(search, "inpainter__temperature")
