"""Scans of any format are mapped, and their results have it."""

import nibabel as nib
import numpy as np
import pytest
from command_line import rows, run
from dicom_series import UPRIGHT, write_series
from PIL import Image
from toy_scans import RAS, head, make, save_model_of_toys, write_healthy_scans

from skmimood.nifti import read_grid, read_scan, write_image


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return make(calibration_fraction=0.3).fit(write_healthy_scans(tmp_path_factory.mktemp("healthy")))


@pytest.mark.parametrize("extension", [".nii", ".mgz", ".nrrd", ".mha", ""])
def test_results_lie_on_the_grid_of_the_scan_and_have_its_format(detector, tmp_path, extension):
    data, mask = head(21, lesion=True)
    scan = tmp_path / f"p1_T1{extension}"
    if extension:
        write_image(nib.Nifti1Image(data, RAS), scan)
    else:
        write_series(scan, data.astype(np.int16), UPRIGHT)
    result = detector.detect_scan(scan)
    written = {"": ".nii.gz", ".nii": ".nii.gz"}.get(extension, extension)
    paths = result.save(tmp_path / "out")
    names = [f"p1_T1_{what}" for what in ("anomaly", "pvalue", "mask", "lesions", "lesions", "healed")]
    assert [path.name for path in paths] == [
        name + (".csv" if place == 4 else written) for place, name in enumerate(names)
    ]
    for path in (path for path in paths if path.suffix != ".csv"):
        assert read_grid(path).matches(read_grid(scan))
    np.testing.assert_array_equal(read_scan(paths[0]).data, result.anomaly.get_fdata().astype(np.float32))
    np.testing.assert_array_equal(read_scan(paths[3]).data > 0, read_scan(paths[2]).data > 0)
    assert result.anomaly.get_fdata()[mask > 0].mean() > 2 * result.anomaly.get_fdata()[mask == 0].mean()


def test_a_folder_of_series_and_one_of_pictures_are_scored_resumed_and_evaluated(tmp_path, capsys):
    model = save_model_of_toys(tmp_path)
    for name, seed in (("p1", 21), ("p2", 22)):
        data, mask = head(seed, lesion=True)
        write_series(tmp_path / "series" / name, data.astype(np.int16), UPRIGHT)
        for folder, voxels in (("pictures", data / 4), ("masks", 255 * mask)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(voxels[:, ::-1, 10].T.astype(np.uint8)).save(tmp_path / folder / f"{name}.png")
    for kind, ending in (("series", ".nii.gz"), ("pictures", ".tif")):
        command = ("score", tmp_path / kind, "-m", model, "-o", tmp_path / f"{kind}-out", "--viewer", "all")
        assert run(*command) == 0
        assert sorted(rows(tmp_path / f"{kind}-out")) == ["p1", "p2"]
        for name in (f"p1_anomaly{ending}", "p1.html", "report.html"):
            assert (tmp_path / f"{kind}-out" / name).is_file()
        capsys.readouterr()
        assert run(*command, "--resume") == 0
        assert "Finished before and kept: 2 scans" in capsys.readouterr().out
    assert run("evaluate", tmp_path / "pictures-out", tmp_path / "masks") == 0
    assert "2 scans with lesions" in capsys.readouterr().out
