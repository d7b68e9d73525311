"""Bad inputs on the command line: what is refused at once, what costs one scan only, and what is never written."""

import os
import re
from functools import partial

import numpy as np
import pytest
from command_line import assert_mistake, content, rows, run, status
from damaged_files import write_damaged_files
from sklearn.pipeline import Pipeline
from toy_scans import image, make

from skmimood.baselines import HealthyZScore
from skmimood.datasets import load_ixi
from skmimood.exceptions import InputError, ScanWriteError, SkmimoodWarning
from skmimood.jobs import fitting
from skmimood.nifti import find_companion, find_scans, read_grid, read_scan, write_image
from skmimood.scans import ScanDetector

HOSTILE = "a'b\"<script>alert(1)<script>=é \x1b[31m"


def test_bad_input_01_a_path_that_does_not_exist_is_named(model, tmp_path, capsys):
    nowhere = tmp_path / "nowhere"
    says = f"No such file or folder: '{nowhere}'"
    assert_mistake(capsys, "score", nowhere, "-m", model, "-o", tmp_path / "out", says=says)
    assert_mistake(capsys, "fit", nowhere, "-o", tmp_path / "new", says=says)
    assert list(tmp_path.iterdir()) == []


def test_bad_input_01_a_path_with_a_nul_character_is_refused_wherever_it_is_given(
    model, scans, tmp_path, capsys
):
    nul, says = "a\0b.nii", r"'a\\x00b.nii' holds a NUL character"
    detector = ScanDetector.load(model)
    for use in (
        make().fit, detector.detect_scan, detector.save, ScanDetector.load, read_scan, read_grid, find_scans, load_ixi,
        partial(find_companion, suffix="mask"), partial(write_image, image(20)), lambda path: detector.predict([path]),
    ):  # fmt: skip
        with pytest.raises(InputError, match=says):
            use(nul)
    before = content(tmp_path)
    for command in (
        ("fit", nul, "-o", "new"), ("fit", scans, "-o", nul), ("fit", scans, "-o", "new", "--cache", nul),
        ("fit", scans, "-o", "new", "--groups", nul), ("score", nul, "-m", model, "-o", "out"),
        ("score", scans, "-m", nul, "-o", "out"), ("score", scans, "-m", model, "-o", nul), ("info", nul),
        ("evaluate", nul, scans), ("demo", "-o", nul),
    ):  # fmt: skip
        assert_mistake(capsys, *command, says=says)
    assert content(tmp_path) == before


def test_bad_input_02_a_folder_stands_for_its_scans_and_an_empty_one_is_an_error(
    model, scans, tmp_path, capsys
):
    assert run("score", scans, "-m", model, "-o", tmp_path / "out", "--no-report") == 0
    assert "Scoring 3 scans." in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    says = rf"No scan \(\.nii\.gz, .*\) under '{tmp_path / 'empty'}'"
    assert_mistake(capsys, "score", tmp_path / "empty", "-m", model, "-o", tmp_path / "none", says=says)
    assert_mistake(capsys, "fit", tmp_path / "empty", "-o", tmp_path / "none", says=says)
    assert not (tmp_path / "none").exists()


def test_bad_input_14_names_of_any_kind_work_and_cannot_steer_a_terminal(model, tmp_path, capsys):
    scans, out = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    longest = "x" * (255 - len(".nii.gz"))
    undecodable = os.fsdecode(b"byte-\xff")
    for name in (HOSTILE, longest, undecodable):
        write_image(image(20), scans / "plain.nii.gz", overwrite=True)
        (scans / "plain.nii.gz").rename(scans / f"{name}.nii.gz")
    assert run("score", scans, "-m", model, "-o", out) == 0
    assert "\x1b" not in capsys.readouterr().out
    assert len(list(out.glob("*_anomaly.nii.gz"))) == 3
    assert {line["id"] for line in status(out)["scans"]} == {HOSTILE, longest, undecodable}
    assert run("score", scans, "-m", model, "-o", out, "--resume", "--quiet") == 0
    report = (out / "report.html").read_text()
    assert "<script" not in report
    assert report.count("<figure>") == 3 * 4


def test_bad_input_15_an_output_that_is_or_holds_the_input_is_refused(model, scans, tmp_path, capsys):
    before = content(scans)
    for output in (scans, tmp_path):
        assert_mistake(
            capsys, "score", scans, "-m", model, "-o", output, says="holds, the input.*another output"
        )
    assert content(scans) == before


def test_bad_input_16_results_are_not_replaced_unless_asked(model, scans, tmp_path, capsys):
    out = tmp_path / "out"
    command = ("score", scans, "-m", model, "-o", out, "--quiet")
    assert run(*command) == 0
    before = content(out)
    assert_mistake(capsys, *command, says="holds results already.*--resume.*--overwrite")
    assert content(out) == before
    assert run(*command, "--overwrite") == 0


def test_bad_input_17_a_scan_whose_last_image_cannot_be_written_leaves_none(
    model, scans, tmp_path, monkeypatch
):
    from skmimood.scans import results

    def full_disk(picture, path, **options):
        if path.name == "patient-1_T1_mask.nii.gz":
            raise ScanWriteError("Cannot write: no space left.")
        write_image(picture, path, **options)

    monkeypatch.setattr(results, "write_image", full_disk)
    assert run("score", scans, "-m", model, "-o", tmp_path / "out", "--quiet") == 1
    assert not list((tmp_path / "out").glob("patient-1*"))
    assert len(list((tmp_path / "out").glob("patient-2*.nii.gz"))) == 4


def test_each_bad_file_of_a_folder_costs_itself_only(model, scans, tmp_path, capsys):
    says, out = write_damaged_files(scans), tmp_path / "out"
    assert run("score", scans, "-m", model, "-o", out) == 1
    printed, table = capsys.readouterr(), rows(out)
    for scan, reason in says.items():
        assert table[scan]["status"] == "failed"
        assert reason in table[scan]["reason"]
        assert str(tmp_path) not in table[scan]["reason"]
        assert f"{scan}  FAILED: " in printed.out
        assert not list(out.glob(f"{scan}*"))
    assert (status(out)["n_ok"], status(out)["n_failed"]) == (3, len(says))
    assert "Traceback" not in printed.err
    assert not list(out.rglob("*.tmp"))


def test_each_bad_file_of_a_folder_is_left_out_of_a_fit(scans):
    says = write_damaged_files(scans)
    with pytest.warns(SkmimoodWarning, match="is empty"):
        detector = make().fit(scans)
    status = {line.id: line for line in detector.fit_status_}
    assert status.keys() == {*says, "healthy_T1", "patient-1_T1", "patient-2_T1"}
    for scan, reason in says.items():
        assert status[scan].status == "skipped"
        assert reason in status[scan].reason


def test_bad_input_18_scans_that_vanish_or_change_meanwhile_cost_themselves_only(
    model, scans, tmp_path, monkeypatch
):
    detect_scan = ScanDetector.detect_scan

    def meanwhile(self, source, index=0):
        (scans / "patient-1_T1.nii.gz").unlink(missing_ok=True)
        (scans / "patient-2_T1.nii.gz").write_bytes(b"half copied")
        return detect_scan(self, source, index)

    monkeypatch.setattr(ScanDetector, "detect_scan", meanwhile)
    assert run("score", scans, "-m", model, "-o", tmp_path / "out", "--quiet") == 1
    table = rows(tmp_path / "out")
    assert table["healthy_T1"]["status"] == "ok"
    assert "does not exist" in table["patient-1_T1"]["reason"]
    assert "is not NIfTI" in table["patient-2_T1"]["reason"]


def test_bad_input_28_scans_of_any_grid_are_resampled_to_the_learned_one_and_listed(
    tmp_path, capsys, monkeypatch
):
    grids = {(30, 36, 20): 2.0, (40, 48, 27): 1.5, (20, 24, 14): 3.0}
    for seed, (shape, spacing) in enumerate((*grids.items(), *grids.items())):
        affine = np.diag([spacing, spacing, 2.0 * 20 / shape[2], 1.0])
        write_image(image(seed, affine, shape=shape), tmp_path / f"sub-{seed}_T1.nii.gz")
    detector = make(pipeline=Pipeline([("zscore", HealthyZScore())]))
    monkeypatch.setattr(fitting, "_unfitted", lambda job, unfinished: detector)
    assert run("fit", tmp_path, "-o", tmp_path / "model") == 0
    says = r"Their grids: 3 shapes, spacings from 1.48 to 3 mm; all slices resampled to pixels of \d"
    assert re.search(says, capsys.readouterr().out)
    assert {line.shape: line.spacing[0] for line in detector.fit_status_} == grids
    assert detector.pipeline_[-1].image_shape_ == (24, 24)
