"""``python -m benchmarks calibration``: rates on subjects of known scores, and the command on phantoms as IXI."""

import sys
from functools import partial

import numpy as np
import pytest
from benchmark_toys import Brightness
from phantom_layouts import write_layout
from sklearn.pipeline import Pipeline

from benchmarks import records
from benchmarks.__main__ import main
from benchmarks.commands import calibration as command
from benchmarks.protocol.calibration import RATES, measure
from benchmarks.protocol.methods import Method
from benchmarks.report import calibration as report
from skmimood.maps.conformal import HealthyReference
from skmimood.scans.reference import HealthyScan


def excess(values, threshold):
    return float(np.maximum(values - threshold, 0).sum())


def subjects(names, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    scans = {}
    for name in names:
        values = (scale * rng.exponential(1 + rng.random(), 2000)).astype(np.float32)
        pixels = HealthyReference.from_scans([(values, 0.0)])
        scans[name] = HealthyScan(name, pixels, partial(excess, values))
    return scans


def rates(rows, level, column="rate"):
    return [row[column] for row in rows if row["level"] == level]


def test_thresholds_of_exchangeable_subjects_hold_what_they_promise():
    folds = [subjects([f"{fold}-{i}" for i in range(40)], seed=fold) for fold in range(3)]
    rows = measure(folds, n_calibration=19, n_draws=30)
    for row in rows:
        assert row["low"] <= row["attainable"] <= row["high"], row
        assert row["lowest"] <= row["rate"] <= row["highest"]
        assert row["n_subjects"] == 120
    assert rates(rows, "pixel") == pytest.approx(RATES, rel=0.1)


def test_a_rate_that_so_few_scans_cannot_have_is_none_at_all():
    rows = measure([subjects("abcdefghijklmnop")], n_calibration=9, n_draws=5)
    assert rates(rows, "scan", "attainable") == pytest.approx([0, 0, 0, 0.1, 0.2])
    assert rates(rows, "scan")[:3] == [0, 0, 0]
    assert rates(rows, "pixel", "attainable") == list(RATES)


def test_a_subject_that_is_tested_in_two_folds_counts_once():
    rows = measure([subjects("abcdefghijkl"), subjects("abcdefghijkl", seed=1)], n_calibration=9, n_draws=20)
    assert {row["n_subjects"] for row in rows} == {12}


def test_another_scale_in_one_fold_changes_no_rate():
    names = [[f"{fold}-{i}" for i in range(14)] for fold in range(2)]
    same = [subjects(names[0]), subjects(names[1], seed=1)]
    scaled = [same[0], subjects(names[1], seed=1, scale=4.0)]
    first, second = (measure(folds, n_calibration=9, n_draws=5) for folds in (same, scaled))
    assert rates(first, "scan") == rates(second, "scan")
    assert rates(first, "pixel") == rates(second, "pixel")


def test_the_command_maps_every_subject_by_a_fold_that_did_not_learn_from_it(tmp_path, monkeypatch):
    write_layout(tmp_path / "ixi", "ixi", n_healthy=9, n_lesions=0, size=32, n_slices=8)
    fitted = []

    class Bright(Brightness):
        def fit(self, X, y=None):
            fitted.append(len(X))
            return super().fit(X, y)

        def map_and_restore(self, X):
            return X, X

    method = Method("toy", lambda settings: Pipeline([("detector", Bright())]), {})
    monkeypatch.setattr(command, "METHODS", {"mimood-default": method})
    monkeypatch.setattr(command, "_N_CALIBRATION", (2,))
    monkeypatch.setattr(records, "commit", lambda: "abc1234")
    options = [
        "--root",
        str(tmp_path),
        "--cache",
        str(tmp_path / "cache"),
        "--results",
        str(tmp_path),
        "--draws",
        "3",
    ]
    monkeypatch.setattr(sys, "argv", ["benchmarks", "calibration", "--device", "cpu", *options])
    main()
    rows = records.read_table(tmp_path / "calibration.csv")
    assert {row["n_subjects"] for row in rows} == {"9"}
    assert len(rows) == 2 * len(RATES)
    assert len(fitted) == 3
    main()  # maps are kept
    assert len(fitted) == 3
    text = report.render(tmp_path, tmp_path)
    assert "| scans: rate asked for | thresholds of 2 subjects |" in text
    assert "; attainable 0.000 |" in text
    assert (tmp_path / "figures" / "calibration.png").stat().st_size > 1000
