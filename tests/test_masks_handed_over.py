"""Where foregrounds come from: masks beside the scans, masks handed over, and what the model learned from."""

import pickle
import warnings

import nibabel as nib
import numpy as np
import pytest
from toy_scans import RAS, image, make

from skmimood.exceptions import InputError, ScanReadError, SkmimoodWarning
from skmimood.nifti import write_image


def brain(shift=0):
    mask = np.zeros((30, 36, 20), np.uint8)
    mask[8:22, 10 + shift : 26 + shift, 5:15] = 1
    return nib.Nifti1Image(mask, RAS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder of scans with masks beside them."""
    folder = tmp_path_factory.mktemp("scans")
    for seed in range(5):
        write_image(image(seed), folder / f"s{seed}_T1.nii.gz")
        write_image(brain(), folder / f"s{seed}_brainmask.nii.gz")
    return folder


@pytest.fixture(scope="module")
def fitted(folder):
    return make(mask="brainmask", modality="T1").fit(folder)


@pytest.fixture
def detector(fitted):
    return pickle.loads(pickle.dumps(fitted))


def test_scans_in_memory_with_masks_are_worked_on_as_those_on_disk(folder, fitted):
    images, masks = [image(seed) for seed in range(5)], [brain() for _ in range(5)]
    detector = make().fit(images, brain_masks=masks)
    assert detector.mask_ == "given"
    assert detector.spacing_ == fitted.spacing_
    (expected,) = fitted.decision_function(folder / "s0_T1.nii.gz")
    for found in (
        detector.detect_scan(images[0], brain_mask=masks[0]).anomaly,
        detector.decision_function(images[:2], brain_masks=np.array(masks[:2], dtype=object))[0],
        fitted.detect_scan(images[0], brain_mask=folder / "s0_brainmask.nii.gz").anomaly,
        fitted.decision_function(images[0], brain_masks=masks[0])[0],
    ):
        np.testing.assert_allclose(found.get_fdata(), expected.get_fdata(), atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*looks unlike the training data")
def test_every_method_takes_brain_masks(fitted, folder):
    images, masks = [image(7), image(8, lesion=True)], [brain(), brain()]
    lesions = [None, nib.Nifti1Image((image(8, lesion=True).get_fdata() == 1000).astype(np.uint8), RAS)]
    results = list(fitted.detect(images, brain_masks=masks))
    assert all(np.all(result.anomaly.get_fdata()[brain().get_fdata() == 0] == 0) for result in results)
    scores = [result.score for result in results]
    np.testing.assert_array_equal(fitted.score_samples(images, brain_masks=masks), scores)
    np.testing.assert_array_equal(
        fitted.predict(images, brain_masks=masks)[1].get_fdata(), results[1].mask.get_fdata()
    )
    assert fitted.score(images, lesions, brain_masks=masks) > 0.5
    with pytest.warns(SkmimoodWarning, match="needs at least"):
        calibrated = (
            make(mask="brainmask").fit(folder).calibrate(images[:1], brain_masks=masks[:1], scan_fpr=0.1)
        )
    assert calibrated.reference_.n_scans == 1


def test_a_scan_without_a_mask_of_its_own_gets_that_beside_it(fitted, folder):
    paths = [folder / "s0_T1.nii.gz", folder / "s1_T1.nii.gz"]
    with pytest.warns(SkmimoodWarning):
        moved, plain = fitted.decision_function(paths, brain_masks=[brain(5), None])
    assert moved.get_fdata()[10:20, 26:31, 8:12].any()
    assert not plain.get_fdata()[10:20, 26:31, 8:12].any()


@pytest.mark.parametrize(
    ("masks", "says"),
    [
        ([None], r"brain_masks must have one brain mask for each of the 2 scans; got 1"),
        ("_brainmask", r"the parameter mask: set_params\(mask='_brainmask'\)"),
        (["nowhere.nii", None], "No such file"),
        ([np.ones((3, 3, 3)), None], r"paths or nibabel images; got ndarray. Wrap an array as"),
    ],
)
def test_wrong_brain_masks_are_clear_errors(fitted, masks, says):
    with pytest.raises(InputError, match=says):
        fitted.detect([image(0), image(1)], brain_masks=masks)


def test_a_scan_is_not_its_own_brain_mask(fitted):
    scan = image(0)
    with pytest.raises(InputError, match="given as its own brain mask"):
        fitted.detect([scan], brain_masks=[scan])


def test_a_missing_mask_tells_the_names_looked_for_and_what_can_be_done_without_a_refit(detector, tmp_path):
    write_image(image(9), tmp_path / "sub-1_T1.nii.gz")
    with pytest.raises(ScanReadError) as fault:
        detector.detect_scan(tmp_path / "sub-1_T1.nii.gz")
    for part in (
        "there is no sub-1_T1_brainmask or sub-1_brainmask or brainmask (.nii.gz or .nii)",
        "--mask-suffix",
        "hand it over as brain_mask",
        'set_params(mask="auto")',
        "no refit",
    ):
        assert part in str(fault.value)
    with pytest.raises(InputError, match=r"in memory has no file .* as brain_mask or brain_masks"):
        detector.detect_scan(image(9))
    detector.set_params(mask="auto")
    (flag,) = (
        flag for flag in detector.detect_scan(image(9)).flags if "skull" in flag and "training;" in flag
    )
    assert flag.startswith(
        "the foreground is found from the intensities here and was given by brain masks in training"
    )


def test_a_model_remembers_what_it_learned_from(fitted):
    arrays, values = fitted.__skmimood_state__()
    assert values["mask_"] == "brainmask"
    del values["mask_"]  # as in models of before
    other = make(mask="none")
    other.pipeline_ = fitted.pipeline_  # restored first, as a step of its own
    other.__skmimood_restore__(arrays, values)
    assert other.mask_ == "none"


def test_another_ending_of_the_same_kind_is_no_matter(detector, tmp_path):
    write_image(image(9), tmp_path / "a_T1.nii.gz")
    write_image(brain(), tmp_path / "a_bet.nii.gz")
    detector.set_params(mask="bet")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detector.decision_function(tmp_path / "a_T1.nii.gz")


def test_masks_that_are_not_asked_for_are_not_taken_for_scans(tmp_path):
    for seed in range(4):
        write_image(image(seed), tmp_path / f"s{seed}.nii.gz")
        write_image(brain(), tmp_path / f"s{seed}_bet2.nii.gz")
    detector = make(mask="bet2").fit(tmp_path).set_params(mask="auto")
    with pytest.warns(SkmimoodWarning, match="skull is off in both"):
        assert len(detector.score_samples(tmp_path)) == 4


def test_a_list_without_masks_hands_none_over():
    assert make().fit([image(seed) for seed in range(4)], brain_masks=[None] * 4).mask_ == "auto"
