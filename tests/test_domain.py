"""Scans unlike the training data are flagged, in `fit` and when they are scored."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from toy_scans import RAS, image, make

from skmimood.exceptions import SkmimoodWarning
from skmimood.scans.cohort import measure
from skmimood.scans.domain import Domain, ScanFeatures, layout_distance, tissue_layout
from skmimood.scans.sources import ListedScan

SHAPE = (30, 36, 20)


def brain(seed=0, scale=1000.0):
    """A brain whose left side, back and base are brighter, so that no turn or inversion looks like it."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, side) for side in SHAPE), indexing="ij")
    inside = x**2 + y**2 + z**2 < 0.8 + 0.02 * rng.normal()
    tissue = 0.5 - 0.15 * y - 0.1 * z - 0.05 * x + rng.normal(0, 0.02, SHAPE)
    return (np.where(inside, tissue, 0) * scale).astype(np.float32)


def scan(data):
    return nib.Nifti1Image(np.ascontiguousarray(data), RAS)


@pytest.fixture(scope="module")
def detector():
    return make(calibration_fraction=0.3).fit([scan(brain(seed)) for seed in range(10)])


def inverted(data):
    """Invert the tissue about its own mid-range: its histogram is nearly its mirror image, and as wide."""
    inside = data != 0
    return np.where(inside, data[inside].max() + data[inside].min() - data, 0)


@pytest.mark.parametrize(
    "change",
    [inverted, lambda data: data[:, ::-1], lambda data: data[:, :, ::-1], lambda data: data[:, ::-1, ::-1]],
    ids=["inverted", "back to front", "upside down", "turned by half a turn"],
)
def test_tissue_that_lies_elsewhere_is_flagged(detector, change):
    (flag,) = detector.detect_scan(scan(change(brain(50)))).flags
    assert "unlike the training data" in flag
    assert "layout" in flag


def test_a_brain_of_even_tissue_that_is_turned_in_its_slices_is_flagged():
    even = [np.where(brain(seed) != 0, 500 + brain(seed) / 100, 0) for seed in range(11)]
    detector = make(calibration_fraction=0.3).fit([scan(one) for one in even[:10]])
    assert detector.detect_scan(scan(even[10])).flags == ()
    (flag,) = detector.detect_scan(scan(np.rot90(even[10]))).flags
    assert "height over width" in flag


def test_a_brain_of_even_tissue_and_lopsided_shape_is_flagged_back_to_front():
    y = np.linspace(-1, 1, SHAPE[1])[:, None]
    x = np.linspace(-1, 1, SHAPE[0])[:, None, None]
    lopsided = [
        np.where(np.abs(x) < 0.5 + 0.3 * y, brain(seed) / 100 + 500, 0) * (brain(seed) != 0)
        for seed in range(11)
    ]
    detector = make(calibration_fraction=0.3).fit([scan(one) for one in lopsided[:10]])
    assert detector.detect_scan(scan(lopsided[10])).flags == ()
    assert "layout" in detector.detect_scan(scan(lopsided[10][:, ::-1])).flags[0]


@pytest.mark.parametrize("unit", [1, 7, 1e-3])
def test_a_healthy_scan_is_not_flagged_whatever_its_unit(detector, unit):
    assert detector.detect_scan(scan(unit * brain(50))).flags == ()


def test_a_scan_is_known_in_any_orientation_that_its_affine_tells_of(detector):
    turned = scan(brain(50)).as_reoriented(nib.orientations.axcodes2ornt(("P", "S", "L")))
    assert detector.detect_scan(turned).flags == ()


def coarser(data, *factors):
    """Return a scan of every so many voxels along each axis."""
    kept = tuple(slice(None, None, factor) for factor in factors)
    return nib.Nifti1Image(np.ascontiguousarray(data[kept]), RAS @ np.diag([*factors, 1.0]))


@pytest.mark.parametrize(
    ("factors", "sides"), [((2, 2, 1), "4 x 4 x 2"), ((1, 1, 2), "2 x 2 x 4"), ((2, 1, 1), "2 x 4 x 2")]
)
def test_a_scan_of_another_resolution_is_flagged_with_its_voxels(detector, factors, sides):
    told = f"voxels of {sides} mm, where those of the training data measured 2 mm in a slice and 2 mm across"
    *_, flag = detector.detect_scan(coarser(brain(50), *factors)).flags
    assert told in flag


def test_a_resolution_within_or_near_those_of_the_training_data_is_not_flagged(tmp_path):
    scans = [scan(brain(seed)) if seed % 2 else coarser(brain(seed), 2, 2, 1) for seed in range(10)]
    detector = make(calibration_fraction=0.3).fit(scans)
    assert detector.pixel_range_ == (2.0, 4.0)
    assert detector.thickness_range_ == (2.0, 2.0)
    domain, features = (
        Domain.of(detector),
        measure(detector._reader().read(ListedScan("", scan(brain(50)))), "axial"),
    )
    for side, is_flagged in ((1.3, True), (1.4, False), (3.0, False), (5.9, False), (6.1, True)):
        remarks = domain.remarks(replace(features, voxel=(side, 3.0, 2.0)))
        assert any("measured 2 to 4 mm in a slice" in remark for remark in remarks) == is_flagged
    arrays = {
        name: value
        for name, value in domain.attributes().items()
        if name not in ("pixel_range_", "thickness_range_")
    }
    assert Domain.from_arrays(arrays).remarks(replace(features, voxel=(9.0, 9.0, 9.0))) == ()  # an old model


def test_layouts_of_equal_brains_do_not_differ_and_those_of_opposite_ones_do_most():
    data = brain()
    layouts = [tissue_layout(part / 1000, data != 0) for part in (data, inverted(data))]
    assert layout_distance(layouts[0], layouts[0]) == pytest.approx(0, abs=1e-6)
    assert layout_distance(*layouts) > 1.9
    assert layouts[0].shape == (2, 8, 8, 8)


def test_fit_tells_the_volume_and_share_of_every_foreground(detector):
    for line in detector.fit_status_:
        truth = (brain(int(line.id.removeprefix("scan-"))) != 0).mean()
        assert line.foreground_share == pytest.approx(truth, abs=0.01)
        assert line.foreground_ml == pytest.approx(line.foreground_share * np.prod(SHAPE) * 8 / 1000)


def test_of_four_healthy_scans_one_of_another_kind_is_told():
    scans = [image(0), image(1), image(2), scan(brain(3))]
    with pytest.warns(SkmimoodWarning, match=r"1 of the healthy scans stand out: scan-003"):
        make().fit(scans)


def test_a_foreground_that_fills_the_volume_is_told():
    cropped = np.pad(np.random.default_rng(0).normal(500, 20, (58, 58, 58)), 1).astype(np.float32)
    with pytest.warns(SkmimoodWarning) as told:
        make().fit([*(scan(brain(seed)) for seed in range(4)), scan(cropped)])
    told = [str(one.message) for one in told]
    assert any(
        "the foreground found fills 90% of the volume" in one and one.endswith(": scan-004") for one in told
    )
    assert any("scan-004 (its intensities" in one and "stand out" in one for one in told)


@pytest.mark.parametrize(
    ("volume", "told"), [(90.0, "90 ml"), (79.99, "79.99 ml lies outside the 80.00 to 100.00")]
)
def test_a_value_and_the_limit_that_it_exceeds_never_read_alike(volume, told):
    histogram = np.full(64, 1 / 64)
    domain = Domain(histogram, 0.1, (80.0, 100.0), aspect_range=(0.5, 1.1))
    layout = np.zeros((2, 8, 8, 8), np.float32)
    remarks = domain.remarks(ScanFeatures(histogram, volume, (110.1, 100.0), layout, 0.5, (1.0, 1.0, 1.0)))
    assert "height over width 1.101, limits 0.500 and 1.100" in remarks[0]
    assert (told in remarks[-1]) == (volume < 80)


def with_skull(data):
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, side) for side in SHAPE), indexing="ij")
    radius = x**2 + y**2 + z**2
    return np.where((radius > 0.88) & (radius < 1), 900.0, data).astype(np.float32)


def test_bad_input_38_a_skull_where_there_was_none_is_flagged_and_the_reverse(detector):
    flags = detector.detect_scan(scan(with_skull(brain(50)))).flags
    assert any(
        "foreground" in flag and "skull stripped in one and not in the other" in flag for flag in flags
    )
    unstripped = make(calibration_fraction=0.3).fit([scan(with_skull(brain(seed))) for seed in range(10)])
    assert unstripped.detect_scan(scan(with_skull(brain(50)))).flags == ()
    flags = unstripped.detect_scan(scan(brain(50))).flags
    assert any(
        "foreground" in flag and "skull stripped in one and not in the other" in flag for flag in flags
    )


def half(data):
    return np.where(np.arange(SHAPE[0])[:, None, None] < SHAPE[0] // 2, data, 0)


def moved(data):
    return data + 0.4 * np.roll(data, SHAPE[1] // 4, axis=1) + 0.4 * np.roll(data, -SHAPE[1] // 4, axis=1)


def biased(data):
    return data * np.exp(1.5 * np.linspace(-1, 1, SHAPE[0]))[:, None, None]


@pytest.mark.parametrize("fault", [half, moved, biased])
def test_bad_input_39_half_a_head_motion_and_a_strong_bias_field_are_scored_with_a_flag(detector, fault):
    result = detector.detect_scan(scan(fault(brain(50)).astype(np.float32)))
    assert np.isfinite(result.score)
    assert "looks unlike the training data" in result.flags[0]


def test_bad_input_41_a_healthy_scan_of_another_site_has_a_p_value_and_a_note(detector):
    result = detector.detect_scan(scan((1000 * (brain(50) / 1000) ** 1.6).astype(np.float32)))
    assert 0 < result.pvalue <= 1
    assert "for another scanner, calibrate on healthy scans of that site" in result.flags[0]
