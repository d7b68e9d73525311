"""What the numbers of a mask mean: 0 and 1, classes, probabilities, and what headers and resampling leave of them."""

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from skmimood.exceptions import ScanReadError, SkmimoodWarning
from skmimood.nifti import read_labels, read_mask, read_scan

SHAPE = (36, 40, 30)


def brain():
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, side) for side in SHAPE), indexing="ij")
    return (x / 0.75) ** 2 + (y / 0.8) ** 2 + (z / 0.8) ** 2 < 1


def lesions():
    mask = np.zeros(SHAPE, bool)
    mask[14:19, 20:26, 12:16] = mask[24:26, 10:12, 20] = True
    return mask


MASKS = {"brain": brain, "lesion": lesions}
SCAN = read_scan(nib.Nifti1Image(np.zeros(SHAPE, np.float32), np.eye(4)))


def dice(first, second):
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def read(values, kind="brain", dtype=np.float32, affine=None, path=None, **options):
    image = nib.Nifti1Image(values.astype(dtype), np.eye(4) if affine is None else affine)
    return read_mask(image, SCAN, kind=kind, **options)


def saved_again(values, dtype, path, times=3):
    """Save values with a header of integers whose scaling nibabel chooses, read, and save as before."""
    image = nib.Nifti1Image(values.astype(np.float64), np.eye(4))
    image.header.set_data_dtype(dtype)
    for _ in range(times):
        nib.save(image, path)
        image = nib.load(path)
        image = nib.Nifti1Image(image.get_fdata(), image.affine, image.header)
    return path


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("top", [1, 255, 254.99, 0.9999, 100, 32767, 3.7, 1 / 255])
def test_of_two_values_the_higher_is_the_mask(kind, top):
    mask = MASKS[kind]()
    found = read(np.where(mask, top, 2e-11), kind)
    np.testing.assert_array_equal(found.voxels, mask)
    assert bool(found.remarks) == (top < 0.5)


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint16])
@pytest.mark.parametrize("low", [0.0, -0.3])
def test_masks_survive_headers_that_scale_them(tmp_path, kind, dtype, low):
    mask = MASKS[kind]()
    values = mask.astype(float)
    values[0, 0, 0] = low
    path = saved_again(values, dtype, tmp_path / "m.nii.gz")
    np.testing.assert_array_equal(read_mask(path, SCAN, kind=kind).voxels, mask)


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("top", [1.0, 100.0, 255.0])
@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_probabilities_count_from_one_half(kind, top, dtype):
    if dtype == np.int16 and top == 1:
        pytest.skip("whole numbers up to 1 are no probabilities")
    soft = ndimage.gaussian_filter(MASKS[kind]().astype(np.float32), 1.0)
    values = (soft * top).astype(dtype)
    np.testing.assert_array_equal(read(values, kind, dtype).voxels, values >= top / 2)


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("top", [1, 100, 255])
@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_overshoots_and_ringing_of_interpolation_change_little(kind, order, top, dtype):
    mask = np.where(MASKS[kind](), float(top), 0.0)
    if (order, dtype) == (1, np.int16):
        pytest.skip("few whole numbers are classes")
    moved = ndimage.shift(mask, (0.3, 0.45, 0.2), order=order)
    if dtype == np.int16:
        moved = np.rint(moved)
    truth = ndimage.shift(MASKS[kind]().astype(float), (0.3, 0.45, 0.2), order=1) >= 0.5
    found = read(moved, kind, dtype).voxels
    assert dice(found, truth) > (0.95 if kind == "brain" else 0.85)


def test_the_unsure_probabilities_of_a_network_count_from_one_half():
    rng = np.random.default_rng(0)
    values = np.clip(0.1 + 0.8 * brain() + rng.normal(0, 0.05, SHAPE), 0, 1)
    np.testing.assert_array_equal(read(values).voxels, values >= 0.5)


def test_a_floor_under_probabilities_is_no_mask():
    soft = ndimage.gaussian_filter(brain().astype(np.float32), 1.0) * 0.98 + 0.01
    assert dice(read(soft).voxels, brain()) > 0.97


@pytest.mark.parametrize("values", [(1, 2, 4), (10, 150, 250), (1, 1000, 2035), (1, 255, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_all_classes_of_lesions_count_unless_some_are_chosen(values, dtype):
    image = np.zeros(SHAPE)
    image[14:19, 20:26, 12:16], image[15:18, 22:24, 13:15], image[24:26, 10:12, 20] = values
    np.testing.assert_array_equal(read(image, "lesion", dtype).voxels, image > 0)
    assert read(image, "lesion", dtype).remarks == ()
    chosen = read(image + 1e-6, "lesion", np.float64, labels=values[1:])
    np.testing.assert_array_equal(chosen.voxels, np.isin(image, values[1:]))


@pytest.mark.parametrize("step", [6, 9])
def test_lesions_that_are_numbered_count_all(step):
    corners = np.zeros(SHAPE, bool)
    corners[2:-3:step, 2:-3:step, 2:-3:step] = True
    image, n_lesions = ndimage.label(ndimage.binary_dilation(corners, np.ones((2, 3, 2))))
    assert n_lesions > 40
    np.testing.assert_array_equal(read(image, "lesion").voxels, image > 0)


def test_classes_that_were_interpolated_count_from_one_half():
    image = np.zeros(SHAPE)
    image[10:22, 10:30, 8:20], image[12:16, 14:20, 10:14], image[24:30, 10:16, 18:24] = 1, 2, 4
    moved = ndimage.shift(image, (0.3, 0, 0), order=1)
    np.testing.assert_array_equal(read(moved, "lesion").voxels, moved >= 0.5)


def test_a_parcellation_counts_as_brain_with_a_remark():
    x, y, z = np.indices(SHAPE) // 8
    parcels = np.where(brain(), 1 + x + 5 * y + 25 * z, 0)
    found = read(parcels, dtype=np.int16)
    np.testing.assert_array_equal(found.voxels, brain())
    assert "classes" in found.remarks[0]
    assert read(parcels, "lesion").remarks == ()


def test_nan_and_infinities_count_as_zero():
    values = np.where(brain(), 1.0, np.nan)
    values[18, 20, 15], values[18, 20, 16] = np.inf, -np.inf
    expected = brain()
    expected[18, 20, 15:17] = False
    np.testing.assert_array_equal(read(values).voxels, expected)


def picture(scale=1.0, top=99.9):
    rng = np.random.default_rng(0)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, side) for side in SHAPE), indexing="ij")
    depth = (x / 0.75) ** 2 + (y / 0.8) ** 2 + (z / 0.8) ** 2
    values = np.where(depth < 0.3, 0.8, np.where(depth < 0.85, 0.55, 0.3)) + rng.normal(0, 0.04, SHAPE)
    values = np.where(depth < 1, values, 0)
    return np.clip(values / np.percentile(values, top), 0, 1) * scale


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("scale", [1.0, 100.0, 255.0, 4000.0])
@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_a_picture_is_refused_as_a_mask(kind, scale, dtype):
    if dtype == np.int16 and scale == 1:
        pytest.skip("a mask")
    for top in (99.9, 98):
        with pytest.raises(ScanReadError, match=f"is no {kind} mask: it holds a continuum"):
            read(picture(scale, top), kind, dtype)
    with pytest.raises(ScanReadError, match="no lesion mask"):
        read_labels(nib.Nifti1Image(picture(scale).astype(dtype), np.eye(4)), SCAN)


def test_a_picture_with_flat_air_and_saturated_bone_is_refused_as_a_mask():
    values = np.rint(picture(255))
    values[values == 0] = 3
    values[values > 180] = 255
    for kind in MASKS:
        with pytest.raises(ScanReadError, match="continuum"):
            read(values, kind, np.uint8)


def test_z_scores_are_refused_as_a_mask():
    values = picture()
    values = np.where(values > 0, (values - values[values > 0].mean()) / values[values > 0].std(), 0)
    with pytest.raises(ScanReadError, match="no brain mask"):
        read(values)


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("n_raters", [3, 4, 7])
def test_shares_of_raters_count_from_one_half(kind, n_raters):
    soft = ndimage.gaussian_filter(MASKS[kind]().astype(np.float32), 1.0)
    shares = np.round(soft * n_raters) / n_raters
    found = read(shares, kind)
    assert not found.remarks
    np.testing.assert_array_equal(found.voxels, shares >= 0.5)


def test_probabilities_below_one_half_are_no_lesion_and_are_remarked_on():
    soft = ndimage.gaussian_filter(lesions().astype(np.float32), 1.0) * 0.4
    found = read(soft, "lesion")
    assert not found.voxels.any()
    assert "reaches one half" in found.remarks[0]
    with pytest.warns(SkmimoodWarning, match="scan-000: no value of the lesion mask reaches one half"):
        read_labels(nib.Nifti1Image(soft, np.eye(4)), SCAN)


@pytest.mark.parametrize("value", [0, 2e-11, -1, np.nan])
def test_an_empty_lesion_mask_is_empty(tmp_path, value):
    found = read(np.full(SHAPE, value), "lesion")
    assert not found.voxels.any()
    assert found.remarks == ()


def test_zeros_that_a_header_has_moved_are_no_lesions(tmp_path):
    values = np.zeros(SHAPE)
    values[0, 0, 0] = -0.3
    path = saved_again(values, np.uint8, tmp_path / "m.nii.gz")
    assert not read_mask(path, SCAN).voxels.any()


@pytest.mark.parametrize("kind", ["brain", "lesion"])
def test_a_mask_of_255_that_became_minus_1_is_refused(kind):
    wrapped = np.where(brain() if kind == "brain" else lesions(), -1, 0)
    soft = np.round(255 * ndimage.gaussian_filter((wrapped < 0).astype(np.float32), 1.5)).astype(np.uint8)
    for values in (wrapped, soft.astype(np.int8)):
        with pytest.raises(ScanReadError, match=f"is no {kind} mask: a part of it lies below 0"):
            read(values, kind, np.int16)


def test_a_background_below_0_is_background():
    np.testing.assert_array_equal(read(np.where(lesions(), 1, -1), "lesion").voxels, lesions())


def test_a_lesion_mask_that_is_inverted_is_remarked_on():
    assert "the lesion mask is set in the corners" in read(~lesions(), "lesion").remarks[0]


def test_a_brain_mask_that_reaches_the_corners_is_remarked_on():
    assert read(brain()).remarks == ()
    assert "set in the corners" in read(~brain()).remarks[0]


@pytest.mark.parametrize("kind", ["brain", "lesion"])
def test_a_mask_that_is_set_everywhere_is_remarked_on(kind):
    assert (
        f"the {kind} mask is set in the corners of the volume, or everywhere"
        in read(np.ones(SHAPE), kind).remarks[0]
    )


@pytest.mark.parametrize("factor", [2, 0.5])
def test_probabilities_of_another_grid_are_interpolated_before_they_are_halved(factor):
    soft = ndimage.gaussian_filter(brain().astype(np.float32), 1.5)
    other = ndimage.zoom(soft, 1 / factor, order=1, grid_mode=True, mode="nearest")
    affine = np.diag([factor, factor, factor, 1.0])
    affine[:3, 3] = (factor - 1) / 2
    assert dice(read(other, affine=affine).voxels, soft >= 0.5) > 0.98
