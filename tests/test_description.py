import pytest
from toy_scans import image, make, write_healthy_scans

from skmimood.exceptions import SkmimoodWarning
from skmimood.jobs.description import describe_lines, facts
from skmimood.jobs.fitting import _say_summary


@pytest.fixture(scope="module")
def detector():
    """Return a detector with 4 scans for calibration."""
    return make(calibration_fraction=0.4, scan_fpr=0.35).fit([image(seed) for seed in range(10)])


def test_a_rate_that_was_not_asked_for_is_explained(detector):
    told = (
        "(false-positive rate 0.2 among healthy scans, the nearest to 0.35 from below that 4 of them allow)"
    )
    assert facts(detector)["Scan threshold"].endswith(told)
    assert any(line.endswith(told) for line in describe_lines(detector))


def test_a_rate_that_was_asked_for_or_set_by_hand_is_not_explained(detector):
    assert facts(make(scan_fpr=0.5).fit([image(seed) for seed in range(3)]))["Scan threshold"].endswith(
        "(false-positive rate 0.5 among healthy scans)"
    )
    by_hand = facts(detector, set_by_hand=["scan"])["Scan threshold"]
    assert by_hand.endswith("(set by hand; false-positive rate 0.2 among healthy scans)")


def test_a_threshold_from_elsewhere_is_not_measured_by_the_parameter():
    detector = make(calibration_fraction=0.4, scan_fpr=0.35).fit([image(seed) for seed in range(10)])
    detector.scan_threshold_ = detector.reference_.scan_threshold(0.65)
    assert facts(detector)["Scan threshold"].endswith("(false-positive rate 0.6 among healthy scans)")


def test_the_name_of_a_scan_that_is_left_out_cannot_steer_a_terminal(tmp_path):
    (write_healthy_scans(tmp_path) / "sub-9\x1b[31m_T1.nii.gz").write_bytes(b"not an image")
    lines = []
    with pytest.warns(SkmimoodWarning):
        detector = make(calibration_fraction=0.4).fit(tmp_path)
    _say_summary(detector, tmp_path / "model", 1.0, lines.append)
    assert any(line.startswith("  skipped sub-9\\x1b[31m_T1: ") for line in lines)
    assert "\x1b" not in "".join(lines)
