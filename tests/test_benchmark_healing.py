"""``python -m benchmarks healing``: its figures on methods whose healing is known, and what it writes."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from benchmark_toys import toy_patient, toy_set
from conftest import small_steps
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from benchmarks import records
from benchmarks.__main__ import main
from benchmarks.commands import healing as command
from benchmarks.data import sources
from benchmarks.data.slices import join
from benchmarks.data.sources import phantom_slices
from benchmarks.data.twins import with_twins
from benchmarks.protocol import healing
from benchmarks.protocol.healing import Healed, change_left, likeness, measure, ssim
from benchmarks.protocol.methods import Method
from benchmarks.report import healing as report
from skmimood import SliceStandardizer
from skmimood.baselines import TokenizerResidual
from skmimood.exceptions import InputError
from skmimood.preprocessing.heads import standardise


def untouched(slices):
    """Return toy slices as they were before their bright squares: an ellipse of 0.6 there."""
    images = np.where(slices.lesions, np.float32(0.6), slices.images)
    return replace(
        slices, images=images, lesions=np.zeros_like(slices.lesions), kinds=np.full(len(slices), "")
    )


def toys(lesions=True):
    slices = toy_set()
    return slices if lesions else untouched(slices)


class Healer(BaseEstimator):
    """Return for each slice that it was given beforehand another one, else the slice itself plus ``offset``."""

    def __init__(self, pairs=(), offset=0.0, random_state=None):
        self.pairs = pairs
        self.offset = offset
        self.random_state = random_state

    def fit(self, X, y=None):
        return self

    def __sklearn_is_fitted__(self):
        return True

    def transform(self, X):
        known = {scan.tobytes(): twin for scan, twin in self.pairs}
        return np.stack([known.get(one.tobytes(), one) + np.float32(self.offset) for one in X])


@pytest.fixture
def pairs(monkeypatch):
    monkeypatch.setattr(sources, "phantom_slices", toys)
    return with_twins(toys())


def rows_of(estimator, planted, twins):
    return {row["kind"]: row for row in measure(Healed.by(estimator, planted, twins))}


def test_planted_slices_of_val_and_test_have_their_twins_in_order(pairs):
    planted, twins = pairs
    assert {*planted.splits} == {"val", "test"}
    assert planted.has_lesion.all()
    assert not twins.has_lesion.any()
    assert planted.patients.tolist() == twins.patients.tolist()
    np.testing.assert_array_equal(planted.images[~planted.lesions], twins.images[~planted.lesions])


def test_the_phantom_has_a_twin_of_every_slice_with_a_lesion(monkeypatch):
    small = {"size": 32, "n_slices": 6, "n_healthy": 1, "n_patients": 5}
    monkeypatch.setattr(sources, "phantom_slices", lambda **options: phantom_slices(**small, **options))
    planted, twins = with_twins(sources.phantom_slices())
    changed = planted.images != twins.images
    assert (changed & planted.lesions).any((1, 2)).all()
    assert not (changed & ~planted.lesions)[planted.kinds != "mass"].any()


def test_a_planted_set_brings_its_twins_and_another_set_is_refused():
    slices = replace(toy_set(), dataset="ixi-synthetic")
    planted, twins = with_twins(join([slices[slices.has_lesion], untouched(slices[slices.has_lesion])]))
    np.testing.assert_array_equal(twins.images, untouched(planted).images)
    with pytest.raises(InputError, match="not known"):
        with_twins(replace(slices[slices.has_lesion], kinds=np.full(slices.has_lesion.sum(), "")))
    with pytest.raises(InputError, match="not known"):
        with_twins(slices[slices.has_lesion])


def test_the_twin_itself_is_perfect_and_the_scan_itself_heals_nothing(pairs):
    perfect = rows_of(Healer([*zip(pairs[0].images, pairs[1].images, strict=True)]), *pairs)
    assert perfect["all"]["change_left_median"] == perfect["bright"]["change_left_mean"] == 0
    assert perfect["all"]["psnr"] == perfect["healthy"]["psnr"] == np.inf
    assert perfect["all"]["ssim"] == pytest.approx(1)
    assert perfect["all"]["n_lesions"] == len(np.unique(pairs[0].patients))
    nothing = rows_of(Healer(), *pairs)
    assert nothing["all"]["change_left_median"] == nothing["all"]["change_left_mean"] == pytest.approx(1)
    assert nothing["all"]["changed_off_head"] == 0


def test_what_is_added_everywhere_is_measured_off_the_lesion_and_off_the_head(pairs):
    row = rows_of(Healer(offset=0.1), *pairs)["healthy"]
    assert row["psnr"] == pytest.approx(20, abs=1e-3)
    assert 0.5 < row["ssim"] < 1
    assert row["changed_off_head"] == 1


def test_a_lesion_is_all_slices_of_a_kind_in_a_patient(pairs):
    planted, twins = pairs
    first = planted.patients == planted.patients[0]
    half = np.where(first[:, None, None], (planted.images + twins.images) / 2, twins.images)
    kinds, left = change_left(half, planted, twins)
    assert kinds.tolist() == ["bright"] * 5
    assert sorted(left) == pytest.approx([0, 0, 0, 0, 0.5], abs=1e-6)


def test_likeness_sees_only_the_pixels_that_count():
    images = np.random.default_rng(0).random((2, 24, 24))
    where = np.zeros(images.shape, bool)
    where[:, 4:12] = True
    assert likeness(np.where(where, images, 0.0), images, where) == {"psnr": np.inf, "ssim": pytest.approx(1)}
    changed = likeness(images + 0.1 * where, images, where)
    assert changed["psnr"] == pytest.approx(20)
    assert changed["ssim"] < 1


def test_ssim_is_that_of_its_definition_at_a_pixel():
    first, second = np.random.default_rng(0).random((2, 1, 31, 31))
    steps = np.arange(-5, 6)
    weights = np.exp(-(steps**2 + steps[:, None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    x, y = (image[0, 10:21, 10:21] for image in (first, second))
    (mx, my), (ex, ey) = (
        ((weights * one).sum() for one in (x, y)),
        ((weights * one**2).sum() for one in (x, y)),
    )
    covariance = (weights * x * y).sum() - mx * my
    expected = (2 * mx * my + 1e-4) * (2 * covariance + 9e-4)
    expected /= (mx**2 + my**2 + 1e-4) * (ex - mx**2 + ey - my**2 + 9e-4)
    assert ssim(first, second)[0, 15, 15] == pytest.approx(expected)


def test_a_method_on_standardised_slices_is_compared_in_the_intensities_of_the_scan(pairs):
    pipeline = Pipeline([("standardizer", SliceStandardizer()), ("detector", Healer())]).fit(pairs[1].images)
    assert np.abs(standardise(pairs[1].images) - pairs[1].images).mean() > 0.02
    assert rows_of(pipeline, *pairs)["healthy"]["psnr"] > 40


def test_a_tokenizer_alone_is_measured_in_its_own_intensities_too(pairs):
    tokenizer = small_steps(max_iter=1)[0][1].set_params(standardize=True)
    pipeline = Pipeline([("tokenizer", tokenizer), ("residual", TokenizerResidual())]).fit(pairs[1].images)
    row = rows_of(pipeline, *pairs)["healthy"]
    assert row["psnr_seen"] != pytest.approx(row["psnr"], abs=0.01)
    decoded = tokenizer.inverse_transform(tokenizer.transform(pairs[1].images).tokens)
    error = (decoded - standardise(pairs[1].images))[pairs[1].head]
    assert row["psnr_seen"] == pytest.approx(-10 * np.log10((error**2).mean()), abs=1e-3)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs the command on toys and returns the rows of its table."""
    methods = {
        name: Method(
            name, lambda settings, offset=offset: Healer(offset=offset, random_state=settings.seed), {}
        )
        for name, offset in (("mimood", 0.0), ("dae", 0.1))
    }
    monkeypatch.setattr(sources, "phantom_slices", toys)
    monkeypatch.setattr(command, "HEALERS", methods)
    monkeypatch.setattr(records, "commit", lambda: "abc1234")

    def call(*arguments):
        options = [
            "--data",
            "phantom",
            "--cache",
            str(tmp_path / "cache"),
            "--results",
            str(tmp_path),
            *arguments,
        ]
        monkeypatch.setattr(sys, "argv", ["benchmarks", "healing", "--device", "cpu", *options])
        main()
        return records.read_table(tmp_path / "healing.csv")

    return call


def test_a_run_writes_a_row_for_each_kind_and_keeps_those_of_other_runs(run):
    first = run("--methods", "mimood", "--seeds", "0", "1")
    assert [(row["seed"], row["kind"]) for row in first] == [
        (seed, kind) for seed in "01" for kind in ("all", "bright", "healthy")
    ]
    assert {(row["dataset"], row["preset"], row["commit"], row["psnr"]) for row in first} == {
        ("phantom", "tiny", "abc1234", "inf")
    }
    assert len(run("--methods", "dae")) == 9
    assert len(run("--methods", "dae")) == 9


def test_cases_of_several_runs_are_put_together_and_drawn(run, tmp_path):
    run("--methods", "mimood")
    run("--methods", "dae", "--figure", str(tmp_path / "figure.png"))
    with np.load(tmp_path / "healing_cases.npz") as cases:
        assert {"mimood", "dae", "scan", "twin", "lesion", "titles"} == {*cases}
        assert np.array_equal(cases["mimood"], cases["scan"])
        assert cases["dae"].mean() > cases["scan"].mean()
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_no_picture_of_a_real_scan_is_kept(run, tmp_path, monkeypatch):
    slices = replace(toy_set(), dataset="ixi-synthetic")
    join([slices, untouched(slices[(slices.splits != "train") & slices.has_lesion])]).save(tmp_path / "s.npz")
    monkeypatch.setattr("benchmarks.commands.options.PRESET_IMAGE_SIZE", {"tiny": 32})
    rows = run("--data", "ixi-synthetic", "--slices", str(tmp_path / "s.npz"), "--methods", "mimood")
    assert {row["dataset"] for row in rows} == {"ixi-synthetic"}
    assert not (tmp_path / "healing_cases.npz").exists()


def test_folds_heal_every_patient_once_by_networks_that_did_not_learn_from_it(run, tmp_path, monkeypatch):
    parts = []
    for i in range(6):
        planted = replace(toy_patient(f"p{i}", "test", 3, seed=i), dataset="ixi-synthetic")
        parts += [planted[:3], untouched(planted[:3]), replace(planted[3:], splits=np.full(3, "train"))]
    join(parts).save(tmp_path / "s.npz")
    monkeypatch.setattr("benchmarks.commands.options.PRESET_IMAGE_SIZE", {"tiny": 32})
    learned = []
    monkeypatch.setattr(command.stages, "fit", lambda one, images, *rest: learned.append(len(images)))
    rows = run(
        "--data", "ixi-synthetic", "--slices", str(tmp_path / "s.npz"), "--folds", "3", "--methods", "mimood"
    )
    assert learned == [9, 9, 9]
    assert [(row["dataset"], row["n_lesions"], row["n_slices"]) for row in rows] == [
        ("ixi-synthetic-cv", "6", "18"), ("ixi-synthetic-cv", "6", "18"), ("ixi-synthetic-cv", "", "18"),
    ]  # fmt: skip
    assert float(rows[0]["change_left_median"]) == pytest.approx(1)


def test_the_report_has_both_tables_and_the_figure(run, tmp_path):
    run("--seeds", "0", "1")
    text = report.render(tmp_path, tmp_path)
    assert "| method | median | mean | bright |" in text
    assert "| skmimood | 1.00 | 1.00 | 1.00 |" in text
    assert "| skmimood | inf | 1.000 | inf | 1.000 |  | 0.0% |" in text
    assert "](figures/healing.png)" in text
    assert (tmp_path / "figures" / "healing.png").exists()
    assert report.render(tmp_path / "nowhere", tmp_path) == "No results yet."


def test_methods_that_return_the_slice_or_repeat_another_take_no_part():
    assert not {"intensity", "ar-masked"} & {*healing.HEALERS}
    assert not any(name.endswith("-default") for name in healing.HEALERS)
    assert {"mimood", "dae", "mae", "ar", "tokenizer-residual"} <= {*healing.HEALERS}
