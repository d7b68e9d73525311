import pickle
import warnings

import nibabel as nib
import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from toy_scans import RAS, MedianRestorer, Unchanged, head, image, make, write_healthy_scans

from skmimood.exceptions import InputError, ScanReadError, SkmimoodWarning
from skmimood.jobs.fitting import FitJob, healthy_sources
from skmimood.nifti import write_image
from skmimood.scans.cohort import Candidate
from skmimood.scans.domain import find_high_scores


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_healthy_scans(tmp_path_factory.mktemp("healthy scans"))


@pytest.fixture(scope="module")
def fitted(folder):
    return make(calibration_fraction=0.3).fit(folder)


@pytest.fixture
def detector(fitted):
    return pickle.loads(pickle.dumps(fitted))


def test_calibration_scans_are_not_learned_from(folder):
    detector = make(calibration_fraction=0.3).fit(folder)
    lines = {
        name: [line for line in detector.fit_status_ if line.status == name]
        for name in ("used", "calibration")
    }
    assert len(lines["used"]) == detector.n_scans_ == 4
    assert len(lines["calibration"]) == detector.reference_.n_scans == 2
    seen = detector.pipeline_[-1].seen_
    assert len(seen) == detector.n_slices_ == sum(line.n_slices for line in lines["used"])
    for line in detector.fit_status_:
        slices = detector.detect_scan(folder / f"{line.id}.nii.gz").gallery.images
        was_seen = {bool(np.all(seen == one, axis=(1, 2)).any()) for one in slices}
        assert was_seen == {line.status == "used"}


def test_the_pixel_size_is_learned_from_the_training_scans_only(folder):
    small = make(calibration_fraction=0.3).fit(folder)
    held_out = [line.id for line in small.fit_status_ if line.status == "calibration"]
    scans = [folder / f"sub-{seed}_T1.nii.gz" for seed in range(6)]
    for k, path in enumerate(scans):
        if path.name.startswith(held_out[0]):
            scans[k] = folder.parent / path.name
            write_image(image(77, radius=0.49), scans[k], overwrite=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkmimoodWarning)  # the large head stands out, and should
        assert make(calibration_fraction=0.3).fit(scans).spacing_ == small.spacing_


def test_the_same_seed_holds_out_the_same_scans_in_any_order(folder):
    paths = sorted(folder.iterdir())
    statuses = [
        {line.id: line.status for line in make(random_state=3).fit(order).fit_status_}
        for order in (paths, paths[::-1])
    ]
    assert statuses[0] == statuses[1]
    seeds = {str(make(random_state=seed).fit(paths).fit_status_) for seed in range(4)}
    assert len(seeds) > 1


def test_no_training_foreground_is_cropped():
    scans = [image(seed, radius=radius) for seed, radius in enumerate((0.3, 0.49, 0.35, 0.45))]
    detector = make(calibration_fraction=0.01).fit(scans)
    for slices in detector.pipeline_[-1].seen_:
        border = np.concatenate([slices[0], slices[-1], slices[:, 0], slices[:, -1]])
        assert border.max() < 0.2


def test_a_scan_that_stands_out_does_not_coarsen_the_others(folder):
    usual = make().fit(folder)
    odd = image(77, np.diag([4.0, 4.0, 2.0, 1.0]))  # as if the foreground had not been found
    with pytest.warns(SkmimoodWarning, match="stand out: scan-006"):
        detector = make().fit([folder, odd])
    assert detector.spacing_ == pytest.approx(usual.spacing_, rel=0.05)
    assert any("larger than the frame" in flag for flag in detector.detect_scan(odd).flags)


def test_enough_scans_are_held_out_for_the_scan_threshold_if_half_remain(tmp_path):
    scans = [image(seed) for seed in range(10)]
    detector = make(scan_fpr=0.2, calibration_fraction=0.1).fit(scans)
    assert detector.reference_.n_scans == 4
    assert np.isfinite(detector.scan_threshold_)
    with pytest.warns(SkmimoodWarning, match="at least 4 healthy scans"):
        assert make(scan_fpr=0.2, calibration_fraction=0.1).fit(scans[:7]).reference_.n_scans == 1


def test_bad_input_30_scans_in_a_space_of_another_size_among_native_ones_are_named(folder):
    in_template = [image(seed, np.diag([2.4, 2.4, 2.4, 1.0])) for seed in (70, 71)]
    with pytest.warns(SkmimoodWarning, match=r"2 of the healthy scans stand out: .*its height in a slice"):
        detector = make().fit([folder, *in_template])
    assert list(detector.suspects_) == ["scan-006", "scan-007"]


@pytest.mark.parametrize(("plane", "flip"), [("axial", True), ("sagittal", False)])
def test_sagittal_slices_are_not_mirrored_for_training(folder, plane, flip):
    class Flipping(Unchanged):
        def __init__(self, flip=True):
            self.flip = flip

    pipeline = Pipeline([("first", Flipping()), ("restorer", MedianRestorer())])
    detector = make(plane=plane, pipeline=pipeline).fit(folder)
    assert detector.pipeline_["first"].flip is flip
    assert pipeline["first"].flip


def test_a_given_pixel_size_that_crops_is_warned_about(folder):
    with pytest.warns(SkmimoodWarning, match="crop the foreground of sub-"):
        detector = make(spacing=1.0).fit(folder)
    assert detector.spacing_ == 1.0


def test_slices_with_little_foreground_are_not_learned_from(folder):
    few = make(plane="coronal", min_foreground=0.5).fit(folder)
    many = make(plane="coronal", min_foreground=0.0).fit(folder)
    assert 0 < few.n_slices_ < many.n_slices_
    with pytest.raises(InputError, match="Lower min_foreground"):
        make(min_foreground=0.999).fit(folder)


def test_at_most_max_slices_are_learned_from_and_the_draw_is_seeded(folder):
    first, second = (make(max_slices=10).fit(folder) for _ in range(2))
    assert first.n_slices_ == len(first.pipeline_[-1].seen_) == 10
    np.testing.assert_array_equal(first.pipeline_[-1].seen_, second.pipeline_[-1].seen_)


def test_a_brain_mask_beside_the_scans_strips_the_skull(tmp_path):
    for seed in range(4):
        data, _ = head(seed)
        write_image(nib.Nifti1Image(data, RAS), tmp_path / f"s{seed}_T1.nii.gz")
        brain = np.zeros(data.shape, np.uint8)
        brain[8:22, 10:26, 5:15] = 1
        write_image(nib.Nifti1Image(brain, RAS), tmp_path / f"s{seed}_brainmask.nii.gz")
    detector = make(mask="_brainmask").fit(tmp_path)
    anomaly = detector.decision_function(tmp_path / "s0_T1.nii.gz")[0].get_fdata()
    assert np.all(anomaly[brain == 0] == 0)
    assert np.any(anomaly[brain > 0] > 0)
    assert len(detector.decision_function(tmp_path)) == 4  # the masks are not taken for scans
    (tmp_path / "s0_brainmask.nii.gz").unlink()
    with pytest.raises(ScanReadError, match='no mask named "_brainmask"'):
        detector.detect_scan(tmp_path / "s0_T1.nii.gz")
    with pytest.raises(InputError, match="in memory"):
        detector.detect_scan(image(0))


def test_without_a_mask_every_voxel_counts():
    rng = np.random.default_rng(0)
    scans = [nib.Nifti1Image(rng.random((16, 16, 8), np.float32) + 1, RAS) for _ in range(4)]
    anomaly = make(mask="none", size=16).fit(scans).decision_function(scans[0])[0].get_fdata()
    assert np.mean(anomaly > 0) > 0.95


def test_bad_input_33_scans_that_cannot_be_used_are_skipped_warned_about_and_listed(folder, tmp_path):
    constant, zero = tmp_path / "constant.nii.gz", tmp_path / "zero.nii.gz"
    write_image(nib.Nifti1Image(np.full((20, 20, 20), 7, np.float32), RAS), constant)
    write_image(nib.Nifti1Image(np.zeros((20, 20, 20), np.float32), RAS), zero)
    text = tmp_path / "text.nii.gz"
    text.write_text("not a scan")
    copy = tmp_path / "copy.nii.gz"
    copy.write_bytes((folder / "sub-0_T1.nii.gz").read_bytes())
    with pytest.warns(SkmimoodWarning, match=r"constant \(empty"):
        detector = make().fit([folder, constant, zero, text, copy])
    status = {line.id: line for line in detector.fit_status_}
    assert len(detector.fit_status_) == 10
    assert {status[name].status for name in ("constant", "zero", "text")} == {"skipped"}
    assert status["zero"].reason.startswith("empty")
    assert status["copy"].status == "duplicate"
    assert "sub-0_T1" in status["copy"].reason
    assert status["sub-1_T1"].shape == (30, 36, 20)
    assert status["sub-1_T1"].spacing == (2.0, 2.0, 2.0)
    assert detector.n_scans_ + detector.reference_.n_scans == 6


@pytest.mark.parametrize("n_scans", [1, 2])
def test_bad_input_42_too_few_scans_are_refused_with_the_number_needed(n_scans):
    with pytest.raises(InputError, match=rf"at least 3 different usable scans.*got {n_scans} of {n_scans}"):
        make().fit([image(seed) for seed in range(n_scans)])


def test_bad_input_43_copies_do_not_count_as_scans():
    with (
        pytest.warns(SkmimoodWarning, match="same voxels as scan-000"),
        pytest.raises(InputError, match="got 1 of 3"),
    ):
        make().fit([image(0)] * 3)


def test_no_scans_at_all_are_refused(tmp_path):
    with pytest.raises(InputError):
        make().fit(tmp_path)
    with pytest.raises(InputError):
        make().fit([])


def test_a_failed_fit_leaves_no_half_of_the_last_one(detector):
    with pytest.raises(InputError):
        detector.fit([image(0)])
    with pytest.raises(NotFittedError):
        detector.detect_scan(image(0))


@pytest.mark.parametrize("value", [0.0, 5.0])
def test_bad_input_33_an_empty_scan_to_be_scored_is_an_error(detector, value):
    with pytest.raises(ScanReadError, match="empty"):
        detector.detect_scan(nib.Nifti1Image(np.full((20, 20, 20), value, np.float32), RAS))


def test_bad_input_18_a_scan_that_vanishes_during_fit_is_skipped(folder, tmp_path, monkeypatch):
    def vanish(candidate, reader):
        if candidate.id == "sub-2_T1":
            raise ScanReadError("sub-2_T1.nii.gz", "is gone")
        return read(candidate, reader)

    read = Candidate.read
    monkeypatch.setattr(Candidate, "read", vanish)
    with pytest.warns(SkmimoodWarning, match="is gone"):
        detector = make(random_state=1).fit(folder)
    assert {line.id: line.status for line in detector.fit_status_}["sub-2_T1"] == "skipped"


@pytest.mark.parametrize(
    "call", ["detect_scan", "detect", "decision_function", "predict", "score_samples", "calibrate", "save"]
)
def test_bad_input_44_use_before_fit_is_refused(call):
    with pytest.raises(NotFittedError):
        getattr(make(), call)(image(0))
    with pytest.raises(NotFittedError):
        make().score(image(0), image(0))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("fpr", value) for value in (0, 1, -1, "a", None)],
        *[("scan_fpr", value) for value in (0.0, 2)],
        *[("calibration_fraction", value) for value in (0, 1.0)],
        *[("plane", value) for value in ("oblique", None)],
        *[("spacing", value) for value in (0, -1, "1", np.inf)],
        *[("size", value) for value in (4, 32.5, (32, 4), (1, 2, 3), "128")],
        *[("mask", value) for value in ("", None)],
        *[("min_foreground", value) for value in (-0.1, 1)],
        *[("max_slices", value) for value in (0, 2.5)],
        *[("volume", value) for value in (-1, 0.5, "1")],
        ("pipeline", "tiny"),
        ("pipeline", Pipeline([("first", Unchanged())])),
    ],
)
def test_a_wrong_parameter_is_named_before_any_scan_is_read(name, value):
    with pytest.raises(InputError, match=rf"{name} must be"):
        make().set_params(**{name: value}).fit("no such folder")


def test_all_wrong_parameters_are_named_at_once():
    with pytest.raises(InputError, match=r"plane must.*; fpr must"):
        make(fpr=2, plane="x").fit([])


def test_bad_input_37_a_scan_of_another_contrast_is_flagged_and_a_healthy_one_is_not(detector):
    assert detector.detect_scan(image(30)).flags == ()
    data, _ = head(31)
    inverted = np.where(data > 0, 1000 - data, 0).astype(np.float32)
    (flag,) = detector.detect_scan(nib.Nifti1Image(inverted, RAS)).flags
    assert "unlike the training data" in flag
    assert "thresholds may not hold for it; for another scanner, calibrate" in flag
    with pytest.warns(SkmimoodWarning, match="unlike the training data"):
        detector.decision_function(nib.Nifti1Image(inverted, RAS))


def test_a_foreground_much_larger_or_smaller_than_in_training_is_flagged(detector):
    larger = detector.detect_scan(image(32, np.diag([2.6, 2.6, 2.6, 1]))).flags
    assert any("foreground of" in flag and "ml" in flag for flag in larger)
    assert any("larger than the frame" in flag for flag in larger)
    data, _ = head(33)
    data[:15] = 0
    assert any("ml" in flag for flag in detector.detect_scan(nib.Nifti1Image(data, RAS)).flags)


def test_bad_input_43_a_scan_that_stands_out_of_the_healthy_set_is_named(folder):
    data, _ = head(40)
    odd = nib.Nifti1Image(np.where(data > 0, 1000 - data, 0).astype(np.float32), RAS)
    with pytest.warns(SkmimoodWarning, match="scan-006"):
        detector = make().fit([folder, odd])
    assert list(detector.suspects_) == ["scan-006"]
    assert "intensities" in detector.suspects_["scan-006"]


def test_bad_input_25_thick_slices_are_remarked_on(detector):
    thick = image(3, np.diag([2.0, 2.0, 12.0, 1.0]), shape=(30, 36, 8))
    assert any("anisotropic" in flag for flag in detector.detect_scan(thick).flags)


def test_a_held_out_scan_with_an_outstanding_score_is_named():
    scores = {f"scan-{k}": 0.1 + 0.001 * k for k in range(8)}
    assert find_high_scores(scores) == {}
    assert list(find_high_scores(scores | {"odd": 0.4})) == ["odd"]
    assert find_high_scores({"a": 0.1, "b": 0.9}) == {}  # too few to tell


def test_a_held_out_scan_that_is_full_of_lesions_or_vanishes_is_left_out(folder, monkeypatch):
    names = [
        line.id
        for line in make(calibration_fraction=0.5).fit(folder).fit_status_
        if line.status == "calibration"
    ]
    everywhere = nib.Nifti1Image(np.ones(head()[0].shape, np.uint8), RAS)
    masks = [everywhere if f"sub-{seed}_T1" == names[0] else None for seed in range(6)]
    read = Candidate.read

    def vanish_late(candidate, reader):
        if candidate.id == names[1]:
            raise ScanReadError(candidate.id, "is gone")
        return read(candidate, reader)

    monkeypatch.setattr(Candidate, "read", vanish_late)
    everywhere_is_told = pytest.warns(
        SkmimoodWarning, match="lesion mask is set in the corners .* or everywhere"
    )
    with everywhere_is_told, pytest.warns(SkmimoodWarning, match="every slice holds a lesion"):
        detector = make(calibration_fraction=0.5).fit(folder, masks)
    status = {line.id: line for line in detector.fit_status_}
    assert status[names[0]].reason == "every slice holds a lesion"
    assert status[names[1]].reason == "is gone"
    assert detector.reference_.n_scans == 1


def test_bad_input_34_an_empty_brain_mask_is_an_empty_scan(tmp_path):
    for seed in range(4):
        write_image(image(seed), tmp_path / f"s{seed}_T1.nii.gz")
        brain = ((head(seed)[0] > 0) & (seed != 2)).astype(np.uint8)
        write_image(nib.Nifti1Image(brain, RAS), tmp_path / f"s{seed}_mask.nii.gz")
    with pytest.warns(SkmimoodWarning, match=r"s2_T1 \(empty: no foreground"):
        make(mask="_mask").fit(tmp_path)


def test_one_volume_of_4d_scans_can_be_chosen():
    scans = [nib.Nifti1Image(np.stack([head(k)[0], head(k + 10)[0]], axis=-1), RAS) for k in range(4)]
    with pytest.warns(SkmimoodWarning), pytest.raises(InputError, match="got 0 of 4"):
        make().fit(scans)
    assert make(volume=1).fit(scans).n_scans_ == 3


def test_oddities_of_the_files_are_warned_about_once_with_the_scans_named():
    thick = [image(k, np.diag([2.0, 2.0, 12.0, 1.0])) for k in range(3)]
    with pytest.warns(SkmimoodWarning, match="anisotropic.*scan-000, scan-001, scan-002") as caught:
        make().fit(thick)
    assert len(caught) == 1


def test_label_images_that_a_shell_names_one_by_one_are_not_learned_from(tmp_path):
    scans, groups = [], []
    for seed in range(4):
        for ending in ("", "_seg", "_brainmask"):
            scans.append(tmp_path / f"s{seed}_T1{ending}.nii.gz")
            write_image(image(3 * seed + len(ending)), scans[-1])
            groups.append(seed)
    lesions = [None] * len(scans)
    for modality in (None, "T1"):
        with pytest.warns(
            SkmimoodWarning, match=r"Left out.*s0_T1_seg, s0_T1_brainmask, .*and 3 more.*rename"
        ):
            detector = make(modality=modality).fit(scans, lesions, np.array(groups))
        assert [(line.id, line.group) for line in detector.fit_status_] == [
            (f"s{k}_T1", f"{k}") for k in range(4)
        ]
    with pytest.warns(SkmimoodWarning, match="Left out"):
        assert healthy_sources(scans, FitJob(lesions="_seg")) == scans[::3]
    with pytest.warns(SkmimoodWarning, match="Left out"):
        detector.calibrate(scans[:3], groups=["new"] * 3, scan_fpr=0.5)
    assert detector.reference_.n_scans == 1
    with pytest.warns(SkmimoodWarning, match="Taken for scans, though all are named like label images"):
        detector = make().fit(scans[1::3])
    assert detector.fit_status_[0].id == "s0_T1_seg"
    assert len(make(modality="seg").fit([scans[0], *scans[1::3]]).fit_status_) == 5
