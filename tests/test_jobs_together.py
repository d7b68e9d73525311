"""Several jobs in one folder, one after the other or at the same time: nothing is lost, and nothing is mistaken."""

import errno
import fcntl
import json
import os
import re
import threading

import pytest
from command_line import assert_mistake, content, rows, run, status
from filelock import FileLock
from toy_scans import image

from skmimood.exceptions import InputError
from skmimood.jobs.files import digest_of
from skmimood.jobs.locks import claimed, locks_of_others
from skmimood.jobs.results import ScanOutcome, StatusTable
from skmimood.jobs.scoring import NamedScan, ScoreJob, attempt, score_scans
from skmimood.nifti import write_image
from skmimood.scans import ScanDetector


def write_scans(folder, *seeds):
    folder.mkdir(parents=True)
    for seed in seeds:
        write_image(image(seed, lesion=seed % 2 == 1), folder / f"sub-{seed}_T1.nii.gz")
    return folder


@pytest.fixture
def scans(tmp_path):
    return write_scans(tmp_path / "scans", 20, 21)


@pytest.fixture
def score(model, tmp_path):
    """Return a function that scores with the command line into one folder."""
    return lambda *rest: run("score", "-m", model, "-o", tmp_path / "out", "--no-report", *rest)


@pytest.fixture
def hidden(tmp_path):
    (tmp_path / "out" / ".report").mkdir(parents=True)
    return tmp_path / "out" / ".report"


# One after the other


def test_another_file_of_the_same_name_is_scored_again_and_told_of(score, model, tmp_path, capsys):
    out = tmp_path / "out"
    for hospital, seed in (("a", 20), ("b", 21)):
        (tmp_path / hospital).mkdir()
        write_image(image(seed), tmp_path / hospital / "sub-1_T1.nii.gz")
    assert score(tmp_path / "a") == 0
    first = (out / "sub-1_T1_anomaly.nii.gz").read_bytes()
    assert score(tmp_path / "b", "--resume") == 0
    assert "not the one that was scored under this name: sub-1_T1." in capsys.readouterr().err
    run("score", tmp_path / "b", "-m", model, "-o", tmp_path / "alone", "--no-report", "--quiet")
    found = (out / "sub-1_T1_anomaly.nii.gz").read_bytes()
    assert found == (tmp_path / "alone" / "sub-1_T1_anomaly.nii.gz").read_bytes() != first
    assert rows(out)["sub-1_T1"]["score"] == rows(tmp_path / "alone")["sub-1_T1"]["score"]


def test_a_file_that_was_moved_is_the_same_scan(score, scans, tmp_path, capsys):
    score(scans)
    before = content(tmp_path / "out")
    scans.rename(tmp_path / "elsewhere")
    capsys.readouterr()
    assert score(tmp_path / "elsewhere", "--resume") == 0
    printed = capsys.readouterr()
    assert "Finished before and kept: 2 scans." in printed.out
    assert printed.err == ""
    now = content(tmp_path / "out")
    assert all(now[path] == before[path] for path in before if path.name.endswith(".nii.gz"))


def test_the_mask_beside_a_scan_is_a_part_of_what_was_scored(scans):
    scan, mask = scans / "sub-20_T1.nii.gz", scans / "sub-20_T1_brainmask.nii.gz"
    alone = digest_of(scan, "auto")
    assert digest_of(scan, "brainmask") == alone
    write_image(image(3), mask)
    with_mask = digest_of(scan, "brainmask")
    write_image(image(4), mask, overwrite=True)
    assert len({alone, with_mask, digest_of(scan, "brainmask")}) == 3
    assert digest_of(scan, "auto") == alone
    assert digest_of(scans / "missing.nii.gz", "auto") == ""


def test_results_of_a_version_that_noted_no_file_are_scored_again(score, scans, tmp_path, capsys):
    out = tmp_path / "out"
    score(scans)
    content_of_table = status(out)
    for line in content_of_table["scans"]:
        del line["digest"]
    (out / "status.json").write_text(json.dumps(content_of_table))
    capsys.readouterr()
    assert score(scans, "--resume") == 0
    printed = capsys.readouterr()
    assert "an earlier version did not note which file was scored: sub-20_T1, sub-21_T1." in printed.err
    assert "[2/2] sub-21_T1  score" in printed.out


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta"])
def test_a_wrong_device_is_told_once_and_removes_nothing(score, scans, tmp_path, capsys, device):
    score(scans)
    before = content(tmp_path / "out")
    capsys.readouterr()
    for rest in (("--overwrite",), ("--resume",)):
        assert score(scans, *rest, "--device", device) == 2
        errors = capsys.readouterr().err
        assert errors.startswith(f"skmimood: error: device={device!r} is not")
        assert errors.count("\n") == 1
    assert content(tmp_path / "out") == before


def test_overwriting_keeps_earlier_results_where_no_scan_can_be_scored(score, scans, tmp_path, capsys):
    score(scans)
    before = content(tmp_path / "out")
    assert score(scans, "--overwrite", "--max-bytes", "1K") == 1
    assert "No scan can be scored, so the earlier results" in capsys.readouterr().out
    assert content(tmp_path / "out") == before


@pytest.mark.parametrize("damage", ["{", "", None])
def test_overwriting_beside_a_damaged_status_leaves_no_earlier_maps(damage, score, scans, tmp_path, capsys):
    out = tmp_path / "out"
    score(scans)
    if damage is None:
        (out / "status.json").unlink()
    else:
        (out / "status.json").write_text(damage)
    (scans / "sub-20_T1.nii.gz").unlink()
    capsys.readouterr()
    assert score(scans, "--overwrite") == 0
    assert capsys.readouterr().err == ""
    assert {path.name.partition("_T1")[0] for path in out.glob("*.nii.gz")} == {"sub-21"}
    assert set(rows(out)) == {"sub-21_T1"}


def test_maps_beside_a_damaged_status_that_may_be_earlier_ones_are_named(
    score, scans, hidden, tmp_path, capsys
):
    (tmp_path / "out" / "status.json").write_text("{")
    (tmp_path / "out" / "old_anomaly.nii.gz").touch()
    assert score(scans, "--overwrite") == 0
    assert "these files may be left of earlier results: old_anomaly.nii.gz. Remove" in capsys.readouterr().err


def test_the_models_own_mask_may_be_named_or_not_when_a_job_resumes(score, scans, tmp_path, capsys):
    assert score(scans) == 0
    assert status(tmp_path / "out")["settings"]["mask"] == "auto"
    assert score(scans, "--resume", "--mask-suffix", "auto") == 0
    assert score(scans, "--resume", "--mask-suffix", "none") == 2
    older = status(tmp_path / "out")
    del older["settings"]["mask"]  # as earlier versions wrote it
    (tmp_path / "out" / "status.json").write_text(json.dumps(older))
    assert score(scans, "--resume", "--mask-suffix", "none") == 2
    capsys.readouterr()
    assert score(scans, "--resume") == 0
    assert "Finished before and kept: 2 scans." in capsys.readouterr().out


def test_what_a_killed_job_left_is_removed_and_done_again(score, scans, hidden, tmp_path):
    (tmp_path / "out" / ".skmimood-1.tmp").touch()
    (tmp_path / "out" / "sub-20_T1_anomaly.nii.gz").touch()
    for name in ("job-1.lock", "sub-20_T1.begun"):
        (hidden / name).touch()
    assert score(scans, "--resume") == 0
    assert not list((tmp_path / "out").rglob("*.tmp"))
    assert {path.name for path in hidden.iterdir()} == {
        "sub-20_T1.npz", "sub-21_T1.npz", "start.lock", "status.lock"
    }  # fmt: skip
    assert (tmp_path / "out" / "sub-20_T1_anomaly.nii.gz").stat().st_size > 0


@pytest.mark.parametrize("name", ["../secret", "/etc/secret", "..", "", "a\0b"])
def test_vulnerability_path_traversal_an_id_that_leads_elsewhere_is_never_made_a_path_of(
    score, scans, tmp_path, name
):
    score(scans)
    foreign = status(tmp_path / "out")
    foreign["scans"][0]["id"] = name
    (tmp_path / "out" / "status.json").write_text(json.dumps(foreign))
    assert [line.id for line in StatusTable.read(tmp_path / "out").outcomes] == ["sub-21_T1"]
    assert score(scans, "--resume") == 0
    assert set(rows(tmp_path / "out")) == {"sub-20_T1", "sub-21_T1"}


@pytest.mark.parametrize("umask", [0o002, 0o077])
def test_all_that_a_job_writes_follows_the_umask(model, scans, tmp_path, umask):
    before = os.umask(umask)
    try:
        run("score", scans, "-m", model, "-o", tmp_path / "out", "--quiet")
    finally:
        os.umask(before)
    written = [tmp_path / "out", *(tmp_path / "out").rglob("*")]
    assert {path.stat().st_mode & 0o777 for path in written if path.is_file()} == {0o666 & ~umask}
    assert {path.stat().st_mode & 0o777 for path in written if path.is_dir()} == {0o777 & ~umask}


# At the same time


def test_a_folder_in_use_is_refused_at_once_and_left_as_it_is(score, scans, hidden, tmp_path, model, capsys):
    (tmp_path / "out" / ".skmimood-1.tmp").touch()
    with claimed(hidden / "job-1.lock"):
        before = content(tmp_path / "out")
        command = ("score", scans, "-m", model, "-o", tmp_path / "out")
        says = r"Another job is at work.*\.report/job-\w+\.lock.*--resume to share the work"
        for rest in ((), ("--overwrite",)):
            assert_mistake(capsys, *command, *rest, says=says)
        assert content(tmp_path / "out") == before
        assert score(scans, "--resume", "--quiet") == 0
        assert status(tmp_path / "out")["state"] == "running"
        assert (tmp_path / "out" / ".skmimood-1.tmp").exists()
    assert score(scans, "--resume", "--quiet") == 0
    assert status(tmp_path / "out")["state"] == "done"


def together(model, output, *folders):
    """Run resuming jobs in threads; return their tables."""
    tables = []
    job = ScoreJob(resume=True, report=False, device="cpu")

    def work(folder):
        tables.append(score_scans([folder], model, output, job, lambda line: None))

    threads = [threading.Thread(target=work, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tables


def test_jobs_that_resume_into_one_folder_are_all_recorded(model, tmp_path):
    folders = [
        write_scans(tmp_path / name, *seeds) for name, seeds in (("a", range(20, 24)), ("b", range(30, 34)))
    ]
    assert len(together(model, tmp_path / "out", *folders)) == 2
    assert len(rows(tmp_path / "out")) == len(status(tmp_path / "out")["scans"]) == 8
    assert (status(tmp_path / "out")["n_scans"], status(tmp_path / "out")["state"]) == (8, "done")


def test_jobs_with_the_same_scans_share_the_work(model, tmp_path, monkeypatch):
    scored, detect_scan = [], ScanDetector.detect_scan

    def counted(self, source, index=0):
        scored.append(source)
        return detect_scan(self, source, index)

    monkeypatch.setattr(ScanDetector, "detect_scan", counted)
    folder = write_scans(tmp_path / "scans", *range(20, 26))
    tables = together(model, tmp_path / "out", folder, folder)
    assert len(scored) == 6
    assert [(len(table), table.n_failed) for table in tables] == [(6, 0)] * 2
    assert len(rows(tmp_path / "out")) == 6


def test_of_two_jobs_that_begin_together_without_resuming_one_is_refused(model, tmp_path):
    folder, out = write_scans(tmp_path / "scans", 20, 21), tmp_path / "out"
    start, outcomes = threading.Barrier(2), []

    def work():
        start.wait()
        try:
            outcomes.append(score_scans([folder], model, out, ScoreJob(report=False), lambda line: None))
        except InputError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (refusal,) = (each for each in outcomes if isinstance(each, InputError))
    assert re.search(r"Another job is at work|holds results already", str(refusal))
    assert {line["id"]: line["status"] for line in status(out)["scans"]} == dict.fromkeys(rows(out), "ok")
    assert set(rows(out)) == {"sub-20_T1", "sub-21_T1"}


def test_jobs_with_other_settings_do_not_share_a_folder(model, scans, hidden, tmp_path, score, capsys):
    StatusTable(tmp_path / "out", {"model": "another"}).write("running")
    with claimed(hidden / "job-1.lock"):
        assert score(scans, "--resume") == 2
    assert "come from another model" in capsys.readouterr().err


def test_a_file_whose_name_a_live_job_uses_for_another_is_refused(model, scans, hidden, tmp_path):
    table = StatusTable(tmp_path / "out", {})
    StatusTable(tmp_path / "out", {}).record(ScanOutcome("sub-20_T1", "ok", 1.0, 1.0, digest="another"))
    scan = NamedScan("sub-20_T1", scans / "sub-20_T1.nii.gz")
    outcome = attempt(ScanDetector.load(model), scan, table, ScoreJob(), wait=True)
    assert outcome.status == "taken"
    assert "its results are kept" in outcome.reason
    assert status(tmp_path / "out")["scans"][0]["digest"] == "another"


def test_a_refused_file_is_told_of_and_the_exit_status_says_it(score, scans, tmp_path, capsys, monkeypatch):
    detect_scan, out = ScanDetector.detect_scan, tmp_path / "out"

    def meanwhile(self, source, index=0):
        StatusTable.read(out).record(ScanOutcome("sub-21_T1", "ok", 7.5, 1.0, digest="another"))
        return detect_scan(self, source, index)

    monkeypatch.setattr(ScanDetector, "detect_scan", meanwhile)
    assert score(scans) == 1
    assert "sub-21_T1  FAILED: another job has scored another file of this name" in capsys.readouterr().out
    assert rows(out)["sub-21_T1"]["score"] == "7.5"
    assert rows(out)["sub-20_T1"]["status"] == "ok"


def test_a_lock_of_another_user_counts_as_held_and_is_named(score, scans, hidden, capsys, monkeypatch):
    (hidden / "job-1.lock").touch()
    monkeypatch.setattr(FileLock, "acquire", _refusal(PermissionError))
    assert locks_of_others(hidden) == [hidden / "job-1.lock"]
    assert score(scans) == 2
    assert "and holds .report/job-1.lock. Wait" in capsys.readouterr().err
    assert (hidden / "job-1.lock").exists()


def test_a_folder_whose_locks_are_of_another_user_is_used_with_a_warning(
    score, scans, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(FileLock, "acquire", _refusal(PermissionError))
    assert score(scans, "--resume") == 0
    assert len(rows(tmp_path / "out")) == 2
    warned = r"skmimood: warning: A lock file in '.*out/.report' belongs to another user .* one at a time.*\n"
    assert re.fullmatch(warned, capsys.readouterr().err)


def test_a_lock_is_free_again_once_its_holder_has_ended(tmp_path):
    (tmp_path / "scan.begun").touch()  # of one that was killed
    assert not locks_of_others(tmp_path)
    assert not (tmp_path / "scan.begun").exists()
    with claimed(tmp_path / "scan.begun") as first, claimed(tmp_path / "scan.begun", wait=False) as second:
        assert (first, second) == (True, False)
        assert locks_of_others(tmp_path)
    assert list(tmp_path.iterdir()) == []


def _refusal(error):
    def refuse(*arguments, **options):
        raise error

    return refuse


@pytest.mark.parametrize("error", [OSError(errno.ENOSYS, "no flock"), OSError(errno.ENOLCK, "no locks")])
def test_a_file_system_without_locks_costs_no_record_and_is_told_of_once(
    error, score, scans, hidden, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(fcntl, "flock", _refusal(error))
    for name in ("job-1.lock", "sub-20_T1.begun"):  # of a job that was killed
        (hidden / name).touch()
    assert score(scans) == 0
    assert len(rows(tmp_path / "out")) == 2
    told = capsys.readouterr().err
    assert re.fullmatch(r"skmimood: warning: The file system of '.*out/.report' has no locks.*\n", told)


# Scans of one name


def test_bad_input_13_scans_of_one_name_are_scored_under_their_folders_and_kept_apart(
    score, tmp_path, capsys
):
    for seed in (20, 21, 22):
        folder = tmp_path / "scans" / f"patient{seed}"
        folder.mkdir(parents=True)
        write_image(image(seed), folder / "FLAIR.nii.gz")
    out = tmp_path / "out"
    assert score(tmp_path / "scans") == 0
    names = {f"patient{seed}_FLAIR" for seed in (20, 21, 22)}
    assert set(rows(out)) == names
    assert all((out / f"{name}_anomaly.nii.gz").exists() for name in names)
    before = content(out)
    capsys.readouterr()
    assert score(tmp_path / "scans" / "patient2[01]", "--resume", "--jobs", 2) == 0  # a part of them
    assert "Finished before and kept: 2 scans." in capsys.readouterr().out
    assert score(tmp_path / "scans" / "patient22", "--resume") == 0  # alone, it needs no folder
    assert set(rows(out)) == {*names, "FLAIR"}
    assert all(content(out)[path] == before[path] for path in before if path.name.endswith(".nii.gz"))


def test_a_file_that_is_named_twice_is_scored_once_with_a_remark(score, scans, tmp_path, capsys):
    (scans / "link.nii.gz").symlink_to(scans / "sub-20_T1.nii.gz")
    (tmp_path / "here").symlink_to(scans)
    assert score(scans, scans / "*.nii.gz", tmp_path / "here" / "sub-21_T1.nii.gz") == 0
    printed = capsys.readouterr().out
    assert "Passed over, as named more than once: 5 files." in printed
    assert "Scoring 2 scans." in printed
    assert len(rows(tmp_path / "out")) == 2
