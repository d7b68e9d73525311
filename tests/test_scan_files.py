"""Which scans a folder, a glob or a list means, and how they are called."""

import os

import nibabel as nib
import numpy as np
import pytest

from skmimood.exceptions import InputError, ScanReadError
from skmimood.nifti import find_companion, find_scans, make_image, read_scan, scan_id, scan_ids, write_image


def save(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.ones((8, 9, 10), np.float32), np.eye(4)), path)
    return path


def test_bad_input_11_hidden_files_of_a_folder_are_ignored(tmp_path):
    expected = [save(tmp_path / name) for name in ("a.nii.gz", "b/c.nii", "b/d.NII.GZ")]
    save(tmp_path / ".hidden" / "e.nii.gz")
    for name in ("._a.nii.gz", ".DS_Store", "notes.txt", "image.png"):
        (tmp_path / name).write_bytes(b"")
    assert find_scans(tmp_path) == expected
    assert find_scans(str(tmp_path)) == expected


def test_a_glob_a_path_a_list_and_images_are_understood(tmp_path):
    first, second = save(tmp_path / "x1.nii.gz"), save(tmp_path / "sub" / "x2.nii.gz")
    image = nib.Nifti1Image(np.zeros((8, 8, 8), np.float32), np.eye(4))
    assert find_scans(str(tmp_path / "**" / "x*.nii.gz")) == [second, first]
    assert find_scans(first) == [first]
    assert find_scans([str(first), tmp_path / "sub"]) == [first, second]
    assert find_scans(image) == [image]
    assert find_scans(iter([image, first])) == [image, first]


def test_a_name_with_glob_characters_is_a_name_first(tmp_path):
    path = save(tmp_path / "scan[1].nii.gz")
    assert find_scans(path) == [path]


def test_suffix_and_exclude_choose_by_the_end_of_the_name(tmp_path):
    for part in ("T1", "T2", "t1_brainmask", "seg"):
        save(tmp_path / f"sub_{part}.nii.gz")
    for suffix in ("T1", "_T1", "t1"):
        assert [scan_id(p) for p in find_scans(tmp_path, suffix=suffix)] == ["sub_T1"]
    chosen = find_scans(tmp_path, exclude=("brainmask", "_seg"))
    assert [scan_id(p) for p in chosen] == ["sub_T1", "sub_T2"]
    assert len(find_scans(tmp_path, exclude="seg")) == 3
    with pytest.raises(InputError, match="ends in 'flair'"):
        find_scans(tmp_path, suffix="flair")


def test_versions_of_excluded_files_are_excluded(tmp_path):
    scan = save(tmp_path / "sub_T1_final.nii.gz")
    for part in ("seg2", "seg_final", "mask_v2", "mask.edited", "aseg.presurf", "aparc.DKTatlas+aseg.deep"):
        save(tmp_path / f"sub_{part}.nii.gz")
    assert find_scans(tmp_path, exclude=("_seg", "_mask", "aseg")) == [scan]


@pytest.mark.parametrize("suffix", ["seg", "_seg", "-seg"])
def test_masks_of_brats_2023_are_found_by_their_ending(tmp_path, suffix):
    mask = save(tmp_path / "BraTS-GLI-00001-000-seg.nii.gz")
    for part in ("t1n", "t1c", "t2w", "t2f"):
        assert find_companion(save(tmp_path / f"BraTS-GLI-00001-000-{part}.nii.gz"), suffix) == mask
    other = tmp_path / "BraTS-GLI-00001-001-t2w.nii.gz"
    assert find_companion(save(other), suffix) is None


def test_a_missing_path_an_empty_list_and_an_array_are_errors(tmp_path):
    with pytest.raises(InputError, match=r"No such file or folder: '.*nowhere'"):
        find_scans(tmp_path / "nowhere")
    with pytest.raises(InputError, match="No scan"):
        find_scans(str(tmp_path / "*.nii"))
    with pytest.raises(InputError, match="in the list"):
        find_scans([])
    with pytest.raises(InputError, match="got ndarray"):
        find_scans(np.zeros((3, 8, 8)))
    with pytest.raises(InputError, match="got int"):
        find_scans([3])


def test_two_scans_of_one_name_are_both_found(tmp_path):
    first, second = save(tmp_path / "s1" / "T1.nii.gz"), save(tmp_path / "s2" / "T1.nii")
    assert find_scans(tmp_path) == [first, second]
    assert scan_ids([first, second]) == ["s1_T1", "s2_T1"]


def test_links_are_followed_loops_are_not_and_broken_ones_are_left_to_the_reader(tmp_path):
    real = tmp_path / "real"
    save(real / "a.nii.gz")
    scans = tmp_path / "scans"
    scans.mkdir()
    (scans / "linked").symlink_to(real, target_is_directory=True)
    (real / "back").symlink_to(scans, target_is_directory=True)
    (scans / "broken.nii").symlink_to(tmp_path / "gone.nii")
    found = find_scans(scans)
    assert [path.name for path in found] == ["broken.nii", "a.nii.gz"]
    with pytest.raises(ScanReadError, match=r"broken\.nii: does not exist, or is a broken link"):
        read_scan(found[0])


@pytest.mark.parametrize(
    "name", ["été 'x' \"y\" <script>.nii.gz", "脳 スキャン.nii", "n" * 248 + ".nii.gz", "a.b.c.nii.gz"]
)
def test_any_name_is_found_read_and_written(tmp_path, name):
    path = save(tmp_path / name)
    assert find_scans(tmp_path) == [path]
    scan = read_scan(path)
    assert name.startswith(scan.id + ".nii")
    write_image(make_image(scan.data, scan), path, overwrite=True)
    assert find_companion(path, "_mask") is None
    assert os.listdir(tmp_path) == [name]


def test_ids_of_images_count_up_unless_they_have_a_file(tmp_path):
    image = nib.Nifti1Image(np.zeros((8, 8, 8), np.float32), np.eye(4))
    assert scan_id(image) == "scan-000"
    assert read_scan(image, index=12).id == "scan-012"
    assert scan_id(nib.load(save(tmp_path / "p7.nii.gz"))) == "p7"


def test_a_companion_is_found_by_appending_or_by_replacing_the_last_part(tmp_path):
    scan = save(tmp_path / "sub_1_T1.nii.gz")
    assert find_companion(scan, "brainmask") is None
    replaced = save(tmp_path / "sub_1_brainmask.nii")
    assert find_companion(scan, "brainmask") == replaced
    assert find_companion(str(scan), "_brainmask") == replaced
    appended = save(tmp_path / "sub_1_T1_brainmask.nii.gz")
    assert find_companion(nib.load(scan), "brainmask") == appended
    assert find_companion(scan, "T1") is None  # never the scan itself
    assert find_companion(nib.Nifti1Image(np.zeros((8, 8, 8), np.float32), np.eye(4)), "seg") is None
