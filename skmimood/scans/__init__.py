"""Whole scans: fit on a folder of healthy ones, anomaly maps on each scan's own grid."""

from skmimood.scans.cohort import ScanStatus
from skmimood.scans.results import Gallery, ScanResult
from skmimood.scans.scan_detector import ScanDetector

__all__ = ["Gallery", "ScanDetector", "ScanResult", "ScanStatus"]
