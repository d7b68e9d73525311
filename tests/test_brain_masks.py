"""Brain masks as people have them: with islands, in parts, with holes, of probabilities."""

import warnings

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from toy_scans import RAS, head, make

from skmimood.exceptions import SkmimoodWarning
from skmimood.nifti import write_image
from skmimood.preprocessing import fill_holes, main_parts

HOLE = (slice(13, 17), slice(16, 20), slice(8, 12))  # where the lesion of the toy head is
ISLANDS = "islands far from the main part of the brain mask were left out"


def write(folder, seed, change=None, lesion=False, dtype=np.float32):
    data, _ = head(seed, lesion=lesion)
    mask = (head(seed)[0] > 0).astype(dtype)
    folder.mkdir(exist_ok=True)
    write_image(nib.Nifti1Image(data, RAS), folder / f"s{seed}_T1.nii.gz")
    write_image(
        nib.Nifti1Image(mask if change is None else change(mask), RAS), folder / f"s{seed}_mask.nii.gz"
    )
    return folder / f"s{seed}_T1.nii.gz"


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    folder = tmp_path_factory.mktemp("healthy")
    for seed in range(5):
        write(folder, seed)
    return make(mask="_mask").fit(folder)


def set_at(*places):
    def change(mask):
        mask = mask.copy()
        for place in places:
            mask[place] = 1
        return mask

    return change


def anomaly(result):
    return result.anomaly.get_fdata()


@pytest.mark.parametrize(
    "places",
    [
        [(0, 0, 10)],
        [(29, 35, 0), (0, 35, 19), (29, 0, 19)],
        [np.s_[0:2, 0:2, 17:19], np.s_[28:30, 33:36, 9]],
        [np.s_[0, :10:3, ::6]],
    ],
)
def test_islands_of_a_brain_mask_do_not_move_the_frame(detector, tmp_path, places):
    clean = detector.detect_scan(write(tmp_path / "a", 50, lesion=True))
    odd = detector.detect_scan(write(tmp_path / "b", 50, set_at(*places), lesion=True))
    assert clean.flags == ()
    assert odd.flags == (ISLANDS,)
    np.testing.assert_array_equal(anomaly(odd), anomaly(clean))
    assert odd.score == clean.score


def test_islands_at_fit_change_no_model_and_are_warned_about_once(detector, tmp_path):
    for seed in range(5):
        write(tmp_path, seed, set_at((0, 0, 3), (29, 35, 19)))
    with pytest.warns(SkmimoodWarning, match=ISLANDS) as caught:
        odd = make(mask="_mask").fit(tmp_path)
    assert len(caught) == 1
    assert odd.spacing_ == detector.spacing_
    assert odd.pixel_threshold_ == detector.pixel_threshold_


@pytest.mark.parametrize("kind", ["halves", "thin cut", "every third slice", "small part"])
def test_parts_of_real_size_are_kept(detector, tmp_path, kind):
    def cut(mask):
        mask = mask.copy()
        if kind == "every third slice":
            mask[:, :, 1::3] = mask[:, :, 2::3] = 0
        elif kind == "small part":
            mask[:, :, 12:17] = mask[:10, :, 17:] = 0
        else:
            mask[10 : 20 if kind == "halves" else 12] = 0
        return mask

    result = detector.detect_scan(write(tmp_path, 50, cut))
    kept = cut((head(50)[0] > 0).astype(np.uint8)) > 0
    assert not any("islands" in flag for flag in result.flags)
    assert (anomaly(result)[kept] > 0).mean() > 0.9


def test_small_parts_close_to_the_main_one_are_no_islands():
    mask = np.zeros((30, 30, 30), bool)
    mask[8:20, 8:20, 8:20] = True
    mask[21, 10, 10] = True
    np.testing.assert_array_equal(main_parts(mask), mask)
    mask[28, 28, 28] = True
    assert main_parts(mask).sum() == mask.sum() - 1
    assert not main_parts(np.zeros((4, 4, 4), bool)).any()
    assert main_parts(np.ones((4, 4, 4), bool)).all()


@pytest.mark.parametrize("open_along", [None, 0, 1, 2])
def test_a_lesion_that_the_brain_mask_leaves_out_is_mapped_and_flagged(detector, tmp_path, open_along):
    hole = tuple(slice(None) if axis == open_along else part for axis, part in enumerate(HOLE))

    def leave_out(mask):
        mask = mask.copy()
        mask[hole] = 0
        return mask

    clean = detector.detect_scan(write(tmp_path / "a", 50, lesion=True))
    odd = detector.detect_scan(write(tmp_path / "b", 50, leave_out, lesion=True))
    assert any("holes in the brain mask were filled" in flag for flag in odd.flags)
    np.testing.assert_allclose(anomaly(odd)[HOLE], anomaly(clean)[HOLE], atol=0.02)
    assert odd.is_anomalous == clean.is_anomalous


def test_slices_that_the_brain_mask_leaves_out_are_flagged(detector, tmp_path):
    def without_slices(mask):
        mask = mask.copy()
        mask[:, :, 9:11] = 0
        return mask

    odd = detector.detect_scan(write(tmp_path / "a", 50, without_slices, lesion=True))
    assert odd.flags == ("the brain mask is empty in planes between others; the map is 0 there",)


def test_a_hole_is_filled_whatever_axis_it_is_open_along():
    mask = np.ones((9, 10, 11), bool)
    mask[4, 5, :] = mask[:, 2, 3] = False
    assert fill_holes(mask).all()


@pytest.mark.parametrize("top", [1.0, 255.0])
def test_a_brain_mask_of_probabilities_gives_the_map_of_its_half(detector, tmp_path, top):
    def soften(mask):
        return (ndimage.gaussian_filter(mask, 0.8, mode="nearest") * top).astype(np.float32)

    halved = detector.detect_scan(write(tmp_path / "a", 50, lambda mask: np.float32(soften(mask) >= top / 2)))
    soft = detector.detect_scan(write(tmp_path / "b", 50, soften))
    np.testing.assert_array_equal(anomaly(soft), anomaly(halved))


def test_a_picture_as_a_brain_mask_is_left_out_at_fit_with_the_reason(tmp_path):
    rng = np.random.default_rng(0)
    for seed in range(5):
        write(tmp_path, seed, (lambda mask: mask * rng.random(mask.shape, np.float32)) if seed == 2 else None)
    with pytest.warns(SkmimoodWarning, match=r"s2_T1 \(is no brain mask: it holds a continuum"):
        make(mask="_mask").fit(tmp_path)


def test_a_mask_that_is_set_everywhere_is_flagged(detector, tmp_path):
    result = detector.detect_scan(write(tmp_path, 50, np.ones_like))
    assert any("set in the corners" in flag for flag in result.flags)


def test_lesion_masks_with_moved_zeros_leave_slices_to_learn_from():
    scans, masks = [], []
    for seed in range(4):
        data, mask = head(seed)
        scans.append(nib.Nifti1Image(data, RAS))
        masks.append(nib.Nifti1Image(mask * (seed == 1) + 2e-11, RAS))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert make().fit(scans, masks).n_slices_ > make().fit(scans).n_slices_ - 10
