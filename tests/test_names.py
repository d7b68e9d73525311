import os
import random
import re
import subprocess
import sys
import unicodedata
from contextlib import nullcontext
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from skmimood.datasets.tables import read_columns
from skmimood.exceptions import InputError, ScanReadError, SkmimoodWarning
from skmimood.nifti import find_companion, find_scans, read_scan, scan_id, scan_ids, subject_of
from skmimood.nifti.files import RESULT_ENDINGS
from skmimood.scans.sources import find_named_or_chosen, first_places, mask_suffixes, pair_masks
from skmimood.scans.subjects import groups_of, subject_among

MEMORY = nib.Nifti1Image(np.zeros((8, 8, 8), np.float32), np.eye(4))


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.mark.parametrize(
    ("path", "name", "subject"),
    [
        ("d/sub-01_ses-2_T1w.nii.gz", "sub-01_ses-2_T1w", "sub-01"),
        ("d/sub-01/ses-2/anat/T1w.nii.gz", "T1w", "sub-01"),
        ("d/sub-01/visit3/T1.NII.GZ", "T1", "sub-01"),
        ("d/sub-CC-7-ses-1.Nii", "sub-CC-7-ses-1", "sub-CC-7"),
        ("HCP/100307/T1w/T1w_acpc_dc_restore_brain.nii.gz", "100307_T1w_acpc_dc_restore_brain", "100307"),
        ("HCP/100307/MNINonLinear/T2w_restore.2.nii.gz", "100307_T2w_restore.2", "100307"),
        ("fs/bert/mri/orig/001.nii.gz", "bert_001", "bert"),
        ("fs/bert/mri/brain.finalsurfs.nii", "bert_brain.finalsurfs", "bert"),
        ("T1w/patient7.nii.gz", "patient7", None),
        ("mri/patient7_T1.nii.gz", "patient7_T1", None),
        ("BraTS-GLI-00007-001/BraTS-GLI-00007-001-t2w.nii.gz", "BraTS-GLI-00007-001-t2w", "BraTS-GLI-00007"),
        ("BraTS2021_00007/BraTS2021_00007_t2.nii.gz", "BraTS2021_00007_t2", None),
        ("patient01/FLAIR.nii.gz", "FLAIR", None),
        ("sub/subject_1.nii", "subject_1", None),
        ("sub-01_ses-2/T1.nii.gz", "T1", "sub-01"),
        ("sub-acute_stroke/p7_T1.nii.gz", "p7_T1", None),
        ("me/mri/study/p0/FLAIR.nii.gz", "FLAIR", None),
        ("me/mri/study/p0/T1.nii.gz", "T1", None),
        ("me/mri/T1_patient0.nii.gz", "T1_patient0", None),
        ("me/mri/001.nii.gz", "001", None),
        ("me/T1w/T1w_patient0.nii.gz", "T1w_patient0", None),
    ],
)
def test_a_scan_is_called_as_its_file_and_where_a_layout_repeats_names_as_its_subject_too(
    path, name, subject
):
    assert (scan_id(Path("/data") / path), subject_of(f"/data/{path}")) == (name, subject)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["p1/FLAIR.nii.gz", "p2/FLAIR.nii"], ["p1_FLAIR", "p2_FLAIR"]),
        (["a/p1/x/T1.nii", "b/p1/x/T1.nii"], ["a_T1", "b_T1"]),
        (["a/p1/T1.nii", "a/p2/T1.nii", "b/p1/T1.nii"], ["a_p1_T1", "a_p2_T1", "b_p1_T1"]),
        (["T1.nii", "x/T1.nii"], ["T1", "x_T1"]),
        (["x/y/T1.nii", "y/x/T1.nii"], ["x_y_T1", "y_x_T1"]),
        (["p1/T1.nii", "p2/t1.nii", "other.nii"], ["p1_T1", "p2_t1", "other"]),
        (["sub-1/ses-1/anat/T1w.nii", "sub-1/ses-2/anat/T1w.nii"], ["ses-1_T1w", "ses-2_T1w"]),
    ],
)
def test_scans_of_one_name_are_told_apart_by_their_folders_in_any_order(paths, names):
    expected = dict(zip([f"/data/{path}" for path in paths], names, strict=True))
    shuffled = list(expected)
    random.Random(0).shuffle(shuffled)
    assert scan_ids(shuffled) == [expected[path] for path in shuffled]


def test_folders_that_happen_to_be_called_as_those_of_a_layout_make_no_subject(tmp_path):
    for name in ("study/p{}/FLAIR", "T1_patient{}", "orig/00{}", "sub-acute_stroke/p{}/T1"):
        scans = [touch(tmp_path / "me" / "mri" / f"{name.format(k)}.nii.gz") for k in range(4)]
        assert len(set(groups_of(scans))) == 4


def test_a_table_of_splits_goes_before_the_names_of_folders(tmp_path):
    (tmp_path / "splits.csv").write_text(
        "subject,split\np0,train\np1,train\nsub-1_ses-1,train\nsub-1_ses-2,test\n"
    )
    scans = [touch(tmp_path / f"{name}/mri/T1.nii.gz") for name in ("p0/a", "p0/b", "p1/a")]
    assert groups_of(scans) == ["p0", "p0", "p1"]
    assert groups_of([touch(tmp_path / f"sub-1_ses-{k}_T1.nii.gz") for k in (1, 2)]) == ["sub-1", "sub-1"]


def test_names_differ_whatever_is_given():
    paths = [
        "/d/a.nii",
        "/d/a.nii.gz",
        "/a_b/c/T1.nii",
        "/a/b_c/T1.nii",
        "/p1_a.nii",
        "/p1/a.nii",
        "/p2/a.nii",
    ]
    sources = [*paths, "/d/a.nii", MEMORY, MEMORY, "/d/scan-008.nii"]
    names = scan_ids(sources)
    assert len({name.casefold() for name in names}) == len(sources)
    assert not any("/" in name for name in names)
    by_path = dict(zip(paths, names, strict=False))
    assert dict(zip(reversed(paths), scan_ids(paths[::-1]), strict=True)) == by_path


def test_a_file_that_is_named_twice_is_told_by_its_place(tmp_path):
    path = touch(tmp_path / "a.nii")
    link = tmp_path / "b.nii"
    link.symlink_to(path)
    sources = [path, str(path), tmp_path / "x" / ".." / "a.nii", link, MEMORY, MEMORY]
    (tmp_path / "x").mkdir()
    assert first_places(sources) == [0, 4, 5]


def test_a_mask_of_bids_is_found_by_its_entities(tmp_path):
    scan = touch(tmp_path / "sub-1_ses-2_space-MNI_res-2_desc-preproc_T1w.nii.gz")
    touch(tmp_path / "sub-1_ses-2_desc-brain_mask.nii.gz")  # of the native space
    touch(tmp_path / "sub-1_ses-1_space-MNI_res-2_desc-brain_mask.nii.gz")  # of another session
    assert find_companion(scan, "_desc-brain_mask") is None
    mask = touch(tmp_path / "sub-1_ses-2_space-MNI_res-2_desc-brain_mask.NII.GZ")
    assert find_companion(scan, "_desc-brain_mask") == mask
    assert find_companion(scan, "desc-brain_mask") == mask
    lesion = touch(tmp_path / "sub-1_ses-2_space-MNI_res-2_label-lesion_roi.nii")
    assert find_companion(scan, "_label-lesion_roi") == lesion
    other_order = touch(tmp_path / "sub-1_ses-2_desc-brain_space-MNI_res-2_mask.nii")
    mask.unlink()
    assert find_companion(scan, "_desc-brain_mask") == other_order


def test_a_mask_of_a_subjects_folder_is_found_by_its_whole_name(tmp_path):
    scan, mask = touch(tmp_path / "p1" / "FLAIR.nii.gz"), touch(tmp_path / "p1" / "brainmask.nii.gz")
    assert find_companion(scan, "_brainmask") == find_companion(scan, "brainmask") == mask


def test_one_mask_in_a_folder_of_several_subjects_is_nobodys(tmp_path):
    contrasts = [touch(tmp_path / "p1" / f"{name}.nii.gz") for name in ("FLAIR", "T1W", "T1_brain", "p1_t2")]
    touch(tmp_path / "p1" / "consensus_gt.nii.gz")
    for ending in ("brainmask", "_seg", "bet"):
        mask = touch(tmp_path / "p1" / f"{ending.lstrip('_')}.nii.gz")
        assert [find_companion(scan, ending) for scan in contrasts[:3]] == [None] * 3
        contrasts[3].unlink(missing_ok=True)
        assert [find_companion(scan, ending) for scan in contrasts[:3]] == [mask] * 3
        touch(contrasts[3])
        flat = [touch(tmp_path / "flat" / f"{name}.nii.gz") for name in ("p0_T1", "p1_T1", "T1_patient2")]
        touch(tmp_path / "flat" / mask.name)
        assert [find_companion(scan, ending) for scan in flat] == [None] * 3
        own = touch(tmp_path / "flat" / f"p1_{mask.name}")
        assert [find_companion(scan, ending) for scan in flat] == [None, own, None]


def test_endings_and_extensions_count_in_any_case(tmp_path):
    scan = touch(tmp_path / "a_T1.NII.GZ")
    mask = touch(tmp_path / "a_BrainMask.Nii")
    assert find_scans(tmp_path, exclude="_brainmask") == [scan]
    assert find_companion(scan, "_brainmask") == mask
    assert scan_id(scan) == "a_T1"


@pytest.mark.parametrize(
    "name",
    [
        "s_dseg", "s_label-GM_probseg", "s_desc-aseg_dseg", "s_label-lesion_roi", "s_desc-T1lesion_mask", "s_seg2",
        "aparc+aseg", "aparc.a2009s+aseg", "wmparc", "ribbon", "brainmask_fs", "T1_brain_pve_0",
        "T1_pveseg", "s_lesion", "s-seg", "s_mask_1", "consensus_gt", "s_LesionMask",
        "s_T1_anomaly", "s_T1_pvalue", "s_labels", "wmh", "s_strokecase0001_msk", "ManualSegmentation_3",
        "Consensus", "s_tumor-seg", "s_brain_mask_2", "s_seg_final", "s_mask.edited", "lesion_manual", "s_gtv",
        "aparc.DKTatlas+aseg.deep", "aseg.auto_noCCseg", "s_synthseg", "s_prob_2", "s_BrainExtractionMask",
    ],
)  # fmt: skip
def test_label_images_and_results_in_a_folder_are_no_scans(tmp_path, name):
    scan = touch(tmp_path / "s_T1w.nii.gz")
    label = touch(tmp_path / f"{name}.nii.gz")
    choice = {"suffix": None, "exclude": mask_suffixes("auto", None)}
    for folder in (tmp_path, [tmp_path / "*.nii.gz"]):
        is_result = name.endswith(RESULT_ENDINGS)
        with (
            nullcontext()
            if is_result
            else pytest.warns(SkmimoodWarning, match=rf"images \(1\): {re.escape(name)}\. ")
        ):
            assert find_named_or_chosen(folder, **choice) == [scan]
    assert find_named_or_chosen([label, scan], **choice) == [label, scan]  # named one by one, they are meant


@pytest.mark.parametrize(
    "name", ["tumor_001", "lesion_12", "roi_1", "patient_prob3", "Tumour-7", "wmh_003", "atlas12"]
)
def test_numbered_scans_of_an_ambiguous_name_are_scans(tmp_path, name):
    scans = [touch(tmp_path / f"{each}.nii.gz") for each in ("healthy_001", name)]
    assert sorted(find_named_or_chosen(tmp_path, suffix=None, exclude=())) == sorted(scans)


def test_label_images_of_an_ending_that_was_named_are_left_out_without_a_word(tmp_path):
    scan = touch(tmp_path / "s_T1.nii.gz")
    touch(tmp_path / "s_seg.nii.gz")
    for named in ("_seg", "seg"):
        assert find_named_or_chosen(tmp_path, suffix=None, exclude=mask_suffixes("auto", named)) == [scan]


def test_a_folder_of_another_format_is_told_how_to_convert_it(tmp_path):
    touch(tmp_path / "raw" / "scan.PAR")
    with pytest.raises(InputError, match=r"holds scan\.PAR: Philips images .*dcm2niix"):
        find_scans(tmp_path)
    (tmp_path / "scan.mnc").write_bytes(bytes(1000))
    with pytest.raises(ScanReadError, match=r"scan\.mnc: is not NIfTI.*MINC images .*mnc2nii"):
        read_scan(tmp_path / "scan.mnc")


def test_masks_of_another_folder_belong_to_the_scans_of_the_same_subject(tmp_path):
    scans = [touch(tmp_path / "in" / s / "T1w" / "T1w_restore.nii.gz") for s in ("100307", "100408")]
    masks = [touch(tmp_path / "out" / s / "T1w" / "T1w_restore_lesion.nii.gz") for s in ("100307", "100408")]
    assert pair_masks(tmp_path / "out", scans[::-1]) == masks[::-1]
    bids = touch(tmp_path / "bids" / "sub-1_space-MNI_desc-preproc_T1w.nii.gz")
    lesion = touch(tmp_path / "lesions" / "sub-1_space-MNI_label-lesion_mask.nii.gz")
    touch(tmp_path / "lesions" / "sub-2_space-MNI_label-lesion_mask.nii.gz")
    touch(tmp_path / "lesions" / "sub-1_space-MNI_desc-brain_mask.nii.gz")
    assert pair_masks(tmp_path / "lesions", [bids]) == [lesion]


def test_arrays_and_series_of_paths_are_lists(tmp_path):
    names = [str(touch(tmp_path / f"{k}.nii")) for k in "abc"]
    found = find_scans(names)
    table = pytest.importorskip("pandas").DataFrame({"scan": names, "mask": [names[1], None, float("nan")]})
    for given in (
        np.array(names),
        np.array(names, dtype=object),
        np.array(names)[:, None],
        iter(names),
        table["scan"],
    ):
        assert find_scans(given) == found
    assert pair_masks(table["mask"], names) == [Path(names[1]), None, None]
    assert pair_masks(table["mask"].astype("string"), names) == [
        Path(names[1]),
        None,
        None,
    ]  # missing ones are NA
    assert groups_of(names, table["scan"]) == names
    with pytest.raises(InputError, match=r"got DataFrame\..*pass the column of paths"):
        find_scans(table)
    masks = np.array([names[1], None, np.nan], dtype=object)
    assert pair_masks(masks, names) == [Path(names[1]), None, None]
    assert pair_masks(np.array([names[1]]), names[:1]) == [Path(names[1])]
    with pytest.raises(InputError, match="each of the 3 scans; got 2"):
        pair_masks(np.array(names[:2]), names)


def test_a_subject_is_found_however_its_accents_are_written(tmp_path):
    for form in ("NFC", "NFD"):
        (tmp_path / "table.csv").write_text(unicodedata.normalize(form, "subject,split\nÅsa,test\n"))
        ((subject, _),) = read_columns(tmp_path / "table.csv", "subject", "split")
        for name in ("NFC", "NFD"):
            scan = tmp_path / unicodedata.normalize(name, "Åsa_T1.nii.gz")
            assert subject_among(scan, tmp_path, {subject}) == "Åsa"


def test_names_keep_their_letters_in_any_locale(tmp_path):
    program = (
        "import os, sys\n"
        "from skmimood.nifti import scan_id\n"
        "from skmimood.scans.results import output_stem\n"
        "for name in sorted(os.listdir()):\n"
        "    scan = scan_id(name)\n"
        "    open(output_stem(scan) + '.out', 'x').close()\n"
        "    sys.stdout.buffer.write(scan.encode('utf-8', 'surrogateescape') + b'\\n')\n"
    )
    apart = unicodedata.normalize("NFD", "Ångström").encode()  # as some systems write accents
    expected = ["Müller_é".encode(), "Ångström".encode(), b"byte-\xff", "脳".encode()]
    told = []
    for locale in ("C.UTF-8", "C"):
        folder = os.fsencode(tmp_path / locale)
        os.mkdir(folder)
        for name in (expected[0], apart, *expected[2:]):
            open(folder + b"/" + name + b".nii.gz", "x").close()
        environment = {**os.environ, "LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True)
        told.append((sorted(done.stdout.splitlines()), sorted(os.listdir(folder))))
    assert told[0] == told[1]
    assert told[0][0] == sorted(expected)
    assert {name + b".out" for name in expected} < set(told[0][1])
