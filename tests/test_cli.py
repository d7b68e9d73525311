import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import assert_mistake, content, rows, run
from toy_scans import write_healthy_scans

from skmimood import __version__
from skmimood.cli import main
from skmimood.cli.arguments import _PRESETS
from skmimood.exceptions import InputError
from skmimood.jobs.locks import claimed
from skmimood.pipeline import PRESETS
from skmimood.scans import ScanDetector
from skmimood.training import loop


@pytest.fixture
def healthy(tmp_path):
    folder = tmp_path / "healthy"
    folder.mkdir()
    return write_healthy_scans(folder)


# What can be asked


@pytest.mark.parametrize("command", ["demo", "fit", "score", "evaluate", "info"])
def test_help_of_each_command_has_examples(command, capsys):
    with pytest.raises(SystemExit) as stop:
        run(command, "--help")
    assert stop.value.code == 0
    assert f"\n  skmimood {command}" in capsys.readouterr().out


def test_help_and_usage_errors_wait_for_nothing_heavy():
    program = (
        "import sys\nfrom skmimood.cli import main\n"
        "for line in (['--help'], ['fit', '--help'], ['fit'], []):\n"
        "    try:\n        main(line)\n    except SystemExit:\n        pass\n"
        "heavy = {'torch', 'sklearn', 'matplotlib', 'nibabel', 'numpy', 'jinja2'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_module_is_the_same_program():
    done = subprocess.run([sys.executable, "-m", "skmimood", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"skmimood {__version__}\n")


def test_the_presets_on_offer_are_those_that_exist():
    assert set(_PRESETS) == set(PRESETS)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["score", "x"],
        ["fit", "x", "-o", "y", "--fpr", "1"],
        ["fit", "x", "-o", "y", "--spacing", "nan"],
        ["fit", "x", "-o", "y", "--max-iter", "0"],
        ["fit", "x", "-o", "y", "--seed", "-1"],
        ["fit", "x", "-o", "y", "--max-bytes", "4 pounds"],
        ["fit", "x", "-o", "y", "--volume", "-1"],
        ["score", "x", "-m", "m", "-o", "y", "--resume", "--overwrite"],
        ["score", "x", "-m", "m", "-o", "y", "--pixel-threshold", "nan"],
        ["score", "x", "-m", "m", "-o", "y", "--mask-suffix", ""],
        ["fit", "x", "-o", "y", "--groups", ""],
    ],
)
def test_wrong_usage_exits_with_2_and_says_why(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "error: " in capsys.readouterr().err


# fit


FAST = ("--max-iter", 2, "--size", 16, "--scan-fpr", 0.5, "--quiet")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """Return what a run of fit left: its exit status and folder."""
    folder = tmp_path_factory.mktemp("fit")
    (folder / "healthy").mkdir()
    write_healthy_scans(folder / "healthy")
    (folder / "healthy" / "broken_T1.nii.gz").write_bytes(b"not an image")
    arguments = [str(each) for each in (*FAST, "--fpr", 0.02, "--seed", 3) if each != "--quiet"]
    command = [sys.executable, "-m", "skmimood", "fit", "healthy", "-o", "model", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return done, folder


def test_fit_saves_a_model_and_says_what_became_of_the_scans(fitted):
    done, folder = fitted
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["healthy", "model"]
    assert "7 scans: 5 learned from, 1 for calibration, 1 left out." in done.stdout
    assert "skipped broken_T1: " in done.stdout
    assert "Their grids: 30 x 36 x 20 voxels, spacing 2 mm; all slices resampled" in done.stdout
    assert "skmimood: warning: " in done.stderr
    assert ".py:" not in done.stderr
    detector = ScanDetector.load(folder / "model")
    assert (detector.size_, detector.fpr, detector.random_state) == ((16, 16), 0.02, 3)
    assert detector.pipeline_["inpainter"].n_iter_ == 2


def test_info_tells_what_a_model_is_made_of_and_changes_nothing(fitted, capsys):
    model = fitted[1] / "model"
    before = content(model)
    assert run("info", model) == 0
    printed = capsys.readouterr().out
    for fact in ("16 x 16 pixels", "5 healthy scans", "false-positive rate 0.02", "codebook perplexity"):
        assert fact in printed
    assert run("info", model, "--json") == 0
    about = json.loads(capsys.readouterr().out)
    assert about["n_calibration_scans"] == 1
    assert about["skmimood_version"] == __version__
    assert about["steps"]["tokenizer"]["n_training_steps"] == 2
    assert about["steps"]["inpainter"]["n_parameters"] > 1000
    assert content(model) == before


def test_info_of_something_else_is_a_clear_error(healthy, capsys):
    assert_mistake(capsys, "info", healthy, says="not a model")


def test_bad_input_16_an_existing_model_is_refused_before_anything_is_learned(
    healthy, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(ScanDetector, "fit", lambda *arguments: pytest.fail("it was fitted"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.txt").write_text("the only copy")
    command = ("fit", healthy, "-o", tmp_path / "model", *FAST)
    assert_mistake(capsys, *command, says="exists already.*--overwrite")
    assert_mistake(capsys, *command, "--overwrite", says="not a model, so it is not overwritten")
    assert (tmp_path / "model" / "thesis.txt").read_text() == "the only copy"
    assert_mistake(capsys, "fit", healthy, "-o", healthy, *FAST, "--overwrite", says="another output")
    assert_mistake(capsys, "fit", healthy, "-o", tmp_path, *FAST, "--overwrite", says="another output")


@pytest.mark.parametrize(
    "output", [".", "..", "/", "empty/", "~/model", "healthy/model", "a-file", "~nobody9/x", "x" * 300]
)
def test_an_output_of_any_kind_is_tried_before_anything_is_learned(
    output, healthy, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(ScanDetector, "fit", lambda *arguments: (_ for _ in ()).throw(MemoryError))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-file").write_text("mine")
    (tmp_path / "empty").mkdir()
    before = content(tmp_path)
    works = output in ("empty/", "~/model", "healthy/model")
    assert run("fit", "healthy", f"--output={output}", *FAST) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert ("not enough memory" in errors) == works
    assert content(tmp_path) == before
    assert sorted(os.listdir()) == ["a-file", "empty", "healthy"] + ["home"] * (output == "~/model")


def test_bad_input_42_too_few_scans_are_a_clear_error_that_leaves_nothing(healthy, tmp_path, capsys):
    for scan in sorted(healthy.iterdir())[2:]:
        scan.unlink()
    assert_mistake(capsys, "fit", healthy, "-o", tmp_path / "model", *FAST, says="at least 3")
    assert [path.name for path in tmp_path.iterdir()] == ["healthy"]


def test_bad_input_47_an_interrupted_fit_goes_on_where_it_was(healthy, tmp_path, capsys, monkeypatch):
    step, made = loop._Trainer._step, []

    def counted(self):
        made.append(self.runtime.title)
        if len(made) == 4 and not (tmp_path / "go on").exists():
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(loop._Trainer, "_step", counted)
    command = ("fit", healthy, "-o", tmp_path / "model", *FAST)
    assert run(*command) == 130
    assert "--resume" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()
    assert made == ["VQTokenizer"] * 2 + ["PixelEvidence"] * 2
    assert_mistake(capsys, *command, says="unfinished training.*--resume.*--overwrite")

    (tmp_path / "go on").touch()
    made.clear()
    assert run(*command, "--resume") == 0
    assert made == ["PixelEvidence"] + ["AnomalousTokenDetector"] * 2 + ["MaskedTokenInpainter"] * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["go on", "healthy", "model"]

    assert run("fit", healthy, "-o", tmp_path / "unbroken", *FAST) == 0
    for name in ("manifest.json", "arrays.safetensors"):
        assert (tmp_path / "model" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes()


def test_lesion_and_brain_masks_lie_beside_the_scans(healthy, tmp_path, monkeypatch):
    given = {}

    def spy(self, X, y=None):
        given.update(scans=[Path(path).name for path in X], y=y, mask=self.mask, modality=self.modality)
        raise KeyboardInterrupt

    monkeypatch.setattr(ScanDetector, "fit", spy)
    for scan in sorted(healthy.iterdir()):
        for part in ("seg", "brainmask", "T2"):
            (healthy / scan.name.replace("T1", part)).touch()
    (healthy / "splits.csv").write_text("subject,split\nsub-0,train\nsub-1,train\nsub-2,test\n")
    options = ("--modality", "T1", "--mask-suffix", "brainmask", "--lesion-suffix", "seg", "--split", "train")
    assert run("fit", healthy, "-o", tmp_path / "model", *FAST, *options) == 130
    assert given == {
        "scans": ["sub-0_T1.nii.gz", "sub-1_T1.nii.gz"],
        "y": "seg",
        "mask": "brainmask",
        "modality": "T1",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["healthy"]


def test_the_defaults_are_those_of_the_detector(healthy, tmp_path, capsys, monkeypatch):
    given = {}

    def spy(self, X, y=None):
        given.update(self.get_params(deep=False))
        raise KeyboardInterrupt

    monkeypatch.setattr(ScanDetector, "fit", spy)
    run("fit", healthy, "-o", tmp_path / "model", "--max-bytes", "4G", "--volume", 0, "--max-invalid", 0.2)
    default = ScanDetector(None)
    for name in ("fpr", "scan_fpr", "calibration_fraction", "slice_smoothing"):
        assert given[name] == getattr(default, name)
    assert (given["max_bytes"], given["volume"], given["max_invalid"]) == (4 * 2**30, 0, 0.2)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        run("fit", "--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert f"among healthy pixels (default: {default.fpr})" in shown
    assert f"among healthy scans (default: {default.scan_fpr})" in shown
    assert f"0 for single slices (default: {default.slice_smoothing:g})" in shown


@pytest.mark.parametrize(
    ("fault", "code", "says"),
    [(MemoryError(), 2, "not enough memory.*--size"), (signal.SIGTERM, 143, "interrupted.*--resume")],
)
def test_a_lack_of_memory_and_a_termination_are_plain_lines(
    fault, code, says, healthy, tmp_path, capsys, monkeypatch
):
    def fail(self, X, y=None):
        if isinstance(fault, MemoryError):
            raise fault
        os.kill(os.getpid(), fault)
        time.sleep(10)

    monkeypatch.setattr(ScanDetector, "fit", fail)
    before = signal.getsignal(signal.SIGTERM)
    assert run("fit", healthy, "-o", tmp_path / "model", *FAST) == code
    assert re.fullmatch(rf"skmimood: error: .*{says}.*\n", capsys.readouterr().err)
    assert signal.getsignal(signal.SIGTERM) == before
    assert [path.name for path in tmp_path.iterdir()] == ["healthy"]


def test_an_interrupted_replacement_of_a_model_can_be_resumed(healthy, tmp_path, capsys, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "manifest.json").write_text("{}")
    unfinished = tmp_path / ".model.checkpoints"
    command = ("fit", healthy, "-o", tmp_path / "model", *FAST, "--overwrite")

    def interrupted(self, X, y=None):
        (unfinished / "step.safetensors").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(ScanDetector, "fit", interrupted)
    assert run(*command) == 130
    assert "The same command with --resume goes on" in capsys.readouterr().err

    def resumed(self, X, y=None):
        assert (unfinished / "step.safetensors").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(ScanDetector, "fit", resumed)
    assert run(*command, "--resume") == 130
    assert "The same command goes on" in capsys.readouterr().err
    assert (tmp_path / "model" / "manifest.json").read_text() == "{}"


# demo


def test_a_demo_that_cannot_run_removes_nothing_of_an_earlier_one(tmp_path, capsys):
    (tmp_path / "results").mkdir()
    for name in ("demo.json", "results/status.json"):
        (tmp_path / name).write_text("{}")
    before = content(tmp_path)
    assert_mistake(
        capsys, "demo", "-o", tmp_path, "--overwrite", "--device", "gpu", says="device='gpu' is not"
    )
    with claimed(tmp_path / ".demo.lock"):
        assert_mistake(capsys, "demo", "-o", tmp_path, "--overwrite", says="Another demo is at work")
    assert content(tmp_path) == before


def test_the_demo_runs_the_whole_job(tmp_path, capsys, monkeypatch):
    from skmimood.jobs import demo

    small = {"depth": 1, "width": 32, "n_heads": 2}
    settings = demo.DemoSettings(
        n_fit=4,
        n_healthy=2,
        n_patients=5,
        image_size=32,
        n_slices=6,
        parameters={
            "tokenizer__channels": 8,
            **{f"{step}__training__max_iter": 2 for step in ("tokenizer", "detector", "inpainter")},
            **{
                f"{step}__{name}": value
                for step in ("detector", "inpainter")
                for name, value in small.items()
            },
        },
        scan_fpr=0.5,
    )
    monkeypatch.setattr(demo, "DemoSettings", lambda: settings)
    command = ("demo", "-o", tmp_path / "demo")
    assert run(*command) == 0
    printed = capsys.readouterr().out
    for row in (
        "all ",
        "brain ",
        "AUROC",
        "AP over the base rate",
        "best Dice",
        "scans",
        "same",
        "intensity",
    ):
        assert row in printed
    metrics = json.loads((tmp_path / "demo" / "metrics.json").read_text())
    assert metrics["all"]["n_pixels"] == 5 * 32 * 32 * 6 > 1.5 * metrics["brain"]["n_pixels"]
    assert metrics["all"]["base_rate"] < metrics["brain"]["base_rate"]
    for pixels in ("all", "brain"):
        assert 0 <= metrics[pixels]["skmimood"]["auroc"] <= 1
        assert 0 < metrics[pixels]["intensity"]["best_dice"] <= 1
    assert set(metrics["scan_auroc"]) == {"skmimood", "intensity"}
    assert metrics["n_healthy_scans"] == 2
    assert metrics["auroc_by_lesion"]["bright"]["intensity"] > 0.8
    assert metrics["auroc_by_lesion"]["dark"]["intensity"] < 0.2
    assert (tmp_path / "demo" / "overview.png").read_bytes().startswith(b"\x89PNG")
    assert len(rows(tmp_path / "demo" / "results")) == 7

    assert_mistake(capsys, *command, says="already.*--overwrite")
    (tmp_path / "demo" / "demo.json").unlink()
    assert_mistake(capsys, *command, "--overwrite", says="not from an earlier demo")
    assert (tmp_path / "demo" / "metrics.json").exists()


def test_a_table_of_groups_keeps_scans_together_that_names_do_not(healthy, tmp_path, monkeypatch):
    table, seen = tmp_path / "groups.tsv", []
    names = sorted(path.name.removesuffix(".nii.gz") for path in healthy.glob("*.nii.gz"))
    table.write_text("Subject\tGroup\n" + "".join(f"{name}\tpair{k // 2}\n" for k, name in enumerate(names)))

    def spy(self, X, y=None, groups=None):
        seen.extend(groups)
        raise InputError("enough. Stop here.")

    monkeypatch.setattr(ScanDetector, "fit", spy)
    assert run("fit", healthy, "-o", tmp_path / "model", "--groups", table, *FAST) == 2
    assert seen == [f"pair{k // 2}" for k in range(len(names))]
    assert run("fit", healthy, "-o", tmp_path / "model", "--groups", tmp_path / "none.csv", *FAST) == 2
