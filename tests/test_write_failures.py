"""A full disk, and folders that may not be written to: an error that says so, and nothing lost or half-written."""

import contextlib
import os
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from command_line import assert_mistake, content, rows, run, status
from toy_scans import brief_job, image, write_healthy_scans

from skmimood.exceptions import ModelSaveError, SkmimoodWarning
from skmimood.jobs.fitting import fit_model
from skmimood.nifti import write_image
from skmimood.scans import ScanDetector

NOBODY = 65534


@pytest.fixture
def scans(tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    for seed, shape in ((20, (30, 36, 20)), (21, (12, 14, 8))):
        write_image(image(seed, shape=shape), folder / f"sub-{seed}_T1.nii.gz")
    return folder


@contextlib.contextmanager
def file_size_limit(n_bytes):
    """Let no file grow beyond some bytes, as a full disk does: the system writes what fits, and refuses the rest."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of 256 kB, which needs rights that root mostly has."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        shutil.which("mount") is None
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True
        ).returncode
    ):
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run(["umount", disk], check=True)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def fill(disk):
    """Fill a disk up, and return the file that does."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))
    return ballast


# A full disk


def test_a_scan_whose_maps_do_not_fit_fails_and_the_others_are_scored(model, scans, tmp_path):
    out = tmp_path / "out"
    with file_size_limit(8000):
        assert run("score", scans, "-m", model, "-o", out, "--no-report", "--quiet") == 1
    found = rows(out)
    assert found["sub-21_T1"]["status"] == "ok"
    assert found["sub-20_T1"]["reason"] == (
        "Cannot write sub-20_T1_anomaly.nii.gz: File too large. Check the folder and its space."
    )
    assert not list(out.rglob("sub-20*"))
    assert not list(out.rglob("*.tmp"))
    assert run("score", scans, "-m", model, "-o", out, "--no-report", "--quiet", "--resume") == 0


def test_a_job_on_a_full_disk_ends_with_a_line_and_goes_on_where_there_is_space(
    model, scans, small_disk, capsys
):
    out, command = small_disk / "out", ("score", scans, "-m", model, "-o", small_disk / "out", "--no-report")
    shutil.move(scans / "sub-20_T1.nii.gz", scans.parent)
    assert run(*command) == 0
    shutil.move(scans.parent / "sub-20_T1.nii.gz", scans)
    before, ballast = content(out), fill(small_disk)
    capsys.readouterr()
    assert_mistake(capsys, *command, "--resume", says="Cannot write .*: No space left on device")
    assert content(out) == before
    ballast.unlink()
    assert run(*command, "--resume") == 0
    assert {line["id"]: line["status"] for line in status(out)["scans"]} == {
        "sub-20_T1": "ok",
        "sub-21_T1": "ok",
    }


def test_a_model_that_does_not_fit_is_not_saved_and_the_old_one_stays(model, tmp_path):
    detector = ScanDetector.load(model)
    detector.save(tmp_path / "model")
    before = content(tmp_path)
    for place in ("model", "other"):
        with (
            file_size_limit(2000),
            pytest.raises(ModelSaveError, match=r"File too large\. Nothing was saved"),
        ):
            detector.save(tmp_path / place, overwrite=True)
        assert content(tmp_path) == before
        assert names(tmp_path) == ["model"]


@pytest.mark.filterwarnings("ignore:Unable to cache to disk", "ignore::skmimood.exceptions.SkmimoodWarning")
def test_a_training_that_cannot_be_kept_says_so_and_is_made_again(tmp_path):
    (tmp_path / "healthy").mkdir()
    scans = [write_healthy_scans(tmp_path / "healthy")]
    arguments = (scans, tmp_path / "model", brief_job(resume=True), lambda line: None)
    with (
        pytest.warns(SkmimoodWarning, match="No checkpoint can be written"),
        pytest.raises(ModelSaveError, match="File too large"),
        file_size_limit(8000),
    ):
        fit_model(*arguments)
    assert set(names(tmp_path)) <= {"healthy", ".model.checkpoints"}
    fit_model(*arguments)
    assert names(tmp_path) == ["healthy", "model"]


# A folder without permission


@pytest.fixture
def public(model):
    """Return a folder with a model and scans, which all users may read."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    shutil.copytree(model, folder / "model")
    (folder / "scans").mkdir()
    write_image(image(21, shape=(12, 14, 8)), folder / "scans" / "sub-21_T1.nii.gz")
    yield folder
    shutil.rmtree(folder)


@contextlib.contextmanager
def no_permission(folder):
    """Let nobody write to a folder and those below it; root, who may everything, is another user meanwhile."""
    folders = [folder, *filter(Path.is_dir, folder.rglob("*"))]
    for each in folders:
        each.chmod(0o555)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        for each in folders:
            each.chmod(0o755)


def test_bad_input_17_without_permission_all_stays_as_it_is(public, capsys):
    results, command = (
        public / "results",
        ("score", public / "scans", "-m", public / "model", "--no-report", "-o"),
    )
    assert run(*command, results / "out") == 0
    detector, before = ScanDetector.load(public / "model"), content(public)
    with no_permission(results):
        for place in ((results / "out", "--resume"), (results / "out", "--overwrite"), (results / "new",)):
            assert_mistake(capsys, *command, *place, says="Cannot write to '.*': Permission denied")
        fit = ("fit", public / "scans", "-o", results / "model")
        assert_mistake(capsys, *fit, says="Cannot write to '.*results': Permission denied")
        with pytest.raises(ModelSaveError, match="Permission denied"):
            detector.save(results / "model")
    assert content(public) == before


@pytest.mark.parametrize("job", ["fit", "score"])
def test_a_place_below_a_file_is_refused_in_one_line(job, public, capsys):
    file = public / "model" / "manifest.json"
    command = (
        job,
        public / "scans",
        "-o",
        file / "new",
        *(("-m", public / "model") if job == "score" else ()),
    )
    before = content(public)
    assert_mistake(capsys, *command, says="Not a directory|File exists")
    assert content(public) == before
