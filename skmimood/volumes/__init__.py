"""Whole scans: fit on a folder of healthy ones, anomaly maps on each scan's own grid."""

from skmimood.volumes.cohort import ScanStatus
from skmimood.volumes.results import Gallery, ScanResult
from skmimood.volumes.scan_detector import ScanDetector

__all__ = ["Gallery", "ScanDetector", "ScanResult", "ScanStatus"]
