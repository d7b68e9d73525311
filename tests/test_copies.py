import itertools

import nibabel as nib
import numpy as np
import pytest
from toy_scans import RAS, head, image, make

from skmimood.datasets import make_brain_phantom
from skmimood.exceptions import SkmimoodWarning
from skmimood.nifti import write_image
from skmimood.scans.copies import Copies, is_copy, orientations

VOXELS = head(0)[0]
CUBE = head(0, shape=(24, 24, 24))[0]


def copies_of(first, second):
    """Tell whether the second is found as a copy of the first, as a set of scans would."""
    copies = Copies({0: first}.get)
    assert copies.find(0, first) is None
    return copies.find(1, second) == 0


def turns():
    for order, signs in itertools.product(
        itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)
    ):
        yield lambda v, o=order, s=signs: v.transpose(o)[tuple(slice(None, None, sign) for sign in s)]


@pytest.mark.parametrize("voxels", [VOXELS, CUBE])
def test_all_48_orientations_are_the_same_upright(voxels):
    assert all(copies_of(voxels, turn(voxels)) for turn in turns())
    uneven = voxels + 100 * np.indices(voxels.shape).T.dot([3, 2, 1]).T  # more of it at one end of each axis
    expected = orientations(uneven)
    assert len(expected) == 1
    assert all(np.array_equal(orientations(turn(uneven))[0], expected[0]) for turn in turns())


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v,
        lambda v: v * 1e-6,
        lambda v: v * 1e6 - 3e5,
        lambda v: v - 1024,
        np.rint,
        np.floor,  # as astype does
        lambda v: np.rint(v / v.max() * 255),
        lambda v: np.rint(v / v.max() * 99) * 3.7 + 12,
        lambda v: v.astype(np.float16).astype(np.float32) if v.max() < 6e4 else v,
        lambda v: np.rint(v[::-1, :, ::-1].transpose(2, 0, 1) * 0.2),
    ],
)
def test_a_scan_scaled_rounded_or_turned_is_a_copy(change):
    changed = change(VOXELS).astype(np.float32)
    assert copies_of(VOXELS, changed)
    assert copies_of(changed, VOXELS)


@pytest.mark.parametrize(
    "other",
    [
        head(1)[0],  # the same anatomy with other noise
        VOXELS + np.random.default_rng(5).normal(0, 2, VOXELS.shape).astype(np.float32) * (VOXELS > 0),
        np.rint(head(0)[0] / 4) + np.random.default_rng(6).integers(-2, 3, VOXELS.shape),
        head(0, lesion=True)[0],
        -VOXELS,
        np.roll(VOXELS, 1, axis=0),
    ],
)
def test_a_scan_that_differs_by_more_than_rounding_is_no_copy(other):
    assert not copies_of(VOXELS, other.astype(np.float32))
    assert not is_copy(np.rint(VOXELS), np.rint(other).astype(np.float32))


def test_phantoms_of_few_grey_values_are_told_apart():
    plain = np.where(VOXELS > 0, np.where(VOXELS > 650, 800, 500), 0).astype(np.float32)
    other = plain.copy()
    other[15, 18, 10] = 800 if plain[15, 18, 10] == 500 else 500
    assert copies_of(plain, plain * 0.1)
    assert not copies_of(plain, other)
    small = plain.copy()
    small[np.unravel_index(np.flatnonzero(plain == 800)[:1], plain.shape)] = 850
    assert not copies_of(plain, small)


def test_no_two_phantoms_are_copies_and_each_is_one_of_itself():
    volumes = [
        make_brain_phantom(4, size=48, modality="t1", random_state=seed)[0].astype(np.float32)
        for seed in range(6)
    ]
    volumes = [np.rint(255 * volume) for volume in volumes]
    copies = Copies(dict(enumerate(volumes)).get)
    assert [copies.find(k, volume) for k, volume in enumerate(volumes)] == [None] * 6
    assert [copies.find(10 + k, volume * 3 + 1) for k, volume in enumerate(volumes)] == list(range(6))


def test_few_scans_are_read_again():
    read = []
    copies = Copies(lambda k: read.append(k))
    for seed in range(6):
        assert copies.find(seed, head(seed)[0]) is None
    assert read == []
    assert copies.find(9, VOXELS) is None  # the one it may be a copy of has vanished
    assert read == [0]


def test_voxels_without_any_contrast_do_no_harm():
    assert not copies_of(np.zeros_like(VOXELS), VOXELS)
    assert not copies_of(VOXELS, np.zeros_like(VOXELS))


def test_fit_leaves_out_a_scan_that_was_turned_scaled_and_stored_as_bytes(tmp_path):
    for seed in range(4):
        write_image(image(seed), tmp_path / f"sub-{seed}_T1.nii.gz")
    turned = nib.as_closest_canonical(image(2))
    turned = turned.as_reoriented(np.array([[1, -1], [2, 1], [0, -1]]))
    values = np.rint(np.asarray(turned.dataobj) / 4)
    write_image(nib.Nifti1Image(values.astype(np.uint8), turned.affine), tmp_path / "x_T1.nii.gz")
    write_image(nib.Nifti1Image(VOXELS[::-1] * 1e-3, RAS), tmp_path / "y_T1.nii.gz")  # mirrored, too
    with pytest.warns(SkmimoodWarning, match=r"x_T1 \(has the same voxels as sub-2_T1, turned, scaled"):
        detector = make().fit(tmp_path)
    duplicates = {line.id: line.reason for line in detector.fit_status_ if line.status == "duplicate"}
    assert set(duplicates) == {"x_T1", "y_T1"}
    assert "sub-0_T1" in duplicates["y_T1"]
