"""BIDS data sets as they come, and results as derivatives of them."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
from command_line import assert_mistake, rows, run
from toy_scans import head, image, save_model_of_toys

from skmimood.exceptions import InputError
from skmimood.nifti import find_scans, write_image
from skmimood.nifti.bids import result_names
from skmimood.nifti.files import is_wanted
from skmimood.scans.sources import find_named_or_chosen

NO_CHOICE = {"suffix": None, "exclude": ()}


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def describe(root, kind="raw"):
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset_description.json").write_text(json.dumps({"Name": "x", "DatasetType": kind}))
    return root


@pytest.fixture
def data_set(tmp_path):
    root = describe(tmp_path / "study")
    touch(root / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    touch(root / "sub-02" / "ses-1" / "anat" / "sub-02_ses-1_T1w.nii.gz")
    touch(root / "sub-01" / "func" / "sub-01_task-rest_bold.nii.gz")
    touch(root / "derivatives" / "prep" / "sub-01" / "anat" / "sub-01_desc-preproc_T1w.nii.gz")
    touch(root / "sourcedata" / "sub-01" / "T1w.nii.gz")
    return root


def names(scans):
    return [path.name for path in scans]


def test_of_a_data_set_the_anatomical_scans_of_its_subjects_are_taken(data_set):
    assert names(find_named_or_chosen(data_set, **NO_CHOICE)) == [
        "sub-01_T1w.nii.gz",
        "sub-02_ses-1_T1w.nii.gz",
    ]


def test_scans_of_several_kinds_are_to_be_chosen_from(data_set):
    flair = touch(data_set / "sub-01" / "anat" / "sub-01_FLAIR.nii.gz")
    with pytest.raises(InputError, match=r"'study' holds FLAIR, T1w\. Choose .* --modality FLAIR"):
        find_named_or_chosen(data_set, **NO_CHOICE)
    assert find_named_or_chosen(data_set, suffix="FLAIR", exclude=()) == [flair]
    assert names(find_named_or_chosen(data_set, suffix="bold", exclude=())) == [
        "sub-01_task-rest_bold.nii.gz"
    ]


def test_derivatives_that_are_named_are_a_folder_like_any_other(data_set):
    derivatives = describe(data_set / "derivatives" / "prep", "derivative")
    assert names(find_named_or_chosen(derivatives, **NO_CHOICE)) == ["sub-01_desc-preproc_T1w.nii.gz"]
    assert len(find_scans(data_set / "sourcedata")) == 1


def test_results_are_called_by_the_entities_of_their_scan():
    assert result_names("sub-02_ses-1_acq-3d_T1w") == (
        "sub-02/ses-1/anat/sub-02_ses-1_acq-3d_stat-anomaly_statmap.nii.gz",
        "sub-02/ses-1/anat/sub-02_ses-1_acq-3d_stat-p_statmap.nii.gz",
        "sub-02/ses-1/anat/sub-02_ses-1_acq-3d_label-lesion_roi.nii.gz",
        "sub-02/ses-1/anat/sub-02_ses-1_acq-3d_desc-lesions_dseg.nii.gz",
        "sub-02/ses-1/anat/sub-02_ses-1_acq-3d_desc-lesions_dseg.tsv",
        "sub-02/ses-1/anat/sub-02_ses-1_acq-3d_desc-healed_T1w.nii.gz",
    )
    assert "sub-01/anat/sub-01_space-MNI_label-lesion_roi.nii.gz" in result_names(
        "sub-01_space-MNI_desc-preproc_T1w"
    )
    for scan in ("patient1_T1w", "sub-01", "../sub-01_T1w", "sub-01_T1w/x", "sub-01_ses-1"):
        with pytest.raises(InputError, match="is not named as in BIDS"):
            result_names(scan)
    assert not is_wanted("sub-01_stat-p_statmap", None, ("statmap",))


def test_results_are_written_resumed_evaluated_and_replaced_as_derivatives(tmp_path, capsys):
    root = describe(tmp_path / "study")
    for subject, lesion in (("sub-01", True), ("sub-02", False)):
        (root / subject / "anat").mkdir(parents=True)
        write_image(image(21, lesion=lesion), root / subject / "anat" / f"{subject}_T1w.nii.gz")
    model, out = save_model_of_toys(tmp_path), tmp_path / "derivatives"
    command = ("score", root, "-m", model, "-o", out, "--bids", "--no-report")
    assert run(*command) == 0
    written = sorted(path.name for path in (out / "sub-01" / "anat").iterdir())
    assert written == [
        "sub-01_desc-lesions_dseg.nii.gz",
        "sub-01_desc-lesions_dseg.tsv",
        "sub-01_label-lesion_roi.nii.gz",
        "sub-01_stat-anomaly_statmap.nii.gz",
        "sub-01_stat-p_statmap.nii.gz",
    ]
    assert json.loads((out / "dataset_description.json").read_text())["DatasetType"] == "derivative"
    assert "scores.csv" in (out / ".bidsignore").read_text().split()
    assert set(rows(out)) == {"sub-01_T1w", "sub-02_T1w"}
    with open(out / "sub-01" / "anat" / "sub-01_desc-lesions_dseg.tsv", newline="") as stream:
        lesions = list(csv.DictReader(stream, delimiter="\t"))
    assert lesions[0]["name"] == "lesion-1"
    assert float(lesions[0]["volume_mm3"]) > 0

    capsys.readouterr()
    assert run(*command, "--resume") == 0
    assert "Finished before and kept: 2 scans" in capsys.readouterr().out
    assert_mistake(capsys, *command[:-2], "--resume", says="another bids")
    (tmp_path / "masks").mkdir()
    write_image(
        nib.Nifti1Image(head(21)[1], np.diag([2.0, 2, 2, 1])), tmp_path / "masks" / "sub-01_T1w.nii.gz"
    )
    assert run("evaluate", out, tmp_path / "masks") == 0
    assert run(*command[:-2], "--overwrite", "--no-report") == 0
    assert not list((out / "sub-01").rglob("*.nii.gz"))
    assert (out / "sub-01_T1w_mask.nii.gz").is_file()
    capsys.readouterr()

    assert_mistake(
        capsys, *command[:4], "-o", root, "--bids", says="holds, the input|is a BIDS data set of scans"
    )
    write_image(image(3), tmp_path / "patient.nii.gz")
    odd = ("score", tmp_path / "patient.nii.gz", "-m", model, "-o", tmp_path / "odd", "--bids")
    assert_mistake(capsys, *odd, says="'patient' is not named as in BIDS")
