"""Trainings that were interrupted: what goes on, what is refused, and what is never lost."""

import pytest
from command_line import assert_mistake, content, run
from toy_scans import image, write_healthy_scans

from skmimood.jobs import fitting
from skmimood.jobs.locks import claimed
from skmimood.nifti import write_image
from skmimood.training import loop

FAST = ("--max-iter", 2, "--size", 16, "--scan-fpr", 0.5, "--quiet")


@pytest.fixture
def healthy(tmp_path):
    (tmp_path / "healthy").mkdir()
    return write_healthy_scans(tmp_path / "healthy")


def test_resume_says_what_it_goes_on_with_and_refuses_other_settings_and_scans(
    healthy, tmp_path, capsys, monkeypatch
):
    step, made = loop._Trainer._step, []

    def counted(self):
        made.append(self.runtime.title)
        if len(made) == 12:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(loop._Trainer, "_step", counted)
    command = ("fit", healthy, "-o", tmp_path / "model", "--max-iter", 8, "--size", 16, "--scan-fpr", 0.5)
    assert run(*command, "--resume", "--quiet") == 130
    monkeypatch.setattr(loop._Trainer, "_step", step)
    before = content(tmp_path)
    capsys.readouterr()

    refused = (*command, "--resume", "--seed", 1, "--fpr", 0.02)
    assert_mistake(
        capsys, *refused, says="'model' was begun with the default fpr, seed=0. Repeat that, or use --over"
    )
    write_image(image(50), healthy / "more_T1.nii.gz")
    write_image(image(51), healthy / "sub-0_T1.nii.gz", overwrite=True)
    assert_mistake(
        capsys, *command, "--resume", says=r"with 1 fewer scans \(more_T1\), 1 other scans \(sub-0_T1\)"
    )
    (healthy / "more_T1.nii.gz").unlink()
    write_image(image(0), healthy / "sub-0_T1.nii.gz", overwrite=True)
    assert {path: content(tmp_path)[path][0] for path in before} == {path: before[path][0] for path in before}

    assert run(*command, "--resume", "--fpr", 0.01, "--max-bytes", "2G") == 0  # which are the defaults
    printed = capsys.readouterr()
    assert "Resuming the training in '.model.checkpoints'." in printed.out
    assert "VQTokenizer was trained before, and is taken from the cache." in printed.err
    assert "PixelEvidence goes on after step 3 of 8." in printed.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["healthy", "model"]


@pytest.mark.parametrize("removed", ["nothing", "networks", "all but the record"])
def test_a_training_that_was_killed_after_its_model_was_saved_is_tidied_up_and_not_repeated(
    healthy, tmp_path, capsys, monkeypatch, removed
):
    def killed(folder):
        if removed == "networks":
            fitting.shutil.rmtree(folder / "cache")
        elif removed != "nothing":
            for path in folder.iterdir():
                if path.name != "fit.json":
                    fitting.shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise KeyboardInterrupt

    command = ("fit", healthy, "-o", tmp_path / "model", *FAST)
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "_remove", killed)
        patch.setattr(fitting, "_settle", lambda *folders: None)
        assert run(*command) == 130
    before = content(tmp_path / "model")
    assert (tmp_path / ".model.checkpoints").exists()
    capsys.readouterr()
    assert_mistake(capsys, *command, says="exists already")
    if removed == "nothing":
        assert_mistake(capsys, *command, "--resume", "--seed", 1, says="was begun with seed=0")
    monkeypatch.setattr(loop._Trainer, "_step", lambda self: pytest.fail("it was trained again"))
    assert run(*command[:-1], "--resume") == 0
    assert f"'{tmp_path / 'model'}' was saved before: its training is finished." in capsys.readouterr().out
    assert content(tmp_path / "model") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["healthy", "model"]


def test_a_model_that_stood_there_before_is_not_taken_for_that_of_the_unfinished_training(
    healthy, tmp_path, capsys, monkeypatch
):
    command = ("fit", healthy, "-o", tmp_path / "model", *FAST)
    assert run(*command) == 0
    before = content(tmp_path / "model")
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "save_model", lambda *arguments, **options: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            run(*command, "--overwrite", "--seed", 1)
    capsys.readouterr()
    assert_mistake(capsys, *command, "--resume", "--seed", 1, says="exists already")
    assert content(tmp_path / "model") == before
    assert (tmp_path / ".model.checkpoints").exists()
    assert run(*command, "--resume", "--overwrite", "--seed", 1) == 0
    assert content(tmp_path / "model") != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["healthy", "model"]


def test_an_unfinished_training_comes_back_if_the_one_that_replaces_it_learns_nothing(
    healthy, tmp_path, capsys, monkeypatch
):
    unfinished = tmp_path / ".model.checkpoints"
    unfinished.mkdir()
    (unfinished / "step.safetensors").write_text("hours")
    command = ("fit", healthy, "-o", tmp_path / "model", *FAST, "--overwrite")
    assert_mistake(capsys, *command, "--device", "gpu", says="device='gpu' is not a device")
    for scan in sorted(healthy.iterdir())[2:]:
        scan.unlink()
    assert_mistake(capsys, *command, says="at least 3")
    assert (unfinished / "step.safetensors").read_text() == "hours"
    assert sorted(path.name for path in tmp_path.iterdir()) == [unfinished.name, "healthy"]


def test_two_fits_of_one_model_are_not_at_work_together(healthy, tmp_path, capsys):
    with claimed(tmp_path / ".model.lock"):
        command = ("fit", healthy, "-o", tmp_path / "model", *FAST)
        for rest in ((), ("--resume",), ("--overwrite",)):
            assert_mistake(capsys, *command, *rest, says="Another fit of 'model' is at work")
    assert [path.name for path in tmp_path.iterdir()] == ["healthy"]
