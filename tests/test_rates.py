"""Thresholds of other false-positive rates than `fit` was given."""

import nibabel as nib
import numpy as np
import pytest
from command_line import assert_mistake, rows, run, status

from skmimood.exceptions import InputError
from skmimood.jobs.scoring import ScoreJob, score_scans
from skmimood.scans import ScanDetector


def test_another_rate_is_asked_of_the_models_reference(model, scans, tmp_path, capsys):
    out, reference = tmp_path / "out", ScanDetector.load(model).reference_
    assert run("score", scans, "-m", model, "-o", out, "--fpr", 0.05, "--scan-fpr", 0.4) == 0
    settings = status(out)["settings"]
    assert settings["pixel_threshold"] == reference.pixel_threshold(0.05)
    assert settings["scan_threshold"] == reference.scan_threshold(0.4)
    anomaly, mask = (
        nib.load(out / f"patient-1_T1_{name}.nii.gz").get_fdata() for name in ("anomaly", "mask")
    )
    np.testing.assert_array_equal(mask > 0, anomaly > reference.pixel_threshold(0.05))
    assert "false-positive rate 0.05 among healthy pixels" in (out / "report.html").read_text()
    again = ("score", scans, "-m", model, "-o", out, "--resume")
    assert_mistake(capsys, *again, says="another pixel threshold")
    assert run(*again, "--fpr", 0.05, "--scan-fpr", 0.4) == 0


def test_a_rate_beyond_the_reference_calls_nothing_anomalous_and_says_so(model, scans, tmp_path, capsys):
    assert run("score", scans, "-m", model, "-o", tmp_path / "out", "--scan-fpr", 0.001) == 0
    assert "needs at least 999 healthy scans" in capsys.readouterr().err
    assert {row["is_anomalous"] for row in rows(tmp_path / "out").values()} == {""}


def test_a_rate_and_a_threshold_exclude_each_other(model, scans, tmp_path):
    with pytest.raises(SystemExit):
        run("score", scans, "-m", model, "-o", tmp_path, "--fpr", 0.1, "--pixel-threshold", 1)
    job = ScoreJob(scan_fpr=0.1, scan_threshold=1.0)
    with pytest.raises(InputError, match="scan threshold and its false-positive rate"):
        score_scans([scans], model, tmp_path / "out", job, print)


def test_rates_that_are_none_change_no_threshold(model):
    detector = ScanDetector.load(model)
    before = detector.pixel_threshold_, detector.scan_threshold_, detector.fpr
    with pytest.raises(InputError, match="fpr must be"):
        detector.set_rates(fpr=0.5, scan_fpr=2)
    assert detector.set_rates() is detector
    assert (detector.pixel_threshold_, detector.scan_threshold_, detector.fpr) == before
    assert detector.set_rates(fpr=0.2).pixel_threshold_ < before[0]
