import os
import sys

import nibabel as nib
import numpy as np
import pytest
from command_line import assert_mistake, content, rows, run, status
from toy_scans import RAS, image

from skmimood.nifti import write_image
from skmimood.scans import ScanDetector


def test_score_writes_the_images_of_each_scan_and_the_tables(model, scans, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("score", scans, "-m", model, "-o", out) == 0
    for scan in ("healthy_T1", "patient-1_T1", "patient-2_T1"):
        given = nib.load(scans / f"{scan}.nii.gz")
        for ending in ("anomaly", "pvalue", "mask", "lesions"):
            written = nib.load(out / f"{scan}_{ending}.nii.gz")
            assert written.shape == given.shape
            assert np.array_equal(written.affine, given.affine)
            assert written.get_data_dtype() == (np.float32 if ending in ("anomaly", "pvalue") else np.uint8)
    table = rows(out)
    columns = "id status score pvalue is_anomalous seconds flags reason"
    assert list(table["healthy_T1"]) == columns.split()
    assert float(table["patient-1_T1"]["score"]) > float(table["healthy_T1"]["score"])
    assert table["patient-1_T1"]["is_anomalous"] == "1"
    assert status(out)["state"] == "done"
    assert (status(out)["n_ok"], status(out)["n_failed"]) == (3, 0)
    assert "patient-2_T1" in (out / "report.html").read_text()
    assert "[2/3] patient-1_T1  score" in capsys.readouterr().out


def test_a_scan_that_fails_is_recorded_and_the_others_go_on(model, scans, tmp_path, capsys):
    (scans / "broken_T1.nii.gz").write_bytes(b"not an image")
    out = tmp_path / "out"
    assert run("score", scans, "-m", model, "-o", out) == 1
    table = rows(out)
    assert table["broken_T1"]["status"] == "failed"
    assert table["broken_T1"]["score"] == ""
    assert table["broken_T1"]["reason"]
    assert [table[scan]["status"] for scan in ("healthy_T1", "patient-1_T1")] == ["ok", "ok"]
    assert not list(out.glob("broken*"))
    assert status(out)["n_failed"] == 1
    assert table["broken_T1"]["reason"] in (out / "report.html").read_text().replace("&#39;", "'")
    printed = capsys.readouterr()
    assert "broken_T1  FAILED: " in printed.out
    assert "Traceback" not in printed.err


def test_a_fault_in_the_program_costs_one_scan_only(model, scans, tmp_path, monkeypatch):
    detect_scan = ScanDetector.detect_scan

    def faulty(self, source, index=0):
        if "patient-1" in str(source):
            raise ZeroDivisionError("oh")
        return detect_scan(self, source, index)

    monkeypatch.setattr(ScanDetector, "detect_scan", faulty)
    assert run("score", scans, "-m", model, "-o", tmp_path / "out", "--quiet") == 1
    assert rows(tmp_path / "out")["patient-1_T1"]["reason"] == (
        "unexpected ZeroDivisionError, a fault in the program. Please report it."
    )


def test_healed_scans_are_written_resumed_and_removed_with_the_others(model, scans, tmp_path, capsys):
    out = tmp_path / "out"
    command = ("score", scans, "-m", model, "-o", out)
    assert run(*command, "--quiet") == 0
    assert not list(out.glob("*_healed.nii.gz"))
    assert run(*command, "--resume", "--healed") == 0
    assert "kept" not in capsys.readouterr().out  # their healed scans were missing
    healed = nib.load(out / "patient-1_T1_healed.nii.gz")
    given = nib.load(scans / "patient-1_T1.nii.gz")
    assert np.array_equal(healed.affine, given.affine)
    assert 0.1 < np.abs(healed.get_fdata() - given.get_fdata()).max() / given.get_fdata().max() < 1
    assert run(*command, "--resume", "--healed") == 0
    assert "Finished before and kept: 3 scans" in capsys.readouterr().out
    assert_mistake(capsys, *command, "--healed", says="holds results already")
    assert run(*command, "--overwrite", "--healed", "--quiet") == 0
    assert len(list(out.glob("*_healed.nii.gz"))) == 3
    assert run(*command, "--overwrite", "--quiet") == 0
    assert not list(out.glob("*_healed.nii.gz"))


def test_pages_are_written_resumed_and_removed_with_the_others(model, scans, tmp_path, capsys):
    out = tmp_path / "out"
    command = ("score", scans, "-m", model, "-o", out)
    run(*command, "--quiet", "--scan-threshold", 0.05)
    assert {page.name for page in out.glob("*.html")} == {
        "patient-1_T1.html",
        "patient-2_T1.html",
        "report.html",
    }
    (out / "patient-1_T1.html").unlink()
    assert run(*command, "--resume", "--scan-threshold", 0.05) == 0
    assert "Finished before and kept: 2 scans" in capsys.readouterr().out
    assert len(list(out.glob("*.html"))) == 3
    assert run(*command, "--resume", "--scan-threshold", 0.05, "--viewer", "all", "--quiet") == 0
    assert (out / "healthy_T1.html").is_file()
    assert_mistake(capsys, *command, says="holds results already")
    assert run(*command, "--overwrite", "--viewer", "none", "--quiet") == 0
    assert [page.name for page in out.glob("*.html")] == ["report.html"]
    assert run(*command, "--overwrite", "--viewer", "all", "--no-report", "--quiet") == 0
    assert not list(out.glob("*.html"))


def test_resume_does_what_is_missing_and_keeps_the_rest(model, scans, tmp_path, capsys):
    out = tmp_path / "out"
    (scans / "broken_T1.nii.gz").write_bytes(b"not an image")
    run("score", scans, "-m", model, "-o", out)
    write_image(image(23), scans / "broken_T1.nii.gz", overwrite=True)
    (out / "patient-1_T1_mask.nii.gz").unlink()
    kept = content(out)
    capsys.readouterr()

    assert run("score", scans, "-m", model, "-o", out, "--resume") == 0
    printed = capsys.readouterr().out
    assert "broken_T1  score" in printed
    assert "patient-1_T1  score" in printed
    assert "patient-2_T1  score" not in printed
    assert "Finished before and kept: 2 scans." in printed
    now = content(out)
    assert all(now[path] == kept[path] for path in kept if path.name.startswith(("healthy", "patient-2")))
    assert set(rows(out)) == {"healthy_T1", "patient-1_T1", "patient-2_T1", "broken_T1"}
    assert (out / "report.html").read_text().count("<figure>") == 4 * 4


def test_resume_covers_the_scans_of_earlier_runs(model, scans, tmp_path):
    out = tmp_path / "out"
    run("score", scans / "healthy_T1.nii.gz", "-m", model, "-o", out, "--quiet")
    run("score", scans / "patient-1_T1.nii.gz", "-m", model, "-o", out, "--quiet", "--resume")
    assert set(rows(out)) == {"healthy_T1", "patient-1_T1"}
    assert status(out)["n_scans"] == 2


def test_resume_refuses_results_of_other_thresholds(model, scans, tmp_path, capsys):
    out = tmp_path / "out"
    command = ("score", scans, "-m", model, "-o", out, "--no-report", "--quiet")
    run(*command)
    assert_mistake(
        capsys,
        *command,
        "--resume",
        "--pixel-threshold",
        "0.5",
        says="come from another pixel threshold. Score",
    )


@pytest.mark.parametrize("rest", ["", ': [], "n_scans": 0, "settings": [1]}', ": {}}"])
def test_a_damaged_status_is_a_clear_error(rest, model, scans, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "status.json").write_text('{"format": "skmimood-status", "scans"' + rest)
    assert_mistake(
        capsys, "score", scans, "-m", model, "-o", tmp_path / "out", "--resume", says="cannot be resumed from"
    )


def test_an_interrupt_keeps_finished_results_and_a_valid_status(model, scans, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    detect_scan = ScanDetector.detect_scan

    def interrupted(self, source, index=0):
        if "patient-1" in str(source):
            raise KeyboardInterrupt
        return detect_scan(self, source, index)

    monkeypatch.setattr(ScanDetector, "detect_scan", interrupted)
    assert run("score", scans, "-m", model, "-o", out) == 130
    assert "--resume" in capsys.readouterr().err
    assert status(out)["state"] == "interrupted"
    assert [line["id"] for line in status(out)["scans"]] == ["healthy_T1"]
    assert (out / "healthy_T1_mask.nii.gz").is_file()
    assert not list(out.glob("patient*"))

    monkeypatch.undo()
    assert run("score", scans, "-m", model, "-o", out, "--resume") == 0
    assert status(out)["n_ok"] == 3


def test_overwriting_removes_the_results_of_scans_that_are_not_scored_again(model, scans, tmp_path):
    out = tmp_path / "out"
    run("score", scans, "-m", model, "-o", out, "--quiet")
    (out / "notes_mask.nii.gz").write_text("mine")
    (tmp_path / "x_mask.nii.gz").write_text("mine too")
    (out / "status.json").write_text((out / "status.json").read_text().replace("patient-2_T1", "../x"))
    command = ("score", scans / "healthy_T1.nii.gz", "-m", model, "-o", out, "--quiet", "--no-report")
    assert run(*command, "--overwrite") == 0
    assert not list(out.glob("patient-1*"))
    assert not (out / "report.html").exists()
    assert len(list(out.glob("healthy_T1_*"))) == 5
    assert (out / "notes_mask.nii.gz").read_text() == "mine"
    assert (tmp_path / "x_mask.nii.gz").read_text() == "mine too"


def test_a_volume_and_a_larger_size_can_be_asked_for(model, tmp_path):
    (tmp_path / "scans").mkdir()
    both = nib.Nifti1Image(np.stack([image(0).get_fdata(), image(1).get_fdata()], axis=-1), image(0).affine)
    nib.save(both, tmp_path / "scans" / "series.nii.gz")
    command = ("score", tmp_path / "scans", "-m", model, "-o", tmp_path / "out", "--quiet")
    assert run(*command) == 1
    assert run(*command, "--overwrite", "--volume", 1) == 0
    assert run(*command, "--overwrite", "--volume", 1, "--max-bytes", "10K") == 1
    assert run(*command, "--overwrite", "--volume", 1, "--max-bytes", "1m") == 0


def test_maps_are_the_same_bytes_in_every_run(model, scans, tmp_path):
    for out in ("one", "two"):
        run("score", scans, "-m", model, "-o", tmp_path / out, "--quiet")
    for path in (tmp_path / "one").glob("*.nii.gz"):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_results_below_the_scans_are_not_taken_for_scans(model, scans):
    out = scans / "results"
    assert run("score", scans, "-m", model, "-o", out, "--quiet") == 0
    assert run("score", scans, "-m", model, "-o", out, "--quiet", "--resume") == 0
    assert len(rows(out)) == 3


def test_thresholds_can_be_given(model, scans, tmp_path):
    out = tmp_path / "out"
    run("score", scans, "-m", model, "-o", out, "--quiet", "--pixel-threshold", "inf", "--scan-threshold", 0)
    assert all(row["is_anomalous"] == "1" for row in rows(out).values())
    assert not nib.load(out / "patient-1_T1_mask.nii.gz").get_fdata().any()
    assert status(out)["settings"]["pixel_threshold"] is None
    run("score", scans, "-m", model, "-o", out, "--quiet", "--scan-threshold", "inf", "--overwrite")
    assert all(row["is_anomalous"] == "" for row in rows(out).values())
    assert "infinite (set by hand; nothing is called anomalous" in (out / "report.html").read_text()


def test_a_model_that_is_none_is_a_clear_error(scans, tmp_path, capsys):
    assert_mistake(
        capsys, "score", scans, "-m", tmp_path / "nowhere", "-o", tmp_path / "out", says="not a model"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["score", "fit"])
def test_an_output_that_is_a_file_is_a_clear_error(command, model, scans, tmp_path, capsys):
    (tmp_path / "taken").write_text("mine")
    extra = ("-m", model) if command == "score" else ()
    for output in (tmp_path / "taken", tmp_path / "taken" / "below"):
        says = "taken|below cannot be written"
        assert_mistake(capsys, command, scans, *extra, "-o", output, says=says)
    assert (tmp_path / "taken").read_text() == "mine"


def test_without_optional_packages_only_the_report_is_missing(model, scans, tmp_path, capsys, monkeypatch):
    from skmimood.jobs import report

    monkeypatch.setattr(report.importlib.util, "find_spec", lambda name: None)
    assert run("score", scans, "-m", model, "-o", tmp_path / "out") == 0
    assert 'pip install "skmimood[report]"' in capsys.readouterr().out
    assert len(list((tmp_path / "out").glob("*_anomaly.nii.gz"))) == 3
    assert not (tmp_path / "out" / "report.html").exists()


def test_no_report_is_written_if_none_is_wanted(model, scans, tmp_path):
    assert run("score", scans, "-m", model, "-o", tmp_path / "out", "--no-report", "--quiet") == 0
    assert not (tmp_path / "out" / "report.html").exists()


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_job_outlives_those_who_read_its_output(name, model, scans, tmp_path, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", closefd=True) as stream:
        monkeypatch.setattr(sys, name, stream)
        (scans / "broken_T1.nii.gz").write_bytes(b"not an image")
        assert run("score", scans, "-m", model, "-o", tmp_path / "out") == 1
        assert (status(tmp_path / "out")["state"], status(tmp_path / "out")["n_ok"]) == ("done", 3)
        assert run("info", model) == 0
        assert run("info", scans) == 2


def test_masks_are_looked_for_as_the_command_line_says(model, scans, tmp_path, capsys):
    for name in ("healthy", "patient-1"):
        brain = np.zeros((30, 36, 20), np.uint8)
        brain[8:22, 10:26, 5:15] = 1
        write_image(nib.Nifti1Image(brain, RAS), scans / f"{name}_bet.nii.gz")
    out = tmp_path / "out"
    command = ("score", scans, "-m", model, "-o", out, "--modality", "T1", "--mask-suffix", "bet")
    assert run(*command) == 1
    printed = capsys.readouterr().out
    note = "note: the foreground is given by brain masks here and was found from the intensities in"
    assert note in printed
    table = rows(out)
    reason = "there is no patient-2_T1_bet or patient-2_bet (.nii.gz or .nii)"
    assert reason in table["patient-2_T1"]["reason"]
    anomaly = nib.load(out / "patient-1_T1_anomaly.nii.gz").get_fdata()
    assert not anomaly[brain == 0].any()
    assert anomaly[brain > 0].any()
    assert "masks named bet; found from the intensities in training" in (out / "report.html").read_text()
    assert_mistake(capsys, *command[:-2], "--resume", says="come from another mask. Score")
    assert run(*command[:-2], "--mask-suffix", "none", "-o", tmp_path / "other") == 0
