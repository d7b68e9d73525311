"""Whole scans: fit on a folder of healthy ones, anomaly maps on each scan's own grid.

Here belongs what happens between files and slices: which files are scans, masks and copies, whose they are, where the
head is, which are held out or flagged, and how maps of slices become a map, a score and p-values of a scan. Files are
read and written in ``nifti``, grids and intensities are in ``preprocessing``, networks know slices only, and what a job
of the command line prints, resumes and reports is in ``jobs``.
"""

from skmimood.scans.cohort import ScanStatus
from skmimood.scans.results import Gallery, ScanResult
from skmimood.scans.scan_detector import ScanDetector

__all__ = ["Gallery", "ScanDetector", "ScanResult", "ScanStatus"]
