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
def test_a_model_of_an_earlier_version_opens_and_draws_the_maps_of_then(version, name):
    folder = FOLDER / version
    detector = ScanDetector.load(folder / "model")
    now = detector.detect_scan(folder / f"{name}.nii.gz").anomaly
    then = nib.load(folder / f"{name}_anomaly.nii.gz")
    assert np.array_equal(now.affine, then.affine)
    assert then.get_fdata().max() > 0
    assert_same(now.get_fdata(), then.get_fdata())
