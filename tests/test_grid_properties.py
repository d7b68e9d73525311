"""To the network's grid and back, for scans of any orientation, shape, spacing and tilt."""

import itertools
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest
from golden import MODEL, scan
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import apply_affine, from_matvec, voxel_sizes
from nibabel.orientations import axcodes2ornt, ornt_transform
from nibabel.quaternions import angle_axis2mat
from sklearn.pipeline import Pipeline
from toy_scans import make

from skmimood.baselines import IntensityThreshold
from skmimood.nifti import make_image, read_scan, write_image
from skmimood.preprocessing import GridPlan
from skmimood.scans import ScanDetector

RAS = axcodes2ornt("RAS")
CODES = [
    "".join(letters)
    for axes in itertools.permutations(("RL", "AP", "SI"))
    for letters in itertools.product(*axes)
]
PLANES = ("axial", "coronal", "sagittal")


def examples(number):
    """Draw the same examples every time, and leave no file behind."""
    return settings(max_examples=number, derandomize=True, database=None, deadline=None)


# Below 45 degrees, the axes of the voxels have a nearest axis of the patient each.
angles = st.one_of(st.just(0.0), st.floats(0, 44.9))
directions = st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda axis: np.linalg.norm(axis) > 0.1)
places = st.tuples(*[st.floats(-200, 200)] * 3)


def affines(sizes):
    """Return a strategy for oblique affines, near to RAS, of voxels with sides in mm between two ``sizes``."""
    return st.builds(
        lambda angle, axis, sides, place: from_matvec(angle_axis2mat(np.deg2rad(angle), axis) * sides, place),
        angles, directions, st.tuples(*[st.floats(*sizes)] * 3), places,
    )  # fmt: skip


def stored_as(codes, image):
    """Return an image, near to RAS, with its voxels stored in another order."""
    return image.as_reoriented(ornt_transform(RAS, axcodes2ornt(codes)))


def back_in_ras(codes, values):
    return nib.orientations.apply_orientation(values, ornt_transform(axcodes2ornt(codes), RAS))


class Head(NamedTuple):
    """An image of an ellipsoid with a bright ball in it, and the ball's centre in mm."""

    image: nib.Nifti1Image
    centre: np.ndarray


def draw_head(shape, affine, offset):
    """Draw a head that fills its volume, with a lesion at up to a tenth of its sides from the centre."""
    grid = np.moveaxis(np.indices(shape, float), 0, -1)
    centre = (np.array(shape) - 1) / 2
    lesion = np.rint(centre + np.array(offset) * shape)
    distance = np.linalg.norm((grid - centre) / shape, axis=-1)
    values = np.where(distance < 0.44, 300.0 + 100 * distance + 2 * grid[..., 0], 0.0)
    values[np.linalg.norm((grid - lesion) / shape, axis=-1) < 0.2] = 1000
    return Head(nib.Nifti1Image(values.astype(np.float32), affine), apply_affine(affine, lesion))


heads = st.builds(
    draw_head,
    st.tuples(*[st.integers(14, 30)] * 3),
    affines((1.5, 4.0)),
    st.tuples(*[st.floats(-0.1, 0.1)] * 3),
)


@pytest.fixture(scope="module")
def detector():
    """Return a detector without networks, whose map is the brightness."""
    steps = Pipeline([("brightness", IntensityThreshold(equalize="none"))])
    healthy = [
        draw_head((24, 28, 20), np.diag([3.0, 3, 3, 1]), (shift, 0, 0)).image
        for shift in (0, 0.05, 0.1, -0.1)
    ]
    detector = make(pipeline=steps, size=48, spacing=2.5, slice_smoothing=1.0).fit(healthy)
    detector.pixel_threshold_ = 0.75
    return detector


@examples(60)
@given(
    codes=st.sampled_from(CODES), plane=st.sampled_from(PLANES), shape=st.tuples(*[st.integers(8, 24)] * 3),
    affine=affines((0.5, 6.0)), spacing=st.floats(0.5, 6.0), size=st.tuples(*[st.integers(8, 40)] * 2),
    order=st.sampled_from([0, 1]),
)  # fmt: skip
def test_slices_and_maps_do_not_depend_on_how_a_scan_is_stored(
    codes, plane, shape, affine, spacing, size, order
):
    values = np.random.default_rng(0).random(shape, dtype=np.float32)
    plain = nib.Nifti1Image(values, affine)
    slices, maps = [], []
    for image in (plain, stored_as(codes, plain)):
        read = read_scan(image)
        plan = GridPlan.for_scan(read, read.data > 0.1, plane=plane, spacing=spacing, size=size)
        slices.append(plan.forward(read.data, order=order))
        drawn = make_image(plan.inverse(slices[-1], order=order), read)
        assert drawn.shape == image.shape
        np.testing.assert_array_equal(drawn.affine, image.affine)
        maps.append(drawn.get_fdata())
    np.testing.assert_array_equal(slices[1], slices[0])
    np.testing.assert_array_equal(back_in_ras(codes, maps[1]), maps[0])


@examples(15)
@given(codes=st.sampled_from(CODES), drawn=heads)
def test_a_map_lies_on_the_scan_s_own_grid_and_the_lesion_where_it_is_in_the_world(detector, codes, drawn):
    stored = stored_as(codes, drawn.image)
    result, plain = detector.detect_scan(stored), detector.detect_scan(drawn.image)
    for found, expected in (
        (result.anomaly, plain.anomaly),
        (result.mask, plain.mask),
        (result.healed, plain.healed),
    ):
        assert found.shape == stored.shape
        np.testing.assert_array_equal(found.affine, stored.affine)
        np.testing.assert_array_equal(back_in_ras(codes, found.get_fdata()), expected.get_fdata())
    assert result.score == plain.score
    lesion = result.lesions[0]
    sides = np.array([*voxel_sizes(stored.affine), detector.spacing_])
    assert np.linalg.norm(np.array(lesion[-3:]) - drawn.centre) < sides.max() / 2


@examples(4)
@given(codes=st.sampled_from(CODES), drawn=heads)
def test_a_map_that_was_written_has_the_affine_of_the_file_of_the_scan(
    detector, tmp_path_factory, codes, drawn
):
    folder = tmp_path_factory.mktemp("round trip")
    write_image(stored_as(codes, drawn.image), folder / "scan.nii.gz")
    detector.detect_scan(folder / "scan.nii.gz").save(folder)
    scan_file = nib.load(folder / "scan.nii.gz")
    for ending in ("anomaly", "pvalue", "mask", "lesions", "healed"):
        image = nib.load(folder / f"scan_{ending}.nii.gz")
        assert image.shape == scan_file.shape
        np.testing.assert_array_equal(image.affine, scan_file.affine)


@examples(2)
@given(codes=st.sampled_from(CODES), turn=st.tuples(angles, directions))
def test_networks_draw_the_same_map_however_an_oblique_scan_is_stored(networks, codes, turn):
    plain = scan(11, lesions="bright")
    rotation = angle_axis2mat(np.deg2rad(turn[0]), turn[1])
    plain = nib.Nifti1Image(np.asarray(plain.dataobj), from_matvec(rotation * [5.0, 5.0, 8.0], [-10, 20, 5]))
    stored = stored_as(codes, plain)
    found, expected = networks.decision_function([stored, plain])
    np.testing.assert_array_equal(found.affine, stored.affine)
    np.testing.assert_array_equal(back_in_ras(codes, found.get_fdata()), expected.get_fdata())
    assert expected.get_fdata().max() > 0


@pytest.fixture(scope="module")
def networks():
    """Return a detector with trained networks."""
    return ScanDetector.load(MODEL)
