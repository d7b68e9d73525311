"""One model in several threads, and at many scans in a row."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
from golden import MODEL, scan
from toy_scans import head, save_model_of_toys

from skmimood.scans import ScanDetector

PAGE = os.sysconf("SC_PAGE_SIZE")


def test_eight_threads_that_share_a_model_draw_the_maps_of_one():
    scans = [scan(30 + k, lesions="bright").slicer[:, :, 2:6] for k in range(2)]
    expected = [ScanDetector.load(MODEL).detect_scan(each) for each in scans] * 4
    detector = ScanDetector.load(MODEL)  # whose networks are built by the threads that come first
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(detector.detect_scan, scans * 4))
    for result, alone in zip(results, expected, strict=True):
        assert (result.score, result.pvalue, result.flags) == (alone.score, alone.pvalue, alone.flags)
        for name in ("anomaly", "pvalues", "mask", "healed"):
            images = (getattr(each, name).get_fdata() for each in (result, alone))
            np.testing.assert_array_equal(*images)


def test_memory_stays_as_it_is_over_500_scans(tmp_path):
    detector = ScanDetector.load(save_model_of_toys(tmp_path)).set_params(mask="none")
    path = tmp_path / "small.nii.gz"
    nib.save(nib.Nifti1Image(head(shape=(12, 13, 3))[0], np.diag([5.0, 5, 13, 1])), path)
    used = [resident_bytes() for _ in detector.detect([path] * 500)]
    assert used[-1] - used[50] < 2**21


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
