"""The slices of the benchmark: what is learned from, what is evaluated, and where it comes from."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from benchmark_toys import toy_patient, toy_set
from phantom_layouts import write_layout

from benchmarks.data.slices import MAX_SLICES, Prepared, SliceSet, cut, interior, join
from benchmarks.data.sources import healthy_scans, open_slices, phantom_slices, scans_of
from skmimood.datasets import LESION_KINDS
from skmimood.exceptions import InputError
from skmimood.nifti import read_scan


def test_training_slices_come_from_training_patients_and_hold_no_lesion():
    slices = toy_set()
    expected = slices.images[(slices.splits == "train") & ~slices.has_lesion]
    np.testing.assert_array_equal(slices.training().images, expected)
    assert len(expected) == 3 * 5


def test_slices_with_little_head_are_neither_learned_from_nor_evaluated():
    slices = toy_set()
    small = slices.head.copy()
    small[:] = False
    small[:, :3, :3] = True  # 9 of 1024 pixels
    slices = replace(slices, head=small)
    assert len(slices.training().images) == 0
    assert slices.evaluated("test").has_lesion.all()


def volume_with_lesions():
    """Return a head of 6 slices of 60 voxels of 1 mm a side, whose lesion is 0, 1, ... 5 voxels a side."""
    rows, columns = np.mgrid[:60, :60] - 29.5
    head = np.repeat((rows**2 + columns**2 < 27**2)[..., None], 6, axis=2)
    lesions = np.zeros_like(head)
    for side in range(6):
        lesions[30 : 30 + side, 30 : 30 + side, side] = True
    affine = np.diag([1.0, 1.0, 5.0, 1.0])
    scan = read_scan(nib.Nifti1Image((head * 100.0 + lesions * 50.0).astype(np.float32), affine))
    return Prepared(scan, head, head * np.float32(0.5) + lesions * np.float32(0.25), lesions)


def test_a_lesion_that_vanishes_on_the_grid_leaves_its_slice_neither_healthy_nor_diseased():
    one = volume_with_lesions()
    fine, coarse = (cut("toy", "p", "test", one, 64 / size, size, is_brain=True) for size in (64, 16))
    assert fine.has_lesion.tolist() == [False, True, True, True, True, True]
    assert not fine.vanished.any()
    assert not coarse.has_lesion[1]  # 1 mm on pixels of 4 mm
    assert coarse.has_lesion[5]
    for slices in (fine, coarse):
        assert slices.is_healthy.tolist() == [True] + 5 * [False]
        train = replace(slices, splits=np.full(6, "train"))
        np.testing.assert_array_equal(train.training().images, slices.images[:1])
        assert len(train.used(6)) == 1
        assert not slices.evaluated("test").vanished.any()
        assert not slices.used(6).vanished.any()


def test_a_lesion_beyond_the_frame_leaves_its_slice_unhealthy():
    one = volume_with_lesions()
    lesions = np.zeros_like(one.lesions)
    lesions[0, 0, 3] = True
    slices = cut("toy", "p", "test", replace(one, lesions=lesions), 0.5, 16, is_brain=True)
    assert slices.is_healthy.tolist() == [True, True, True, False, True, True]


def test_slices_that_were_saved_without_the_truth_of_the_scan_are_refused(tmp_path):
    toy_set().save(tmp_path / "slices.npz")
    with np.load(tmp_path / "slices.npz") as file:
        arrays = {name: array for name, array in file.items() if name != "vanished"}
    np.savez(tmp_path / "old.npz", **arrays)
    with pytest.raises(InputError, match=r"does not hold slices .*vanished.*Write it anew"):
        SliceSet.load(tmp_path / "old.npz")


def test_a_patient_in_two_splits_is_refused():
    slices = join([toy_set(), toy_patient("train-0", "test", 2)])
    with pytest.raises(InputError, match="train-0"):
        slices.check()


def test_a_set_without_healthy_training_slices_is_refused():
    slices = toy_set()
    with pytest.raises(InputError, match="no slice to learn from"):
        slices[(slices.splits != "train") | slices.has_lesion].check()


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_split_without_lesions_is_refused(split):
    slices = toy_set()
    with pytest.raises(InputError, match=f"'{split}' has no lesion"):
        slices[(slices.splits != split) | ~slices.has_lesion].check()


def test_saved_slices_are_the_same_and_a_changed_pixel_shows_in_the_fingerprint(tmp_path):
    slices = toy_set()
    slices.save(tmp_path / "slices.npz")
    loaded = SliceSet.load(tmp_path / "slices.npz")
    for name, value in vars(slices).items():
        np.testing.assert_array_equal(getattr(loaded, name), value)
        assert type(getattr(loaded, name)) is type(value)
    assert loaded.images.dtype == np.float32
    assert loaded.fingerprint() == slices.fingerprint()
    loaded.lesions[0, 0, 0] ^= True
    assert loaded.fingerprint() != slices.fingerprint()


def test_a_file_of_something_else_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", numbers=np.arange(3))
    (tmp_path / "text.npz").write_text("not an archive")
    for name in ("other.npz", "text.npz"):
        with pytest.raises(InputError, match="does not hold slices"):
            SliceSet.load(tmp_path / name)


def test_too_many_slices_of_a_scan_are_thinned_evenly():
    patient = toy_patient("p", "train", 0, n_slices=9)
    thinned = patient.used(3)
    np.testing.assert_array_equal(thinned.images, patient.images[[0, 4, 8]])


def test_the_interior_lies_13_mm_below_the_surface_also_at_the_edge_of_the_frame():
    head = np.ones((1, 40, 40), bool)
    inside = interior(head, spacing=2.0)[0]  # 6.5 pixels
    assert not inside[:6].any()
    assert inside[7:33, 7:33].all()


def test_phantom_patients_are_in_one_split_each_and_have_every_kind_of_lesion():
    slices = phantom_slices(size=32, n_slices=4, n_healthy=2, n_patients=5).check()
    for split in ("val", "test"):
        tumour = slices.tumour(split)
        assert {*tumour.kinds} == {*LESION_KINDS}
        assert not tumour.lesions[~tumour.head].all()
    assert not slices.kinds[~slices.has_lesion].any()


@pytest.fixture(scope="module")
def lgg(tmp_path_factory):
    """Write a data set laid out as lgg/: 2 healthy patients to learn from, one each for val and test."""
    folder = tmp_path_factory.mktemp("data") / "lgg"
    write_layout(folder, "lgg", n_healthy=2, n_lesions=2, size=32, n_slices=8, lesions=["bright"])
    return folder


@pytest.fixture
def lgg_copy(lgg, tmp_path):
    """Return a copy whose files may be changed."""
    return Path(shutil.copytree(lgg, tmp_path / "lgg"))


def rewrite_splits(folder, change):
    with (folder / "splits.csv").open() as file:
        rows = [dict(row, **change.get(row["subject"], {})) for row in csv.DictReader(file)]
    with (folder / "splits.csv").open("w") as file:
        writer = csv.DictWriter(file, ["subject", "split"])
        writer.writeheader()
        writer.writerows(rows)


def test_scans_become_slices_once_and_come_from_the_cache_or_a_file_then(lgg, tmp_path, monkeypatch):
    cache, file = tmp_path / "cache", tmp_path / "slices.npz"
    slices = open_slices("lgg", 32, root=str(lgg.parent), cache=cache, file=file)
    assert {*slices.splits} == {"train", "val", "test"}
    assert len(slices.tumour("test")) > 0
    assert slices.images.shape[1:] == (32, 32)
    # The interior is part of the head, and no training head is cropped.
    assert not (slices.region & ~slices.head).any()
    assert not slices.head[slices.splits == "train"][:, [0, -1]].any()

    def read_again(*_):
        raise AssertionError

    monkeypatch.setattr("benchmarks.data.sources.slices_of", read_again)
    for options in ({"root": str(lgg)}, {"root": "nowhere", "file": file}):
        again = open_slices("lgg", 32, cache=cache, **options)
        assert again.fingerprint() == slices.fingerprint()
    with pytest.raises(InputError, match="holds slices of lgg"):
        open_slices("mslub", 32, cache=cache, file=file)


def test_a_missing_root_tells_the_layout_and_where_to_get_the_data(tmp_path):
    for data in ("lgg", "ixi-synthetic", "brats", "mslub"):
        with pytest.raises(InputError, match=r"Expected are files such as .*nii\.gz.*https://"):
            scans_of(data, str(tmp_path / "nowhere"))


def test_a_patient_with_two_splits_in_the_table_is_refused(lgg_copy):
    with (lgg_copy / "splits.csv").open("a") as file:
        file.write("TCGA_PH_0000,test\n")
    with pytest.raises(InputError, match="two splits for 'TCGA_PH_0000'"):
        scans_of("lgg", str(lgg_copy))


def test_a_mask_on_another_grid_is_refused_before_a_voxel_is_read(lgg_copy):
    mask = lgg_copy / "TCGA_PH_0002" / "TCGA_PH_0002_seg.nii.gz"
    mask.unlink()
    nib.save(nib.Nifti1Image(np.zeros((30, 32, 8), np.uint8), np.eye(4)), mask)
    with pytest.raises(InputError, match="does not lie on the grid"):
        scans_of("lgg", str(lgg_copy))


def test_a_split_without_scans_is_refused(lgg_copy):
    rewrite_splits(lgg_copy, {"TCGA_PH_0002": {"split": "test"}})
    with pytest.raises(InputError, match="no scan in split 'val'"):
        scans_of("lgg", str(lgg_copy))


def test_a_test_split_without_lesions_is_refused(lgg_copy, tmp_path):
    rewrite_splits(lgg_copy, {"TCGA_PH_0000": {"split": "test"}, "TCGA_PH_0003": {"split": "unused"}})
    with pytest.raises(InputError, match="'test' has no lesion"):
        open_slices("lgg", 32, root=str(lgg_copy), cache=tmp_path / "cache")


def test_healthy_scans_replace_a_missing_training_split(lgg_copy, lgg):
    with pytest.raises(InputError, match="leave out --healthy"):
        scans_of("lgg", str(lgg_copy), healthy=str(lgg / "TCGA_PH_0000"))
    rewrite_splits(lgg_copy, {f"TCGA_PH_000{i}": {"split": "unused"} for i in (0, 1)})
    splits = scans_of("lgg", str(lgg_copy), healthy=str(lgg / "TCGA_PH_0000"))
    assert splits["train"].subjects == ("TCGA_PH_0000",)
    assert {*splits} == {*MAX_SLICES}


def test_hcp_scans_are_found_by_their_layout(lgg, tmp_path):
    healthy = tmp_path
    for subject in ("100307", "100408"):
        folder = healthy / subject / "T1w"
        folder.mkdir(parents=True)
        shutil.copy(
            lgg / "TCGA_PH_0000" / "TCGA_PH_0000_flair.nii.gz", folder / "T2w_acpc_dc_restore_brain.nii.gz"
        )
    assert healthy_scans(healthy, "t2").subjects == ("100307", "100408")
