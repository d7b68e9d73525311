import re
import subprocess
import sys
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from phantom_layouts import write_layout
from sklearn.pipeline import Pipeline
from toy_scans import make

from skmimood.baselines import HealthyZScore
from skmimood.datasets import (
    load_brats,
    load_ct_ich,
    load_image_mask_folder,
    load_ixi,
    load_lgg,
    load_mslub,
    read_slice_kinds,
    read_splits,
    split_scan_set,
)
from skmimood.exceptions import InputError, ScanReadError
from skmimood.nifti import read_labels, read_scan, write_image

LOADERS = {
    "brats": load_brats,
    "brats2020": load_brats,
    "brats2023": load_brats,
    "ixi": load_ixi,
    "lgg": load_lgg,
    "mslub": load_mslub,
}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """Write each layout once: 1 healthy subject and 2 patients. Do not change these files."""
    folder = tmp_path_factory.mktemp("phantoms")
    options = {"n_healthy": 1, "n_lesions": 2, "size": 32, "n_slices": 4}
    return {name: write_layout(folder / name, name, **options) for name in LOADERS}, folder


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def names(paths):
    return [None if path is None else path.name for path in paths]


@pytest.mark.parametrize("layout", LOADERS)
def test_every_scan_gets_its_own_masks(layout, phantoms):
    written, folder = phantoms[0][layout], phantoms[1] / layout
    found = LOADERS[layout](folder)
    found.check()
    assert found.scans == (*written.healthy, *written.scans)
    assert list(found.masks[-2:]) == written.masks
    assert len(found) == len(set(found.subjects)) == 3
    for subject, scan, mask in zip(found.subjects, found.scans, found.masks, strict=True):
        assert any(part.startswith(subject) for part in scan.parts)
        assert mask is None or mask.parent == scan.parent
    assert list(found.brain_masks) == (written.brain_masks or [None] * 3)
    for number, scan in enumerate(found.scans):
        mask = found.masks[number]
        assert (mask is not None and read_labels(mask, read_scan(scan)).any()) == (number > 0)


def test_each_set_names_itself_its_contrast_and_its_licence(phantoms):
    sets = {layout: load(phantoms[1] / layout) for layout, load in LOADERS.items()}
    assert [each.name for each in sets.values()] == [
        *("BraTS2021", "BraTS20", "BraTS-GLI", "IXI", "TCGA-LGG", "MSLUB")
    ]
    assert sets["brats"].licence == "CC BY-NC-SA 4.0"
    assert "registration" in sets["brats2023"].licence
    assert sets["mslub"].licence == "CC BY"
    assert (sets["ixi"].modality, sets["mslub"].modality) == ("t1", "flair")
    assert str(phantoms[1]) not in repr(sets["ixi"])


def test_the_published_splits_cut_a_loaded_set(phantoms):
    for layout, load in {"lgg": load_lgg, "ixi": load_ixi}.items():
        parts = split_scan_set(load(phantoms[1] / layout), read_splits(phantoms[0][layout].splits))
        assert list(parts["train"].scans) == phantoms[0][layout].healthy
        assert sum(map(len, parts.values())) == 3


@pytest.mark.parametrize(
    ("modality", "ending"), [("t1", "-t1n"), ("T1ce", "-t1c"), ("t2", "-t2w"), ("flair", "-t2f")]
)
def test_contrasts_of_brats_2023_have_other_names(modality, ending, tmp_path):
    case = "BraTS-GLI-00005-001"
    touch(tmp_path, *(f"{case}/{case}-{part}.nii.gz" for part in ("t1n", "t1c", "t2w", "t2f", "seg")))
    found = load_brats(tmp_path, modality=modality)
    assert names(found.scans) == [f"{case}{ending}.nii.gz"]
    assert names(found.masks) == [f"{case}-seg.nii.gz"]
    assert found.subjects == (case,)
    assert found.modality == modality.lower()


def test_the_misnamed_mask_of_case_355_is_found_and_given_to_no_other_case(tmp_path):
    cases = [f"BraTS20_Training_{number}" for number in (354, 355)]
    folder = tmp_path / "MICCAI_BraTS2020_TrainingData"
    touch(folder, *(f"{case}/{case}_{part}.nii" for case in cases for part in ("t1", "t1ce", "t2")))
    touch(folder, f"{cases[0]}/{cases[0]}_seg.nii", f"{cases[1]}/W39_1998.09.19_Segm.nii")
    found = load_brats(tmp_path, modality="t1")
    assert names(found.scans) == [f"{case}_t1.nii" for case in cases]
    assert names(found.masks) == [f"{cases[0]}_seg.nii", "W39_1998.09.19_Segm.nii"]
    (folder / cases[0] / f"{cases[0]}_seg.nii").unlink()
    touch(folder, f"{cases[0]}/W39_1998.09.19_Segm.nii")
    with pytest.raises(InputError, match="no mask of 'BraTS20_Training_354', but"):
        load_brats(tmp_path)


def test_two_releases_of_brats_are_not_mixed(tmp_path):
    for case in ("BraTS20_Training_001", "BraTS2021_00000"):
        touch(tmp_path, f"{case}/{case}_t2.nii.gz", f"{case}/{case}_seg.nii.gz")
    with pytest.raises(InputError, match=r"cases of 'BraTS20', 'BraTS2021'.*the folder of one release"):
        load_brats(tmp_path)


def test_a_set_without_any_masks_has_none(tmp_path):
    touch(tmp_path, *(f"BraTS20_Validation_00{i}/BraTS20_Validation_00{i}_t2.nii" for i in (1, 2)))
    assert load_brats(tmp_path).masks == (None, None)


@pytest.mark.parametrize("extension", [".nii", ".nii.gz"])
def test_the_files_of_ixi_are_found_as_they_come_out_of_the_archive(extension, tmp_path):
    touch(
        tmp_path,
        *(f"IXI/IXI{name}{extension}" for name in ("012-HH-1211-T2", "002-Guys-0828-T2", "002-Guys-0828-T1")),
        "IXI/IXI002-Guys-0828_brainmask.nii.gz",
    )
    found = load_ixi(tmp_path, modality="T2")
    assert found.subjects == ("IXI002-Guys-0828", "IXI012-HH-1211")
    assert names(found.scans) == [f"{subject}-T2{extension}" for subject in found.subjects]
    assert names(found.brain_masks) == ["IXI002-Guys-0828_brainmask.nii.gz", None]
    assert found.masks == (None, None)


def test_hidden_files_are_passed_over(tmp_path):
    touch(
        tmp_path, "IXI002-Guys-0828-T1.nii.gz", "._IXI002-Guys-0828-T1.nii.gz", "__MACOSX/._IXI1-HH-1-T1.nii"
    )
    touch(tmp_path, ".trash/IXI003-Guys-0829-T1.nii.gz", "._IXI002-Guys-0828_brainmask.nii.gz", ".DS_Store")
    found = load_ixi(tmp_path)
    assert names(found.scans) == ["IXI002-Guys-0828-T1.nii.gz"]
    assert found.brain_masks == (None,)


def write_mslub(folder, pattern, patients=("patient01", "patient02")):
    for patient in patients:
        parts = ("FLAIR", "T1W", "T1WKS", "T2W", "consensus_gt", "brainmask")
        touch(folder, *(pattern.format(patient=patient, part=part) + ".nii.gz" for part in parts))


def test_mslub_prefers_coregistered_scans_and_leaves_out_the_longitudinal_ones(tmp_path):
    write_mslub(tmp_path, "cross_sectional/raw/{patient}/{part}")
    write_mslub(tmp_path, "cross_sectional/coregistered/{patient}/{part}")
    touch(tmp_path, "longitudinal/raw/patient01/study1_FLAIR.nii.gz", "longitudinal/raw/patient01/gt.nii.gz")
    touch(tmp_path, "cross_sectional/MNI/patient01/FLAIR_N4_regtoMNI.nii.gz")
    found = load_mslub(tmp_path)
    assert found.subjects == ("patient01", "patient02")
    folder = tmp_path / "cross_sectional" / "coregistered" / "patient01"
    assert (found.scans[0], found.masks[0], found.brain_masks[0]) == (
        folder / "FLAIR.nii.gz",
        folder / "consensus_gt.nii.gz",
        folder / "brainmask.nii.gz",
    )
    assert names(load_mslub(tmp_path, modality="t1").scans) == ["T1W.nii.gz"] * 2
    raw = load_mslub(tmp_path / "cross_sectional" / "raw")
    assert raw.scans[0] == tmp_path / "cross_sectional" / "raw" / "patient01" / "FLAIR.nii.gz"


def test_mslub_is_found_as_first_published(tmp_path):
    write_mslub(tmp_path, "{patient}/{patient}_{part}")
    touch(tmp_path, "patient01/raw/patient01_FLAIR.nii.gz")
    found = load_mslub(tmp_path)
    assert names(found.scans) == ["patient01_FLAIR.nii.gz", "patient02_FLAIR.nii.gz"]
    assert names(found.masks) == ["patient01_consensus_gt.nii.gz", "patient02_consensus_gt.nii.gz"]
    assert found.scans[0].parent.name == "patient01"


def test_ct_ich_is_found_as_published_and_as_stacked_pictures(tmp_path):
    touch(
        tmp_path / "published",
        *(f"{part}/{name}.nii" for part in ("ct_scans", "masks") for name in ("049", "050")),
    )
    touch(tmp_path / "stacked", "CT049/CT049_ct.nii.gz", "CT051/CT051_ct.nii.gz", "CT051/CT051_thick.nii.gz")
    published, stacked = (load_ct_ich(tmp_path / name) for name in ("published", "stacked"))
    assert published.subjects == ("049", "050")
    assert [mask.parent.name for mask in published.masks] == ["masks", "masks"]
    assert names(published.masks) == names(published.scans) == ["049.nii", "050.nii"]
    assert stacked.subjects == ("CT049", "CT051")
    assert stacked.masks == (None, None)
    assert (stacked.name, stacked.modality) == ("CT-ICH", "ct")
    (tmp_path / "published" / "masks" / "050.nii").unlink()
    with pytest.raises(InputError, match="no mask of '050'"):
        load_ct_ich(tmp_path / "published")


def test_the_kinds_in_every_slice_are_read_from_a_table(tmp_path):
    table = tmp_path / "slices.csv"
    table.write_text(
        "subject,slice,haemorrhage,kinds\nCT1,1,1,epidural + subdural\nCT1,0,0,\nCT1,2,1,epidural\nCT2,0,0,\n"
    )
    assert read_slice_kinds(table) == {"CT1": ((), ("epidural", "subdural"), ("epidural",)), "CT2": ((),)}


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ("CT1,1,\nCT1,2,\n", "the 2 slices of 'CT1' from 0 to 1"),
        ("CT1,0,\nCT1,0,epidural\n", "the 2 slices of 'CT1' from 0 to 1"),
        ("CT1,first,\n", "the 1 slices of 'CT1' from 0 to 0"),
        ("", "has no rows"),
    ],
)
def test_a_table_that_does_not_number_the_slices_is_refused(rows, fault, tmp_path):
    (tmp_path / "slices.csv").write_text("subject,slice,kinds\n" + rows)
    with pytest.raises(InputError, match=fault):
        read_slice_kinds(tmp_path / "slices.csv")


def test_a_flat_folder_and_one_with_subject_folders_are_read_alike(tmp_path):
    files = ("sub-1_T2.nii.gz", "sub-1_T1.nii.gz", "sub-1_seg.nii", "sub-1_T2_brain.nii.gz", "sub-2_T2.nii")
    touch(tmp_path / "flat", *files)
    touch(tmp_path / "nested", *(f"{name[:5]}/{name}" for name in files))
    for folder in ("flat", "nested"):
        found = load_image_mask_folder(
            tmp_path / folder, modality="t2", brain_mask_suffix="brain", labels=[1, 2]
        )
        assert found.subjects == ("sub-1", "sub-2")
        assert names(found.scans) == ["sub-1_T2.nii.gz", "sub-2_T2.nii"]
        assert names(found.masks) == ["sub-1_seg.nii", None]
        assert names(found.brain_masks) == ["sub-1_T2_brain.nii.gz", None]
        assert (found.name, found.labels) == (folder, (1, 2))


def test_without_a_modality_all_images_are_scans_and_lone_masks_are_refused(tmp_path):
    touch(tmp_path, "one.nii.gz", "one_mask.nii.gz", "two.nii", "two_brain_mask.nii.gz")
    options = {"mask_suffix": "mask", "brain_mask_suffix": "_brain_mask"}
    found = load_image_mask_folder(tmp_path, **options)
    assert found.subjects == ("one", "two")
    assert names(found.masks) == ["one_mask.nii.gz", None]
    assert names(found.brain_masks) == [None, "two_brain_mask.nii.gz"]
    touch(tmp_path, "three_T2.nii.gz", "three_mask.nii.gz")
    with pytest.raises(InputError, match=r"'three_mask.nii.gz' belong to no scan.*modality="):
        load_image_mask_folder(tmp_path, **options)
    with pytest.raises(InputError, match="mask_suffix must be"):
        load_image_mask_folder(tmp_path, mask_suffix="")


@pytest.mark.parametrize(
    ("load", "example", "where"),
    [
        (load_brats, "BraTS2021_00000/BraTS2021_00000_t2.nii.gz", "synapse.org/syn51156910"),
        (load_ixi, "IXI002-Guys-0828-T1.nii.gz", "CC BY-SA 3.0: https://brain-development.org"),
        (load_mslub, "coregistered/patient01/FLAIR.nii.gz", "CC BY: https://github.com/muschellij2"),
        (load_ct_ich, "ct_scans/049.nii with masks/049.nii", "https://physionet.org/content/ct-ich/"),
        (load_lgg, "TCGA_CS_4941_19960909_flair.nii.gz", "CC BY-NC-SA 4.0 .*https://www.kaggle.com"),
        (load_image_mask_folder, "sub-01_T2.nii.gz with sub-01_seg.nii.gz", "Check the path"),
    ],
)
def test_a_wrong_root_says_what_was_expected_and_where_to_get_it(load, example, where, tmp_path):
    for root, fault in ((tmp_path / "nowhere", "There is no folder"), (tmp_path, "No scan of")):
        with pytest.raises(InputError, match=f"{fault}.*{re.escape(example)}.*{where}") as caught:
            load(root)
        assert repr(str(root)) in str(caught.value)


def test_scans_of_another_set_are_not_taken_for_the_one_asked_for(phantoms):
    with pytest.raises(InputError, match="No scan of IXI"):
        load_ixi(phantoms[1] / "brats", modality="t2")


@pytest.mark.parametrize("load", [load_brats, load_ixi, load_mslub])
def test_an_unknown_modality_is_refused(load, tmp_path):
    with pytest.raises(InputError, match=r"modality must be one of .*t2.*; got 'dwi'"):
        load(tmp_path, modality="dwi")


@pytest.mark.parametrize("labels", [4, (), (0, 1), (1.5,), ("4",)])
def test_labels_that_are_no_mask_values_are_refused(labels, phantoms):
    with pytest.raises(InputError, match="labels must be mask values above 0"):
        load_brats(phantoms[1] / "brats", labels=labels)


def test_labels_choose_what_counts_as_anomalous(tmp_path):
    values = np.zeros((8, 8, 4), np.uint8)
    values[2], values[4] = 1, 4
    case = "BraTS2021_00000"
    write_image(nib.Nifti1Image(values * 10, np.eye(4)), tmp_path / f"{case}_t2.nii.gz")
    write_image(nib.Nifti1Image(values, np.eye(4)), tmp_path / f"{case}_seg.nii.gz")
    for labels, expected in ((None, values > 0), ((4,), values == 4), ([1, 4], values > 0)):
        found = load_brats(tmp_path, labels=labels)
        mask = read_labels(found.masks[0], read_scan(found.scans[0]), labels=found.labels)
        assert np.array_equal(mask, expected)


def test_bad_input_13_two_scans_of_one_subject_are_named(tmp_path):
    touch(tmp_path, "a/IXI002-Guys-0828-T1.nii.gz", "b/IXI002-Guys-0828-T1.nii")
    with pytest.raises(
        InputError, match=r"two scans of subject 'IXI002-Guys-0828': '.*a/IXI.*gz' and '.*b/IXI"
    ):
        load_ixi(tmp_path)


def test_a_check_refuses_a_subject_that_appears_twice(phantoms):
    found = load_ixi(phantoms[1] / "ixi")
    with pytest.raises(InputError, match="two scans of subject"):
        replace(found, subjects=(found.subjects[0],) * 3).check()


@pytest.mark.parametrize("column", ["masks", "brain_masks"])
@pytest.mark.parametrize(
    ("shape", "shift", "fits"), [((8, 8, 4), 0.05, True), ((8, 8, 4), 0.5, False), ((8, 8, 5), 0.0, False)]
)
def test_a_check_refuses_masks_on_another_grid_only(column, shape, shift, fits, tmp_path):
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    moved = affine.copy()
    moved[0, 3] = 2 * shift
    ending = {"masks": "seg", "brain_masks": "brain"}[column]
    write_image(nib.Nifti1Image(np.ones((8, 8, 4), np.uint8), affine), tmp_path / "sub-1_T2.nii.gz")
    write_image(nib.Nifti1Image(np.ones(shape, np.uint8), moved), tmp_path / f"sub-1_{ending}.nii.gz")
    found = load_image_mask_folder(tmp_path, modality="T2", brain_mask_suffix="brain")
    assert getattr(found, column)[0] is not None
    if fits:
        found.check()
    else:
        with pytest.raises(InputError, match=rf"sub-1_{ending}.nii.gz of sub-1 does not lie on the grid"):
            found.check()


def test_a_check_reads_headers_only_and_names_the_damaged_file(tmp_path):
    for name in ("sub-1_T2", "sub-1_seg"):
        path = tmp_path / f"{name}.nii"
        write_image(nib.Nifti1Image(np.ones((8, 8, 4), np.uint8), np.eye(4)), path)
        path.write_bytes(path.read_bytes()[:352])  # the header alone: reading a voxel would fail
    found = load_image_mask_folder(tmp_path, modality="T2")
    found.check()
    found.masks[0].write_text("no image")
    with pytest.raises(ScanReadError, match=r"sub-1_seg.nii of sub-1: is not NIfTI"):
        found.check()


def test_importing_datasets_and_reading_splits_needs_no_nibabel():
    code = (
        "import sys, skmimood.datasets; skmimood.datasets.read_splits; dir(skmimood.datasets)\n"
        "print([name for name in ('nibabel', 'numpy', 'torch') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize("layout", LOADERS)
@pytest.mark.filterwarnings("ignore::skmimood.exceptions.SkmimoodWarning")
def test_what_a_loader_returns_can_be_fitted_and_scored(phantoms, layout):
    found = LOADERS[layout](phantoms[1] / layout)
    masks = "brainmask" if any(found.brain_masks) else "auto"
    detector = make(mask=masks, size=16, pipeline=Pipeline([("zscore", HealthyZScore())]))
    detector.fit(found.scans, found.masks, groups=found.subjects)
    assert len({line.id for line in detector.fit_status_}) == 3
    assert [line.group for line in detector.fit_status_] == list(found.subjects)
    assert 0 <= detector.score(found.scans, found.masks) <= 1
    results = list(detector.detect(found.scans))
    assert [result.id for result in results] == [line.id for line in detector.fit_status_]
    assert all(subject in result.id for subject, result in zip(found.subjects, results, strict=True))
