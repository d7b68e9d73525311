import sys

import numpy as np
import pytest
from phantom_layouts import write_layout
from scipy import ndimage

from skmimood import nifti
from skmimood.datasets import LESION_KINDS, make_brain_phantom, write_phantom_dataset
from skmimood.datasets.atlas import load_atlas
from skmimood.exceptions import InputError, ScanWriteError, SkmimoodError
from skmimood.metrics import auroc, average_precision

SIZE = 64


def _twins(kind, n_samples=6, **options):
    """Return images with lesions, the same without, and the masks."""
    images, masks = make_brain_phantom(n_samples, size=SIZE, lesions=kind, random_state=4, **options)
    healthy, _ = make_brain_phantom(n_samples, size=SIZE, random_state=4, **options)
    return images, healthy, masks


def test_images_fill_the_unit_range_and_healthy_masks_are_empty():
    images, masks = make_brain_phantom(3, size=(48, 40), random_state=0)
    assert images.shape == masks.shape == (3, 48, 40)
    assert images.dtype == np.float32
    assert masks.dtype == bool
    assert images.min() == 0
    assert 0.8 < images.max() <= 1
    assert not masks.any()


@pytest.mark.parametrize("modality", ["t2", "t1", "FLAIR"])
def test_the_brain_lies_inside_the_frame_on_a_black_background(modality):
    images, _ = make_brain_phantom(20, size=SIZE, modality=modality, random_state=1)
    border = np.concatenate([images[:, [0, -1]].ravel(), images[:, :, [0, -1]].ravel()])
    assert not border.any()
    assert np.all(np.mean(images > 0, axis=(1, 2)) > 0.2)


def test_fluid_is_the_brightest_tissue_on_t2_and_the_darkest_on_t1_and_flair():
    means = {}
    for modality in ("t2", "t1", "flair"):
        images, _ = make_brain_phantom(1, size=SIZE, n_slices=9, modality=modality, random_state=0)
        reference, _ = make_brain_phantom(1, size=SIZE, n_slices=9, random_state=0)
        means[modality] = (
            images[reference > 0.85].mean(),
            images[(reference > 0.3) & (reference < 0.4)].mean(),
        )
    assert means["t2"][0] > means["t2"][1]
    assert means["t1"][0] < means["t1"][1]
    assert means["flair"][0] < means["flair"][1]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_anatomy():
    first, again = (make_brain_phantom(2, size=SIZE, lesions=True, random_state=7) for _ in range(2))
    other, _ = make_brain_phantom(2, size=SIZE, lesions=True, random_state=8)
    assert first[0].tobytes() == again[0].tobytes()
    assert first[1].tobytes() == again[1].tobytes()
    assert np.abs(first[0] - other).mean() > 0.01


def test_a_sample_does_not_depend_on_the_number_of_samples():
    few, few_masks = make_brain_phantom(2, size=SIZE, lesions=True, random_state=3)
    many, many_masks = make_brain_phantom(7, size=SIZE, lesions=True, random_state=3)
    np.testing.assert_array_equal(few, many[:2])
    np.testing.assert_array_equal(few_masks, many_masks[:2])


def test_the_global_random_state_is_not_touched():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    make_brain_phantom(1, size=32, lesions=True, random_state=0)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_random_states_give_reproducible_phantoms():
    first, second = (make_brain_phantom(1, size=32, random_state=np.random.RandomState(0)) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])


def test_a_left_right_flip_is_told_from_the_template_mean():
    images, _ = make_brain_phantom(160, size=SIZE, random_state=0)
    means = images[:80].mean(axis=0)
    asymmetry = means - means[:, ::-1]
    fresh = images[80:]
    margin = np.sum((fresh - fresh[:, :, ::-1]) * asymmetry, axis=(1, 2))
    assert np.mean(margin > 0) > 0.9


def test_an_asymmetric_mark_lies_in_the_left_hemisphere():
    images, _ = make_brain_phantom(60, size=96, random_state=0)
    spots = images - ndimage.median_filter(images, (1, 7, 7))
    pixel = 1.15 * 181 / 96
    row, column = round(47.5 + 24 / pixel), round(47.5 - 31 / pixel)
    window = slice(None), slice(row - 5, row + 6), slice(column - 5, column + 6)
    left, right = (side[window].max(axis=(1, 2)) for side in (spots, spots[:, :, ::-1]))
    assert np.mean(left > right) > 0.8


def test_every_mixed_sample_has_a_lesion_inside_the_brain():
    images, masks = make_brain_phantom(40, size=SIZE, lesions=True, random_state=2)
    assert np.all(masks.any(axis=(1, 2)))
    assert np.all(images[masks] > 0)


def test_lesions_have_realistic_sizes():
    images, masks = make_brain_phantom(60, size=SIZE, lesions=True, random_state=5)
    share = masks.sum(axis=(1, 2)) / (images > 0).sum(axis=(1, 2))
    assert 0.02 < np.median(share) < 0.06
    assert share.max() < 0.2


@pytest.mark.parametrize("kind", [kind for kind in LESION_KINDS if kind != "mass"])
def test_an_image_with_lesions_equals_its_healthy_twin_exactly_outside_the_mask(kind):
    images, healthy, masks = _twins(kind)
    np.testing.assert_array_equal(images[~masks], healthy[~masks])
    assert np.mean(np.abs(images - healthy)[masks] > 0.01) > 0.8


def test_a_mass_displaces_its_surroundings_but_not_what_is_far_away():
    images, healthy, masks = _twins("mass")
    change = np.abs(images - healthy)
    near = ndimage.binary_dilation(masks, np.ones((1, 3, 3)), iterations=4) & ~masks
    far = ~ndimage.binary_dilation(masks, np.ones((1, 3, 3)), iterations=24)
    assert change[near].mean() > 0.03
    assert change[far].mean() < 0.2 * change[near].mean()
    outline = (images > 0) != (healthy > 0)
    assert outline.mean() < 0.01


@pytest.mark.parametrize("modality", ["t2", "t1", "flair"])
def test_bright_and_dark_lesions_are_brighter_and_darker_than_what_they_replace(modality):
    for kind, sign in (("bright", 1), ("dark", -1)):
        images, healthy, masks = _twins(kind, n_samples=12, modality=modality)
        assert sign * (images[masks].mean() - healthy[masks].mean()) > 0.12


def test_a_texture_has_the_intensities_of_healthy_tissue():
    images, healthy, masks = _twins("texture", n_samples=12)
    assert abs(np.median(images[masks]) - np.median(healthy[masks])) < 0.05
    assert auroc(masks, images, where=images > 0) == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("modality", ["t2", "t1", "flair"])
def test_a_plain_intensity_threshold_does_not_solve_the_mixed_set(modality):
    images, masks = make_brain_phantom(60, size=SIZE, modality=modality, lesions=True, random_state=6)
    brain = images > 0
    for scores in (images, 1 - images):
        assert auroc(masks, scores, where=brain) < 0.75
        assert average_precision(masks, scores, where=brain) < 0.35


def test_kinds_are_planted_in_turn():
    pair, _ = make_brain_phantom(4, size=SIZE, lesions=["bright", "dark"], random_state=0)
    bright, _ = make_brain_phantom(4, size=SIZE, lesions="bright", random_state=0)
    dark, _ = make_brain_phantom(4, size=SIZE, lesions=("dark",), random_state=0)
    np.testing.assert_array_equal(pair[::2], bright[::2])
    np.testing.assert_array_equal(pair[1::2], dark[1::2])


def test_volumes_have_one_anatomy_and_lesions_across_slices():
    images, masks = make_brain_phantom(5, size=48, n_slices=24, lesions=True, random_state=0)
    assert images.shape == masks.shape == (5, 24, 48, 48)
    neighbours = np.abs(np.diff(images, axis=1)).mean()
    assert neighbours < np.abs(images[1:] - images[:-1]).mean()
    assert all(mask.any(axis=(1, 2)).sum() >= 2 for mask in masks)


def test_a_skull_surrounds_the_brain():
    bare, _ = make_brain_phantom(2, size=SIZE, random_state=0)
    headed, _ = make_brain_phantom(2, size=SIZE, skull=True, random_state=0)
    row = headed[0, SIZE // 2]
    skin = np.flatnonzero(row > 0.4)
    assert row[skin[0] : skin[0] + 6].min() < 0.2  # bone between scalp and brain
    assert np.all(np.mean(headed > 0, axis=(1, 2)) > 0.3)
    assert bare.shape == headed.shape


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"n_samples": 0}, "n_samples must be an integer of at least 1; got 0"),
        ({"n_samples": 1.5}, "n_samples"),
        ({"size": 31}, "at least 32 pixels; got 31"),
        ({"size": (64, 64, 64)}, "size must be"),
        ({"size": "big"}, "size must be"),
        ({"modality": "ct"}, "modality must be one of t2, t1, flair; got 'ct'"),
        ({"lesions": "tumor"}, "got 'tumor'"),
        ({"lesions": []}, "lesions must be"),
        ({"lesions": 3}, "lesions must be"),
        ({"n_slices": 0}, "n_slices"),
        ({"random_state": -1}, "random_state must not be negative"),
    ],
)
def test_wrong_arguments_are_named(arguments, fault):
    with pytest.raises(InputError, match=fault):
        make_brain_phantom(**{"n_samples": 1, "size": 32, **arguments})


def test_without_nilearn_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "nilearn", None)
    load_atlas.cache_clear()
    with pytest.raises(ImportError, match=r"pip install skmimood\[report\]") as caught:
        make_brain_phantom(1, size=128)
    assert isinstance(caught.value, SkmimoodError)


def test_written_volumes_hold_the_phantom_in_ras(tmp_path):
    dataset = write_phantom_dataset(tmp_path, n_healthy=1, n_lesions=2, size=48, n_slices=12, random_state=0)
    assert [path.relative_to(tmp_path).as_posix() for path in (*dataset.healthy, *dataset.scans)] == [
        "healthy/sub-001_T2.nii.gz",
        "patients/sub-101_T2.nii.gz",
        "patients/sub-102_T2.nii.gz",
    ]
    scan = nifti.read_scan(dataset.scans[0])
    lesion = nifti.read_labels(dataset.masks[0], scan)
    assert scan.shape == (48, 48, 12)
    assert np.all(np.diag(scan.affine)[:3] > 0)
    assert lesion.any()
    assert scan.data[lesion].min() > 0
    # The brain is longer from front to back than wide, and its middle is near the frame's middle.
    occupied = [np.ptp(np.flatnonzero((scan.data > 0).any(axis=other))) for other in ((1, 2), (0, 2))]
    assert occupied[1] > occupied[0]
    assert not scan.warnings


def test_rows_run_backwards_and_become_a_forward_axis_in_files(tmp_path):
    dataset = write_phantom_dataset(tmp_path, n_healthy=1, n_lesions=0, size=96, n_slices=12, random_state=0)
    scan = nifti.read_scan(dataset.healthy[0])
    # The lowest slices hold the cerebellum, which lies behind, and above it the temporal lobes' tips.
    occupied = np.argwhere(scan.data[:, :, 0] > 0) * scan.affine[1, 1] + scan.affine[1, 3]
    assert occupied[:, 1].mean() < -15


def test_brain_masks_leave_the_skull_out(tmp_path):
    dataset = write_layout(tmp_path, "ixi", n_healthy=1, n_lesions=0, size=64, n_slices=8)
    scan = nifti.read_scan(dataset.healthy[0])
    brain = nifti.read_labels(dataset.brain_masks[0], scan)
    head = scan.data > 0
    assert 0.3 < brain.sum() / head.sum() < 0.9
    middle = slice(32, 33), slice(None), slice(4, 5)
    assert np.flatnonzero(head[middle])[0] < np.flatnonzero(brain[middle])[0]


def test_the_same_seed_writes_the_same_files(tmp_path):
    folders = tmp_path / "a", tmp_path / "b"
    first, second = (
        write_phantom_dataset(folder, n_healthy=1, n_lesions=1, size=32, n_slices=4, random_state=9)
        for folder in folders
    )
    for one, other in zip(
        (*first.healthy, *first.scans, *first.masks),
        (*second.healthy, *second.scans, *second.masks),
        strict=True,
    ):
        assert one.read_bytes() == other.read_bytes()


def test_existing_files_are_never_replaced(tmp_path):
    options = {"n_healthy": 1, "n_lesions": 1, "size": 32, "n_slices": 4, "random_state": 0}
    (tmp_path / "patients").mkdir()
    (tmp_path / "patients" / "sub-101_seg.nii.gz").write_text("precious")
    with pytest.raises(ScanWriteError, match=r"sub-101_seg.nii.gz exists already"):
        write_phantom_dataset(tmp_path, **options)
    assert not (tmp_path / "healthy").exists()
    assert (tmp_path / "patients" / "sub-101_seg.nii.gz").read_text() == "precious"


def test_a_directory_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ScanWriteError, match="Cannot make the folder"):
        write_phantom_dataset(tmp_path / "file", n_healthy=1, n_lesions=0, size=32, n_slices=2)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"n_healthy": 0, "n_lesions": 0}, "There must be subjects"),
        ({"lesions": False}, "There must be subjects and lesions"),
        ({"n_lesions": -1}, "n_lesions must be an integer of at least 0"),
    ],
)
def test_wrong_arguments_write_nothing(tmp_path, arguments, fault):
    with pytest.raises(InputError, match=fault):
        write_phantom_dataset(tmp_path, **arguments)
    assert not list(tmp_path.iterdir())
