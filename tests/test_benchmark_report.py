"""``python -m benchmarks report``: tables and figures from the CSV files alone."""

import re

import numpy as np
import pytest
from benchmark_toys import toy_set
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from benchmarks import records
from benchmarks.commands import report
from benchmarks.commands.accuracy import save_cases
from benchmarks.protocol.methods import METHODS
from benchmarks.report import accuracy, family, figures, headline
from benchmarks.report.results import load_runs
from skmimood.exceptions import InputError


def result(method, seed, ap, **more):
    return {
        "dataset": "lgg", "method": method, "seed": seed, "split": "test", "slices": "tumour", "level": "pixel",
        "region": "all", "best_dice": ap + 0.1, "ap": ap, "auroc": 0.9, "dice_at_val_threshold": ap,
        "seconds_per_32": 1.5, "device": "CPU (x86_64)", "preset": "tiny", "commit": "abc1234", **more,
    }  # fmt: skip


@pytest.fixture
def results(tmp_path):
    """Write small tables as `accuracy` does."""
    folder = tmp_path / "results"
    rows = [result("mimood-paper", 0, 0.3), result("mimood-paper", 1, 0.5), result("intensity", 0, 0.6)]
    rows += [result("intensity", 0, 0.5, region="interior")]
    rows += [result("intensity", 0, 0.4, slices="head", false_alarm_rate=0.25)]
    rows += [result("mimood-paper", 0, 0.2, level="token", split=split) for split in ("val", "test")]
    rows += [result("intensity", 0, 0.7, level="image", slices="head")]
    rows += [result("intensity", 0, 0.1, slices=slices) for slices in ("small", "large", "dark")]
    records.replace_rows(folder / "lgg.csv", rows)
    run = {
        "dataset": "lgg",
        "seed": 0,
        "preset": "tiny",
        "device": "CPU (x86_64)",
        "threads": 1,
        "commit": "abc1234",
    }
    runs = [
        {
            **run,
            "method": "mimood-paper",
            "fit_seconds": 100.4,
            "parameters": '{"detector__threshold": 0.02}',
        },
        {**run, "method": "intensity", "fit_seconds": 0.2, "parameters": '{"erosion": 7, "smoothing": 1.0}'},
    ]
    records.replace_rows(folder / "lgg_runs.csv", runs)
    place = {**run, "method": "mimood-paper", "slices": "tumour", "region": "all", "seeds": "0 1"}
    interval = {**place, "metric": "ap", "mean": 0.4, "low": 0.35, "high": 0.45}
    records.replace_rows(folder / "lgg_intervals.csv", [interval], records.SUMMARY_KEY)
    gap = {**place, "minus": "intensity", "metric": "ap", "mean": -0.2, "low": -0.3, "high": 0.1}
    records.replace_rows(folder / "lgg_differences.csv", [gap], records.SUMMARY_KEY)
    curve = [{**place, "recall": x, "precision": 1 - x} for x in (0.0, 0.5, 1.0)]
    records.replace_rows(folder / "lgg_curves.csv", curve, records.SUMMARY_KEY)
    return folder


@pytest.fixture
def text(results, tmp_path):
    return accuracy.render(results, tmp_path)


def line_of(text, heading, method):
    """Return the cells of one method in the table under a heading."""
    table = text.split(f"**{heading}")[1].split("\n\n")[1]
    return [
        cell.strip() for cell in next(line for line in table.splitlines() if method in line).split("|")[1:-1]
    ]


def test_tables_tell_mean_deviation_and_interval(text):
    cells = line_of(text, "Pixels of tumour slices**", "MIM-OOD as published")
    assert cells[2] == "0.400 ± 0.141 [0.350, 0.450]"
    assert cells[1] == "0.500 ± 0.141"  # without an interval in the table
    assert line_of(text, "Pixels of tumour slices**", "Intensity")[2] == "0.600"


def test_the_better_method_stands_first_whosever_it_is(text):
    assert text.index("| Intensity threshold") < text.index("| MIM-OOD as published")


def test_published_figures_stand_beside_ours_and_are_marked_as_of_other_data(text):
    assert (
        line_of(text, "Pixels of tumour slices**", "MIM-OOD as published")[-1]
        == "0.458 / 0.399 / 0.926 / 9.5"
    )
    assert line_of(text, "Tokens of tumour slices", "MIM-OOD as published")[-1] == "0.186 / 0.859"
    assert "### ¹ Published on other data" in text
    assert "published¹" in text


def test_differences_have_a_sign_and_an_interval(text):
    cells = line_of(text, "MIM-OOD as published minus each", "Intensity")
    assert cells[2] == "-0.200 [-0.300, +0.100]"


def write_folds(folder):
    """Write the tables of a cross-validation beside those of the single split."""
    rows = [
        {**result(name, 0, ap), "dataset": "lgg-cv"} for name, ap in (("mimood-default", 0.7), ("dae", 0.6))
    ]
    records.replace_rows(folder / "lgg-cv.csv", rows)
    runs = [
        {
            **rows[0], "fold": fold, "ap": 0.1 * fold, "threads": 1, "fit_seconds": 9.0,
            "parameters": f'{{"a__erosion": {fold // 2}}}',
        }
        for fold in range(3)
    ]  # fmt: skip
    records.replace_rows(folder / "lgg-cv_runs.csv", runs)
    place = {**rows[0], "minus": "dae", "seeds": 0, "metric": "ap", "mean": 0.1, "low": 0.05, "high": 0.15}
    gaps = [{**place, "slices": "tumour"}, {**place, "slices": "head", "mean": 0.2}]
    records.replace_rows(folder / "lgg-cv_differences.csv", gaps, records.SUMMARY_KEY)


def test_a_cross_validation_comes_first_and_the_single_split_is_told_in_brief(results, tmp_path):
    write_folds(results)
    text = accuracy.render(results, tmp_path)
    folds, single = text.index("all patients cross-validated"), text.index("### TCGA-LGG, FLAIR: preset")
    assert folds < single < text.index("### What was tried")
    assert "in 3 folds" in text[:single]
    assert "fold 0 | fold 1" in text[:single]
    assert line_of(text, "AP of each fold alone", "skmimood, as it comes")[1:] == ["0.000", "0.100", "0.200"]
    assert line_of(text, "Time of fit", "skmimood, as it comes")[3] == "erosion 0 or 1"
    cells = line_of(text, "skmimood, as it comes minus each", "Denoising")
    assert cells[2] == "+0.100 [+0.050, +0.150]"
    assert cells[4] == "+0.200 [+0.050, +0.150]"
    assert "Pixels of tumour slices" in text[single:]
    assert "AP by lesion area" not in text[single:]
    lesions = headline.headline(results)
    assert "--data lgg --folds 3" in lesions
    assert "1 seed(s)" in lesions
    assert "MIM-OOD as published" not in lesions


def test_what_lesions_decided_is_told_of_methods_that_there_are():
    rows = records.read_table(accuracy.TRIED)
    assert {row["method"] for row in rows} <= {*METHODS}
    assert all(row["tried"] and row["lesions"] and row["meaning"] for row in rows)


def test_every_kind_of_row_has_its_table(text):
    assert line_of(text, "Pixels of tumour slices, interior only", "Intensity")[2] == "0.500"
    assert line_of(text, "Pixels of all head slices, tumour-free", "Intensity")[5] == "0.250"
    assert line_of(text, "Slices with against", "Intensity")[1:3] == ["0.900", "0.700"]
    assert line_of(text, "AP by lesion area", "Intensity")[1:] == ["0.100", "0.100"]
    assert line_of(text, "AP by kind of lesion", "Intensity")[1:] == ["0.100"]
    assert line_of(text, "Time of fit", "MIM-OOD")[1:] == ["100", "", "threshold 0.02"]
    assert line_of(text, "Time of fit", "Intensity")[3] == "erosion 7, smoothing 1.0"


def test_figures_are_drawn_and_linked_and_the_same_each_time(results, text, tmp_path):
    links = re.findall(r"\]\((.+?)\)", text)
    assert len(links) == 2
    before = [(tmp_path / link).read_bytes() for link in links]
    accuracy.render(results, tmp_path)
    assert [(tmp_path / link).read_bytes() for link in links] == before


def test_the_readme_keeps_what_stands_outside_the_markers(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- accuracy:start -->\nold\n<!-- accuracy:end -->\nafter\n")
    for _ in range(2):
        report.fill(readme, "accuracy", "new")
    assert readme.read_text() == "before\n<!-- accuracy:start -->\n\nnew\n\n<!-- accuracy:end -->\nafter\n"


def test_a_readme_without_markers_is_refused(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("text")
    with pytest.raises(InputError, match="lacks the lines"):
        report.fill(readme, "accuracy", "new")
    assert readme.read_text() == "text"


def test_without_results_the_report_says_so(tmp_path):
    assert accuracy.render(tmp_path, tmp_path) == "No results yet."


def test_published_figures_belong_to_methods_that_there_are():
    rows = records.read_table(accuracy.PUBLISHED)
    assert {row["method"] for row in rows if row["method"]} <= {*METHODS}
    assert all(row["data"] and row["source"] for row in rows)


def test_undefined_figures_are_empty_cells(tmp_path):
    records.replace_rows(tmp_path / "lgg.csv", [result("mae", 0, np.nan)])
    assert records.read_table(tmp_path / "lgg.csv")[0]["ap"] == ""


class Tokens:
    """A tokenised stack of toy slices with scores, and a last step that heals it."""

    def __init__(self, images):
        self.images, self.anomaly = images, np.ones((len(images), 4, 4), np.float32)
        self.tokenizer = type("Tokenizer", (), {"downsampling": 8})

    @staticmethod
    def detect(scans):
        return scans.images, 1 - scans.images


def test_cases_are_kept_and_drawn(tmp_path):
    class First(BaseEstimator):
        def fit(self, X, y=None):
            return self

        def transform(self, X):
            return Tokens(X)

        def __sklearn_is_fitted__(self):
            return True

    tumour = toy_set().tumour("test")
    pipeline = Pipeline([("tokens", First()), ("last", Tokens(tumour.images))])
    save_cases(pipeline, tumour, tmp_path / "c.npz")
    with np.load(tmp_path / "c.npz") as file:
        assert file["titles"].tolist() == ["bright"]
        assert file["image"].shape == (1, 32, 32)
        assert {file[name].max() for name in ("tokens", "map", "truth")} == {255}
    assert figures.draw_cases(tmp_path / "c.npz", tmp_path) == "![Cases](figures/c.png)"
    assert (tmp_path / "figures" / "c.png").stat().st_size > 1000


def test_the_table_of_the_family_has_every_method_but_those_that_need_no_paper():
    rows = records.read_table(family.FAMILY)
    without = {"intensity-standardized", "zscore", "dae-standardized", "tokenizer-residual", "mimood"}
    named = {row["method"] for row in rows}
    assert named == {name for name in METHODS if not name.endswith("-default")} - without | {"mimood-default"}
    assert all(row["paper"] and row["difference"] for row in rows)


def test_the_family_shows_cross_validated_figures_before_those_of_a_single_split(tmp_path):
    for name, ap, fold in (("lgg", 0.5, ""), ("lgg-cv", 0.125, 0)):
        records.replace_rows(tmp_path / f"{name}.csv", [result("mae", 0, ap, dataset=name)])
        run = result("mae", 0, ap, dataset=name, fold=fold, fit_seconds=60)
        records.replace_rows(tmp_path / f"{name}_runs.csv", [run])
    *_, table = family.family_table(load_runs(tmp_path), [])
    lines = {line.split(" | ")[0].strip("| "): line for line in table.splitlines()}
    assert "0.225 / 0.125 / 0.900 | 60 | 1.5 |" in lines["Masked autoencoder"]
    assert "no figures yet" in lines["f-AnoGAN"]
