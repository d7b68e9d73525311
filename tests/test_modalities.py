"""Scans of several modalities: files that belong together, grids, maps, and jobs over folders of them."""

import warnings

import nibabel as nib
import numpy as np
import pytest
from command_line import rows, run
from sklearn.pipeline import Pipeline
from toy_scans import RAS, MedianOfChannels, head, image, make, pair, second

from skmimood.exceptions import InputError, ScanReadError, SkmimoodWarning
from skmimood.nifti import write_image
from skmimood.scans import ScanDetector
from skmimood.scans.modalities import find_together

QUICK = ("--max-iter", 2, "--size", 16, "--scan-fpr", 0.5, "--device", "cpu")
WHOLE = ("--healed", "--viewer", "all", "--device", "cpu")


@pytest.fixture(scope="module")
def detector():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkmimoodWarning)  # few scans
        return make(pipeline=Pipeline([("restorer", MedianOfChannels())])).fit(
            [pair(seed) for seed in range(6)]
        )


def test_modalities_are_the_channels_of_slices_in_their_order(detector):
    seen = detector.pipeline_[-1].seen_
    assert seen.shape[1:] == (2, 24, 24)
    assert detector.n_modalities_ == 2
    inside = seen[:, :, 12, 12].mean(axis=0)
    assert inside[0] < inside[1]


def test_a_lesion_that_shows_in_the_second_modality_alone_is_found(detector):
    result = detector.detect_scan(pair(20, lesion=True))
    lesion = head(20, lesion=True)[1] > 0
    anomaly = result.anomaly.get_fdata()
    assert result.anomaly.shape == lesion.shape
    assert anomaly[lesion].mean() > 3 * anomaly[~lesion & (head(20)[0] > 0)].mean()
    assert result.score > detector.detect_scan(pair(20)).score
    assert result.gallery.images.ndim == 3


def test_each_modality_is_healed_in_its_own_intensities_and_written(detector, tmp_path):
    scan = pair(20, lesion=True)
    result = detector.detect_scan(scan)
    first, other = result.healed_modalities
    np.testing.assert_array_equal(first.get_fdata(), result.healed.get_fdata())
    lesion = head(20, lesion=True)[1] > 0
    assert other.get_fdata()[lesion].mean() > scan[1].get_fdata()[lesion].mean() + 200
    names = [path.name for path in result.save(tmp_path)]
    assert names[-2:] == ["scan-000_healed.nii.gz", "scan-000_healed2.nii.gz"]
    np.testing.assert_array_equal(nib.load(tmp_path / names[-1]).get_fdata(), other.get_fdata())


def test_the_foreground_is_what_any_modality_shows(detector):
    whole, cut = pair(20)
    data = cut.get_fdata().astype(np.float32)
    data[:12] = 0
    result = detector.detect_scan((whole, nib.Nifti1Image(data, RAS)))
    assert (result.anomaly.get_fdata()[:12] > 0).any()


def test_voxels_that_are_missing_in_one_modality_are_missing_in_the_map(detector):
    first, other = pair(20)
    data = other.get_fdata().astype(np.float32)
    data[15, 18, 10] = np.nan
    anomaly = detector.detect_scan((first, nib.Nifti1Image(data, RAS))).anomaly.get_fdata()
    assert np.isnan(anomaly[15, 18, 10])
    assert np.isnan(anomaly).sum() == 1


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (second(20, shape=(30, 36, 22)), "30 x 36 x 22 voxels and not the 30 x 36 x 20.*resample_to_img"),
        (second(20, affine=np.diag([2.1, 2, 2, 1])), "another affine than modality 1.*Register"),
    ],
)
def test_modalities_on_different_grids_are_refused_with_what_differs_and_what_to_do(detector, other, message):
    with pytest.raises(ScanReadError, match=message):
        detector.detect_scan((image(20), other))


@pytest.mark.parametrize("scan", [image(20), (image(20), second(20), second(20)), (image(20), None)])
def test_a_scan_with_another_number_of_modalities_is_refused(detector, scan):
    with pytest.raises(ScanReadError, match=r"model takes 2|has no modality 2"):
        detector.detect_scan(scan)


def write(folder, subject, *, lesion=False, without=(), other=second, names=("T1w", "FLAIR")):
    folder.mkdir(parents=True, exist_ok=True)
    for name, made in zip(names, (image(subject), other(subject, lesion)), strict=True):
        if name not in without:
            write_image(made, folder / f"sub-{subject}_{name}.nii.gz", overwrite=True)


def test_files_of_one_scan_are_found_together_by_folder_glob_or_one_of_them(tmp_path):
    for subject in (1, 2):
        write(tmp_path, subject)
    write(tmp_path, 3, without=["FLAIR"])
    write_image(image(1), tmp_path / "sub-1_T1w_seg.nii.gz")
    first = (tmp_path / "sub-1_T1w.nii.gz", tmp_path / "sub-1_FLAIR.nii.gz")
    found = find_together(tmp_path, ["T1w", "FLAIR"], ())
    assert [files[0].name[:5] for files in found] == ["sub-1", "sub-2", "sub-3"]
    assert found[0] == first
    assert found[2] == (tmp_path / "sub-3_T1w.nii.gz", None)
    assert find_together(first[1], ["T1w", "FLAIR"], ()) == [first]
    assert find_together(f"{tmp_path}/*_FLAIR.nii.gz", ["T1w", "FLAIR"], ()) == found[:2]
    with pytest.raises(InputError, match="'T2' or 'PD'"):
        find_together(tmp_path, ["T2", "PD"], ())
    write_image(image(1), tmp_path / "sub-1_T1w.nii")
    with pytest.raises(InputError, match="both be T1w of one scan"):
        find_together(tmp_path, ["T1w", "FLAIR"], ())


def test_fit_and_score_over_folders_leave_out_what_is_not_whole_and_go_on(tmp_path, capsys):
    healthy, patients, model, out = (tmp_path / name for name in ("healthy", "patients", "model", "out"))
    for subject in range(5):
        write(healthy / f"sub-{subject}" / "anat", subject)
    write(healthy, 5, without=["T1w"])
    assert run("fit", healthy, "-o", model, "--modality", "T1w,FLAIR", *QUICK) == 0
    assert "sub-5_FLAIR (has no T1w" in capsys.readouterr().err
    detector = ScanDetector.load(model)
    assert detector.pipeline_["tokenizer"].image_shape_ == (2, 16, 16)
    assert {line.id: line.status for line in detector.fit_status_}["sub-5_FLAIR"] == "skipped"
    assert detector.n_modalities_ == 2

    write(patients, 10, lesion=True)
    write(patients, 11, without=["FLAIR"])
    write(patients, 12, other=lambda seed, lesion: second(seed, shape=(30, 36, 22)))
    assert run("score", patients, "-m", model, "-o", out, *WHOLE) == 1
    table = rows(out)
    assert table["sub-10_T1w"]["status"] == "ok"
    assert "has no FLAIR" in table["sub-11_T1w"]["reason"]
    assert "FLAIR has 30 x 36 x 22 voxels" in table["sub-12_T1w"]["reason"]
    assert nib.load(out / "sub-10_T1w_healed2.nii.gz").shape == (30, 36, 20)
    assert "pictures show T1w" in " ".join((out / "report.html").read_text().split())
    assert "the first of 2 modalities" in (out / "sub-10_T1w.html").read_text()

    write(patients, 11)
    write_image(second(10), patients / "sub-10_FLAIR.nii.gz", overwrite=True)
    assert run("score", patients, "-m", model, "-o", out, *WHOLE, "--resume") == 1
    assert rows(out)["sub-11_T1w"]["status"] == "ok"
    assert "Scored again" in capsys.readouterr().err


def test_one_modality_named_of_a_model_of_two_is_a_fault_of_the_scan(tmp_path, detector):
    write(tmp_path, 1)
    detector = make(pipeline=detector.pipeline, modality="T1w,FLAIR").fit([pair(seed) for seed in range(4)])
    assert len(list(detector.detect(tmp_path))) == 1
    with pytest.raises(ScanReadError, match="has 1 modality, and the model takes 2"):
        list(detector.set_params(modality="T1w").detect(tmp_path))
