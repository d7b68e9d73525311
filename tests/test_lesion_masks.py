import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from toy_scans import RAS, head, image, make

from skmimood.exceptions import InputError, SkmimoodWarning
from skmimood.nifti import write_image
from skmimood.scans.sources import pair_masks


def _sources(folder, *names):
    for name in names:
        (folder / f"{name}.nii.gz").touch()
    return [folder / f"{name}.nii.gz" for name in names]


def test_a_scan_is_never_paired_with_a_scan_or_a_brain_mask(tmp_path):
    first, second = scans = _sources(tmp_path, "a_T1", "b_T1")
    _sources(tmp_path, "a_brainmask", "a_T1_brainmask")
    lesions = _sources(tmp_path, "a_seg", "b_T1_seg")
    assert pair_masks(tmp_path, scans) == lesions
    lesions[0].unlink()
    with pytest.raises(InputError, match="no lesion mask in y for a_T1"):
        pair_masks(tmp_path, scans)
    with pytest.raises(InputError, match="'b_T1' is given as its own lesion mask"):
        pair_masks([None, second], scans)
    with pytest.raises(InputError, match="'a_T1' is given as its own lesion mask"):
        pair_masks(first, [first])


@pytest.mark.parametrize("y", [5, np.zeros(3)])
def test_masks_of_a_wrong_kind_are_refused(y):
    scans = [image(seed) for seed in range(3)]
    with pytest.raises(InputError, match=f"got {type(y).__name__}"):
        make().fit(scans, y)
    with pytest.raises(InputError, match=f"got {type(y).__name__}"):
        make().fit(scans).score(scans[0], y)


def test_two_masks_that_fit_one_scan_are_refused(tmp_path):
    scans = _sources(tmp_path, "a_T1")
    _sources(tmp_path, "a_seg", "a_T2")
    with pytest.raises(InputError, match="'a_T2', 'a_seg' in y could each be the lesion mask of 'a_T1'"):
        pair_masks(tmp_path, scans)
    with pytest.raises(InputError, match="stands for 3 files"):
        pair_masks([tmp_path], scans)
    with pytest.raises(InputError, match="no lesion mask in y for b_T1"):
        pair_masks(tmp_path / "*_seg*", _sources(tmp_path, "b_T1"))  # one mask, but another scan's
    assert pair_masks(tmp_path / "a_seg.nii.gz", [tmp_path / "b_T1.nii.gz"]) == [tmp_path / "a_seg.nii.gz"]
    exact = tmp_path / "masks"
    exact.mkdir()
    mask, *_ = _sources(exact, "a_T1", "a_seg")
    assert pair_masks(exact, scans) == [mask]


def test_slices_that_hold_a_lesion_are_dropped_from_training_and_calibration(tmp_path):
    for seed in range(5):
        data, mask = head(seed, lesion=True)
        write_image(nib.Nifti1Image(data, RAS), tmp_path / f"sub-{seed}_flair.nii.gz")
        write_image(nib.Nifti1Image(mask, RAS), tmp_path / f"sub-{seed}_seg.nii.gz")
    lesions_in = make(modality="flair").fit(tmp_path)
    lesions_out = make(modality="flair").fit(tmp_path, "_seg")
    assert lesions_out.n_slices_ == lesions_in.n_slices_ - 4 * 4  # 4 training scans, 4 slices each
    assert lesions_in.pipeline_[-1].seen_.max() > lesions_out.pipeline_[-1].seen_.max()
    assert lesions_in.reference_.n_pixels > lesions_out.reference_.n_pixels
    assert lesions_in.reference_.pixel_threshold(0.001) > 2 * lesions_out.reference_.pixel_threshold(0.001)


def test_a_lesion_of_one_voxel_drops_its_slice_at_coarse_resolution():
    scans, masks = [], []
    for seed in range(4):
        data, _ = head(seed, shape=(60, 72, 20))
        mask = np.zeros(data.shape, np.uint8)
        mask[31, 33, 9] = 1
        scans.append(nib.Nifti1Image(data, np.diag([1.0, 1.0, 2.0, 1.0])))
        masks.append(nib.Nifti1Image(mask, scans[-1].affine))
    with_all = make(size=8).fit(scans)
    assert make(size=8).fit(scans, masks).n_slices_ == with_all.n_slices_ - with_all.n_scans_


def test_masks_are_paired_by_list_folder_and_name(tmp_path):
    scans, masks = tmp_path / "scans", tmp_path / "masks"
    scans.mkdir(), masks.mkdir()
    for seed in range(4):
        data, mask = head(seed, lesion=True)
        write_image(nib.Nifti1Image(data, RAS), scans / f"p{seed}_t1.nii.gz")
        write_image(nib.Nifti1Image(mask, RAS), masks / f"p{seed}_lesion.nii.gz")
    by_folder = make().fit(scans, masks)
    by_list = make().fit(sorted(scans.iterdir()), sorted(masks.iterdir()))
    by_image = make().fit(scans, [nib.load(path) for path in sorted(masks.iterdir())])
    assert by_folder.n_slices_ == by_list.n_slices_ == by_image.n_slices_
    assert by_folder.n_slices_ < make().fit(scans, [None] * 4).n_slices_ == make().fit(scans).n_slices_
    with pytest.raises(InputError, match="one lesion mask for each of the 4 scans; got 3"):
        make().fit(scans, sorted(masks.iterdir())[:3])
    (masks / "p2_lesion.nii.gz").unlink()
    with pytest.raises(InputError, match="no lesion mask in y for p2_t1"):
        make().fit(scans, masks)
    with pytest.raises(InputError, match='no file "_seg" beside p0_t1'):
        make().fit(scans, "_seg")


def test_arrays_of_paths_masks_and_groups_go_through_cross_validation_and_grid_search(tmp_path):
    scans, masks = [], []
    for seed in range(6):
        data, mask = head(seed, lesion=seed >= 3)
        scans.append(str(tmp_path / f"s{seed}_T1.nii.gz"))
        masks.append(str(tmp_path / "masks" / f"s{seed}_T1.nii.gz"))
        Path(masks[-1]).parent.mkdir(exist_ok=True)
        write_image(nib.Nifti1Image(data, RAS), scans[-1])
        write_image(nib.Nifti1Image(mask * (seed >= 3), RAS), masks[-1])
    order = [0, 3, 1, 4, 2, 5]
    X, y, groups = np.array(scans)[order], np.array(masks)[order], np.array(list("aaabbb"))
    apart = np.arange(6)[::-1]
    as_lists = make().fit(list(X), list(y), list(apart))
    as_arrays = make().fit(X, y.astype(object), apart)
    assert (as_arrays.spacing_, as_arrays.fit_status_) == (as_lists.spacing_, as_lists.fit_status_)
    assert [line.group for line in as_arrays.fit_status_] == ["5", "4", "3", "2", "1", "0"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkmimoodWarning)
        scores = cross_val_score(make(), X, y, cv=2, error_score="raise")
        search = GridSearchCV(make(), {"size": [16, 24]}, cv=GroupKFold(2), error_score="raise")
        search.fit(X, y, groups=groups)
    assert (scores > 0.5).all()
    assert search.best_score_ > 0.5
