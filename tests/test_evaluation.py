"""Results compared with lesion masks, scan by scan and in all."""

import csv
import warnings

import nibabel as nib
import numpy as np
import pytest
from command_line import assert_mistake, run
from toy_scans import RAS, head, image, save_model_of_toys

from skmimood import metrics
from skmimood.exceptions import SkmimoodWarning
from skmimood.nifti import write_image

PATIENTS = {"patient-1": 21, "patient-2": 22}


def write_mask(path, voxels, affine=RAS):
    write_image(nib.Nifti1Image(np.asarray(voxels, np.uint8), affine), path)


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Return the folder of the results of a healthy scan and two patients."""
    folder = tmp_path_factory.mktemp("scored")
    (folder / "scans").mkdir()
    write_image(image(20), folder / "scans" / "healthy_T1.nii.gz")
    for name, seed in PATIENTS.items():
        write_image(image(seed, lesion=True), folder / "scans" / f"{name}_T1.nii.gz")
    model = save_model_of_toys(folder)
    assert run("score", folder / "scans", "-m", model, "-o", folder / "out", "--no-report") == 0
    return folder / "out"


@pytest.fixture
def masks(tmp_path):
    folder = tmp_path / "masks"
    folder.mkdir()
    write_mask(folder / "healthy_seg.nii.gz", np.zeros((30, 36, 20)))
    for name, seed in PATIENTS.items():
        write_mask(folder / f"{name}_seg.nii.gz", head(seed)[1])
    return folder


def lines_of(path):
    with open(path, newline="", encoding="utf-8") as stream:
        return {line["id"]: line for line in csv.DictReader(stream)}


def maps(out, *scans):
    """Return the voxels of truth, map and mask of scans."""
    truth = [
        head(PATIENTS[scan])[1] > 0 if scan in PATIENTS else np.zeros((30, 36, 20), bool) for scan in scans
    ]
    of = (
        [nib.load(out / f"{scan}_T1_{what}.nii.gz").get_fdata() for scan in scans]
        for what in ("anomaly", "mask")
    )
    return np.stack(truth), *map(np.stack, of)


def test_each_scan_and_all_together_are_measured_as_the_metrics_do(scored, masks, tmp_path, capsys):
    assert run("evaluate", scored, masks, "--output", tmp_path / "table.csv") == 0
    lines = lines_of(tmp_path / "table.csv")
    assert list(lines) == ["patient-1_T1", "patient-2_T1", "healthy_T1", "all"]
    for scans, name in ((("patient-1",), "patient-1_T1"), ((*PATIENTS, "healthy"), "all")):
        truth, anomaly, mask = maps(scored, *scans)
        for metric in (metrics.best_dice, metrics.average_precision, metrics.auroc):
            assert float(lines[name][metric.__name__]) == pytest.approx(metric(truth, anomaly), rel=2e-3)
        assert float(lines[name]["dice"]) == pytest.approx(
            metrics.dice_at_threshold(truth, mask, 0.5), rel=1e-5
        )
        rate = metrics.false_positive_rate(truth, mask, 0.5)
        assert float(lines[name]["false_positive_rate"]) == pytest.approx(rate, rel=1e-5)
        found = metrics.lesion_detection(truth, mask)
        expected = [found.n_lesions, found.n_detected, found.n_false_positives]
        assert [
            int(lines[name][f"n_{part}"]) for part in ("lesions", "detected", "false_positives")
        ] == expected
    assert lines["healthy_T1"]["dice"] == lines["healthy_T1"]["auroc"] == ""
    assert lines["patient-1_T1"]["is_anomalous"] == "1"
    printed = capsys.readouterr().out
    assert "2 scans with lesions: 2 of 2 called anomalous." in printed
    assert "1 scan without: " in printed
    assert "AUROC of the scans by their scores: 1.000." in printed
    assert len([line for line in printed.splitlines() if line.endswith("_T1")]) == 3


def test_the_table_lies_beside_the_results_and_is_written_anew(scored, masks):
    for _ in range(2):
        assert run("evaluate", scored, masks) == 0
    assert set(lines_of(scored / "evaluation.csv")) == {"patient-1_T1", "patient-2_T1", "healthy_T1", "all"}


def test_scans_without_a_mask_are_left_out_unless_they_are_said_to_be_healthy(scored, masks, capsys):
    (masks / "healthy_seg.nii.gz").unlink()
    assert run("evaluate", scored, masks) == 0
    assert "Left out, as they have no mask: healthy_T1." in capsys.readouterr().err
    assert "healthy_T1" not in lines_of(scored / "evaluation.csv")
    assert run("evaluate", scored, masks, "--unmasked-healthy") == 0
    assert lines_of(scored / "evaluation.csv")["healthy_T1"]["n_lesions"] == "0"


def test_masks_among_other_files_are_chosen_by_their_ending(scored, masks, tmp_path):
    for path in masks.glob("*_seg.nii.gz"):
        path.rename(path.with_name(path.name.replace("_seg", "_T1-lesions")))
    write_image(image(21), masks / "patient-1_T1.nii.gz")
    assert run("evaluate", scored, masks, "--lesion-suffix", "lesions", "--output", tmp_path / "t.csv") == 0
    assert lines_of(tmp_path / "t.csv")["patient-1_T1"]["n_lesions"] == "1"


def test_a_mask_of_another_place_costs_its_scan_only_and_the_exit_status_says_so(scored, masks, capsys):
    write_image(
        nib.Nifti1Image(head(21)[1], np.diag([5.0, 5, 5, 1])), masks / "patient-1_seg.nii.gz", overwrite=True
    )
    assert run("evaluate", scored, masks) == 1
    assert (
        "patient-1_T1 is left out. patient-1_seg.nii.gz: covers another field of view"
        in capsys.readouterr().err
    )
    assert set(lines_of(scored / "evaluation.csv")) == {"patient-2_T1", "healthy_T1", "all"}


def test_voxels_without_a_value_do_not_count(masks, tmp_path):
    data, mask = head(21, lesion=True)
    data[mask > 0] = np.where(np.arange(mask.sum()) < 3, np.nan, data[mask > 0])
    (tmp_path / "scans").mkdir()
    write_image(nib.Nifti1Image(data, RAS), tmp_path / "scans" / "patient-1_T1.nii.gz")
    model = save_model_of_toys(tmp_path)
    assert run("score", tmp_path / "scans", "-m", model, "-o", tmp_path / "out", "--no-report") == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkmimoodWarning)
        assert run("evaluate", tmp_path / "out", masks) == 0
    assert 0 < float(lines_of(tmp_path / "out" / "evaluation.csv")["all"]["dice"]) <= 1


def test_what_cannot_be_evaluated_is_a_clear_error(scored, masks, tmp_path, capsys):
    assert_mistake(capsys, "evaluate", masks, masks, says="holds no results of skmimood score")
    (tmp_path / "others").mkdir()
    write_mask(tmp_path / "others" / "else_seg.nii.gz", head()[1])
    assert_mistake(
        capsys, "evaluate", scored, tmp_path / "others", says="No mask is named like one of the scans"
    )
