"""Slices that do not depend on how a scan is stored, and maps that find their way back to its voxels."""

import itertools
import time
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from scipy import ndimage

from skmimood.exceptions import InputError, ScanReadError
from skmimood.nifti import Scan, make_image, read_scan
from skmimood.preprocessing import GridPlan, foreground_mask, in_plane_extent, scale_intensity

RAS = axcodes2ornt("RAS")
CODES = [
    "".join(letters)
    for axes in itertools.permutations(("RL", "AP", "SI"))
    for letters in itertools.product(*axes)
]


def ellipsoid(shape, radius=0.4):
    """Distance from the centre of a volume; below 1 inside an ellipsoid that fills most of it."""
    grid = np.indices(shape, dtype=np.float32)
    centred = [(axis - (n - 1) / 2) / (radius * n) for axis, n in zip(grid, shape, strict=True)]
    return np.sqrt(sum(axis**2 for axis in centred))


def head(shape=(31, 38, 25), noise=0.0, seed=0):
    """Return a smooth lopsided head in RAS order with values between 0 and about 900."""
    x, y, z = np.indices(shape, dtype=np.float32)
    inside = ellipsoid(shape) < 1
    values = inside * (500 + 200 * np.sin(x / 5) * np.cos(y / 6) + 4 * z + 2 * x)
    return rician(values, noise, seed)


def rician(values, noise, seed):
    """Add the noise of magnitude images, which is never negative."""
    real, imaginary = noise * np.random.default_rng(seed).normal(size=(2, *values.shape))
    return np.hypot(values + real, imaginary).astype(np.float32)


def scan_of(values, affine=None):
    return read_scan(nib.Nifti1Image(values.astype(np.float32), np.eye(4) if affine is None else affine))


def oblique(degrees, zooms=(1.0, 1.2, 2.5)):
    angle = np.deg2rad(degrees)
    tilt = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    return nib.affines.from_matvec(tilt @ np.diag(zooms), [-20.0, 13.0, 7.0])


def reoriented(values, affine, codes):
    """Return the same scan stored in another order of voxels, and the step back to RAS order."""
    there = ornt_transform(RAS, axcodes2ornt(codes))
    stored = apply_orientation(values, there)
    back = ornt_transform(axcodes2ornt(codes), RAS)
    return scan_of(stored, affine @ inv_ornt_aff(there, values.shape)), back


# Orientation


def test_there_are_48_orientations_to_test():
    assert len(set(CODES)) == 48


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_all_48_orientations_give_identical_slices_and_identical_maps(plane):
    values, affine = head(noise=20), oblique(12)
    results = []
    for codes in CODES:
        scan, back = reoriented(values, affine, codes)
        assert nib.aff2axcodes(scan.affine) == tuple(codes)
        foreground = foreground_mask(scan.data)
        extent = in_plane_extent(scan, foreground, plane)
        plan = GridPlan.for_scan(scan, foreground, plane=plane, spacing=1.7, size=(26, 23))
        slices = plan.forward(scale_intensity(scan.data, foreground))
        restored = apply_orientation(plan.inverse(slices), back)
        results.append((extent, slices, apply_orientation(foreground, back), restored))
    for extent, slices, foreground, restored in results[1:]:
        assert extent == pytest.approx(results[0][0])
        np.testing.assert_array_equal(slices, results[0][1])
        np.testing.assert_array_equal(foreground, results[0][2])
        np.testing.assert_array_equal(restored, results[0][3])


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_a_marked_voxel_comes_back_to_its_place(codes, plane):
    values = np.zeros((13, 16, 11), dtype=np.float32)
    values[3, 12, 8] = 1
    scan, _ = reoriented(values, np.eye(4), codes)
    plan = GridPlan.for_scan(scan, None, plane=plane, spacing=1.0, size=(19, 18))
    np.testing.assert_array_equal(plan.inverse(plan.forward(scan.data)), scan.data)
    np.testing.assert_array_equal(plan.inverse(plan.forward(scan.data, order=0), order=0), scan.data)
    finer = GridPlan.for_scan(scan, None, plane=plane, spacing=0.61, size=(40, 40))
    restored = finer.inverse(finer.forward(scan.data))
    assert np.unravel_index(restored.argmax(), restored.shape) == tuple(np.argwhere(scan.data)[0])


@pytest.mark.parametrize(
    ("plane", "index", "pixel"),
    [("axial", 9, (0, 10)), ("coronal", 9, (0, 10)), ("sagittal", 10, (0, 9))],
)
def test_the_stated_directions_hold(plane, index, pixel):
    values = np.zeros((11, 10, 10), dtype=np.float32)
    values[10, 9, 9] = 1  # the corner that is rightmost, frontmost and topmost
    scan = scan_of(values)
    size = (10, 11) if plane != "sagittal" else (10, 10)
    slices = GridPlan.for_scan(scan, None, plane=plane, spacing=1.0, size=size).forward(scan.data)
    assert np.argwhere(slices).tolist() == [[index, *pixel]]


@pytest.mark.parametrize("degrees", [0, 10, 30, 44])
def test_bad_input_20_oblique_scans_stay_on_their_voxel_grid(degrees):
    values = head()
    straight, tilted = scan_of(values, oblique(0)), scan_of(values, oblique(degrees))
    plans = [GridPlan.for_scan(s, values > 0, spacing=1.1, size=(40, 32)) for s in (straight, tilted)]
    np.testing.assert_allclose(plans[0].forward(values), plans[1].forward(values), rtol=1e-5, atol=1e-3)
    result = make_image(plans[1].inverse(plans[1].forward(values)), tilted)
    np.testing.assert_array_equal(result.affine, oblique(degrees))


# Resampling


@pytest.mark.parametrize("spacing", [0.55, 0.8, 1.0, 1.3, 2.0])
@pytest.mark.parametrize("shape", [(40, 40, 3), (41, 52, 3), (52, 39, 3)])
def test_smooth_images_survive_the_round_trip(spacing, shape):
    values = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=shape), (5, 5, 0))
    values = (np.clip(values / np.abs(values).max(), -1, 1) + 1) * (ellipsoid((*shape[:2], 1), 0.5) < 0.8)
    values = ndimage.gaussian_filter(values, (2.5, 2.5, 0))
    scan = scan_of(values)
    plan = GridPlan.for_scan(scan, None, spacing=spacing, size=(int(56 / spacing) + 1, int(55 / spacing)))
    restored = plan.inverse(plan.forward(scan.data))
    assert np.abs(restored - scan.data).max() < 0.05 * max(1.0, spacing) * scan.data.max()


def test_a_plain_image_stays_plain_and_keeps_its_range():
    scan = scan_of(np.ones((33, 29, 4)))
    for spacing in (0.37, 0.9, 1.0, 1.7, 3.1):
        slices = GridPlan.for_scan(scan, None, spacing=spacing, size=(64, 64)).forward(scan.data)
        assert slices.dtype == np.float32
        assert set(np.round(np.unique(slices), 5)) <= {0.0, 1.0}
        assert slices.max() <= 1.0
        n_pixels = (slices[0] > 0).sum() * spacing**2
        assert n_pixels == pytest.approx(min(33, 64 * spacing) * min(29, 64 * spacing), rel=0.2)


def test_no_voxel_is_skipped_where_pixels_are_larger_than_voxels():
    values = np.zeros((64, 64, 8), dtype=np.float32)
    plan = GridPlan.for_scan(scan_of(values + 1), None, spacing=4.0, size=(16, 16))
    masses = []
    for offset in range(8):
        values[...] = 0
        values[28 + offset, 30, 4] = 16
        masses.append(plan.forward(values).sum())
    np.testing.assert_allclose(masses, 1.0, rtol=0.05)


def test_the_frame_is_centred_on_the_foreground_and_padded_with_zeros():
    values = np.zeros((40, 40, 8), dtype=np.float32)
    values[25:35, 4:16, :] = 1
    slices = GridPlan.for_scan(scan_of(values), values > 0, spacing=1.0, size=(20, 18)).forward(values)
    rows, columns = np.flatnonzero(slices[0].any(axis=1)), np.flatnonzero(slices[0].any(axis=0))
    assert (rows[0], rows[-1]) == (4, 15)
    assert (columns[0], columns[-1]) == (4, 13)


def test_maps_are_zero_where_the_frame_does_not_reach():
    scan = scan_of(np.ones((40, 40, 8)))
    plan = GridPlan.for_scan(scan, None, spacing=1.0, size=(20, 10))
    restored = plan.inverse(np.ones((8, 20, 10), dtype=np.float32))
    assert restored.sum() == 20 * 10 * 8
    assert restored[15:25, 10:30].min() == 1


def test_a_foreground_fits_the_frame_whose_spacing_was_learned_from_it():
    values = head((37, 50, 9))
    scan = scan_of(values, np.diag([0.9, 1.3, 5, 1]))
    foreground = foreground_mask(scan.data)
    height, width = in_plane_extent(scan, foreground)
    spacing = max(height / 32, width / 24)
    plan = GridPlan.for_scan(scan, foreground, spacing=spacing, size=(32, 24))
    covered = plan.inverse(np.ones((9, 32, 24), dtype=np.float32), order=0) > 0
    assert covered[foreground].all()
    assert plan.slice_thickness == pytest.approx(5)


def test_masks_stay_masks():
    mask = ellipsoid((31, 38, 25)) < 1
    plan = GridPlan.for_scan(scan_of(mask), mask, spacing=1.3, size=(32, 32))
    slices = plan.forward(mask, order=0)
    assert set(np.unique(slices)) == {0.0, 1.0}
    restored = plan.inverse(slices, order=0)
    assert (restored[mask] == 1).mean() > 0.9
    assert restored.sum() == pytest.approx(mask.sum(), rel=0.05)


def test_units_other_than_millimetres_give_the_same_plan():
    image = nib.Nifti1Image(head(), np.diag([0.001, 0.001, 0.002, 1]))
    image.header.set_xyzt_units("meter")
    plan = GridPlan.for_scan(read_scan(image), None, spacing=1.0, size=(38, 31))
    assert plan.step == pytest.approx((1.0, 1.0))
    assert plan.slice_thickness == pytest.approx(2.0)


def test_bad_input_26_flat_and_narrow_scans():
    flat = scan_of(head((20, 24, 1)))
    assert GridPlan.for_scan(flat, None, spacing=1.0, size=(24, 20)).forward(flat.data).shape == (1, 24, 20)
    with pytest.raises(ScanReadError, match="scan-000: has sagittal slices of 1 x 24 voxels"):
        GridPlan.for_scan(flat, None, plane="sagittal", spacing=1.0, size=(24, 20))
    with pytest.raises(ScanReadError, match="at least 8"):
        in_plane_extent(scan_of(np.ones((7, 20, 20))), None)
    picture = read_scan(nib.Nifti1Image(np.ones((20, 24), np.float32), np.eye(4)))
    plan = GridPlan.for_scan(picture, None, spacing=1.0, size=(24, 20))
    assert make_image(plan.inverse(plan.forward(picture.data)), picture).shape == (20, 24)


def test_impossible_requests_are_refused():
    scan = scan_of(head())
    with pytest.raises(ScanReadError, match="no foreground"):
        GridPlan.for_scan(scan, np.zeros(scan.data.shape, bool), spacing=1.0, size=(8, 8))
    with pytest.raises(ScanReadError, match="no foreground"):
        in_plane_extent(scan, np.zeros(scan.data.shape, bool))
    with pytest.raises(InputError, match="plane must be one of"):
        GridPlan.for_scan(scan, None, plane="diagonal", spacing=1.0, size=(8, 8))
    with pytest.raises(InputError, match="must be positive"):
        GridPlan.for_scan(scan, None, spacing=0.0, size=(8, 8))
    plan = GridPlan.for_scan(scan, None, spacing=1.0, size=(8, 8))
    with pytest.raises(InputError, match="scan's shape"):
        plan.forward(scan.data[1:])
    with pytest.raises(InputError, match=r"shape \(25, 8, 8\)"):
        plan.inverse(np.zeros((25, 8, 9)))
    with pytest.raises(InputError, match="order must be 0"):
        plan.forward(scan.data, order=3)


def test_a_large_scan_takes_seconds_and_little_memory():
    shape = (240, 240, 155)
    values = (ellipsoid(shape) < 1).astype(np.float32)
    values *= 700
    scan = Scan(id="big", data=values, affine=np.eye(4), invalid=None, shape=shape)
    tracemalloc.start()
    try:
        start = time.perf_counter()
        foreground = foreground_mask(scan.data)
        plan = GridPlan.for_scan(scan, foreground, spacing=1.5, size=(128, 128))
        plan.inverse(plan.forward(scale_intensity(scan.data, foreground)))
        seconds = time.perf_counter() - start
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seconds < 20  # about 2 s on an idle core
    assert peak < 400e6


# Foreground


def dice(first, second):
    return 2 * (first & second).sum() / (first.sum() + second.sum())


@pytest.mark.parametrize(
    ("kind", "lowest"),
    [("stripped", 0.999), ("noisy", 0.95), ("z-scored", 0.97), ("hounsfield", 0.95), ("offset", 0.999)],
)
def test_the_head_is_found_whatever_the_background(kind, lowest):
    shape = (60, 70, 50)
    rng = np.random.default_rng(0)
    truth = ellipsoid(shape) < 1
    tissue = 500 + 150 * ndimage.gaussian_filter(rng.normal(size=shape), 2) / 0.06
    values = {
        "stripped": np.where(truth, np.maximum(tissue, 60), 0),
        "noisy": rician(np.where(truth, np.maximum(tissue, 200), 0), 25, 1),
        "z-scored": np.where(truth, (tissue - tissue[truth].mean()) / tissue[truth].std(), 0),
        "hounsfield": np.where(truth, 40, -1000) + rng.normal(0, 10, shape),
        "offset": np.where(truth, tissue + 2000, 321),
    }[kind]
    found = foreground_mask(values.astype(np.float32))
    assert found.dtype == bool
    assert dice(found, truth) > lowest


def test_dark_parts_inside_belong_to_the_head_and_specks_outside_do_not():
    shape = (50, 60, 40)
    truth = ellipsoid(shape) < 1
    values = np.where(truth, 500, 0).astype(np.float32)
    values[20:30, 25:35, 15:25] = 0
    values[1:3, 1:3, 1:3] = 500
    np.testing.assert_array_equal(foreground_mask(values), truth)


@pytest.mark.parametrize("value", [0.0, 7.5, -1000.0])
def test_a_constant_volume_has_no_foreground(value):
    assert not foreground_mask(np.full((9, 10, 11), value, dtype=np.float32)).any()


# Intensities


@pytest.mark.parametrize("noise", [0, 15])
def test_the_unit_of_the_intensities_does_not_matter(noise):
    counts = np.round(head(noise=noise) / 4).clip(0, 255)
    results = []
    for values in (counts.astype(np.uint8), counts / 255, counts * 1e6, counts * 1e-6):
        scan = scan_of(values)
        foreground = foreground_mask(scan.data)
        plan = GridPlan.for_scan(scan, foreground, spacing=1.3, size=(32, 32))
        results.append((foreground, plan.forward(scale_intensity(scan.data, foreground))))
    for foreground, slices in results[1:]:
        np.testing.assert_array_equal(foreground, results[0][0])
        np.testing.assert_allclose(slices, results[0][1], atol=1e-5)


def test_intensities_are_clipped_at_the_98th_percentile_of_the_foreground():
    values = head()
    foreground = values > 0
    limit = np.percentile(values[foreground], 98)
    scaled = scale_intensity(values, foreground)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, np.minimum(values / limit, 1), rtol=1e-5)
    assert (scaled[foreground] == 1).mean() == pytest.approx(0.02, abs=0.005)
    assert scale_intensity(values, foreground, percentile=100).max() == 1
    assert (scale_intensity(values, foreground, percentile=100) == 1).sum() == 1


def test_stripping_blackens_what_is_outside():
    values = head() + 50
    foreground = ellipsoid(values.shape) < 0.5
    kept, stripped = (scale_intensity(values, foreground, strip=strip) for strip in (False, True))
    assert kept[~foreground].max() > 0
    assert stripped[~foreground].max() == 0
    np.testing.assert_array_equal(kept[foreground], stripped[foreground])


def test_a_few_negative_values_are_clipped_and_many_move_the_black_point():
    values = head()
    foreground = values > 0
    ringing = values.copy()
    ringing[15, 15, 12:15] = -80
    unchanged = np.ones(values.shape, dtype=bool)
    unchanged[15, 15, 12:15] = False
    scaled = scale_intensity(ringing, foreground)
    assert scaled.min() == 0
    np.testing.assert_allclose(scaled[unchanged], scale_intensity(values, foreground)[unchanged], atol=0.01)

    z_scored = np.where(foreground, (values - values[foreground].mean()) / values[foreground].std(), 0)
    scaled = scale_intensity(z_scored.astype(np.float32), foreground)
    assert scaled[~foreground].max() == 0
    order = np.argsort(values[foreground])
    assert (np.diff(scaled[foreground][order]) >= 0).all()
    assert scaled[foreground].min() == 0
    assert scaled[foreground].max() == 1


def test_nothing_is_divided_by_zero():
    values = np.full((9, 10, 11), 3.0, dtype=np.float32)
    everywhere = np.ones(values.shape, dtype=bool)
    assert scale_intensity(values, ~everywhere).max() == 0
    assert scale_intensity(values * 0, everywhere).max() == 0
    assert scale_intensity(-values, everywhere).max() == 0
    with pytest.raises(InputError, match="percentile must be above 50"):
        scale_intensity(values, everywhere, percentile=0.98)
