import json

import nibabel as nib
import numpy as np
import pytest
from golden import FOLDER
from rounding import assert_same

from skmimood import ScanDetector

VERSIONS = sorted(path.name for path in FOLDER.iterdir())


@pytest.mark.numerics
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["healthy", "lesion"])
def test_a_model_of_an_earlier_version_opens_and_finds_what_it_found_then(version, name):
    folder = FOLDER / version
    detector = ScanDetector.load(folder / "model")
    now = detector.detect_scan(folder / f"{name}.nii.gz")
    then = nib.load(folder / f"{name}_anomaly.nii.gz")
    assert np.array_equal(now.anomaly.affine, then.affine)
    assert then.get_fdata().max() > 0
    assert_same(now.anomaly.get_fdata(), then.get_fdata())
    if version != "format-1":  # whose scores are not kept
        pvalues = nib.load(folder / f"{name}_pvalue.nii.gz").get_fdata()
        assert np.abs(now.pvalues.get_fdata() - pvalues).max() < 0.01  # ranks: rounding may swap two
        scores = json.loads((folder / f"{name}.json").read_text())
        assert scores == pytest.approx({"score": now.score, "pvalue": now.pvalue}, rel=1e-3)
