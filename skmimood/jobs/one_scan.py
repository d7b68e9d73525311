"""One scan of a scoring job: claimed, so that no two jobs do it, compared with what is recorded, scored, written."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from skmimood.exceptions import ScanReadError, SkmimoodError
from skmimood.jobs.digests import digest_of
from skmimood.jobs.locks import claimed
from skmimood.jobs.outcomes import ScanOutcome, StatusTable
from skmimood.jobs.report import save_gallery
from skmimood.jobs.results_folder import discard, mark_of, pictures_of
from skmimood.nifti import write_image
from skmimood.scans.results import image_paths

if TYPE_CHECKING:
    from skmimood.scans import ScanDetector

_TAKEN = (
    "another job has scored another file of this name into this folder, and its results are kept. Score this one into "
    "another folder, or with --resume once that job has ended."
)


class NamedScan(NamedTuple):
    """A scan on disk, what it is called beside the others of its job, and the digest last scored under that name."""

    id: str
    path: Path
    seen: str = ""


def attempt(
    detector: ScanDetector, scan: NamedScan, table: StatusTable, healed: bool, *, wait: bool
) -> ScanOutcome:
    """Score a scan and record it, unless another job of the folder is at it or has done it."""
    with claimed(mark_of(table.folder, scan.id), wait=wait) as is_ours:
        if not is_ours:
            return ScanOutcome(scan.id, "busy")
        table.refresh()
        digest, recorded = digest_of(scan.path, detector.mask), table.outcome(scan.id)
        if recorded is not None and recorded.digest:
            if recorded.digest == digest and table.is_finished(scan.id, healed=healed):
                return replace(recorded, status="kept")
            if recorded.digest not in (digest, scan.seen):
                return ScanOutcome(scan.id, "taken", reason=_TAKEN)
        outcome = replace(_score(detector, scan, table.folder, healed), digest=digest)
        table.record(outcome)
        return outcome


def try_out(detector: ScanDetector, scan: NamedScan) -> ScanOutcome:
    """Map a scan and write nothing."""
    try:
        detector.detect_scan(scan.path)
    except Exception as error:
        return ScanOutcome(scan.id, "failed", reason=_reason(error))
    return ScanOutcome(scan.id, "ok")


def _score(detector: ScanDetector, scan: NamedScan, folder: Path, healed: bool) -> ScanOutcome:
    """Score a scan and write its results; whatever is wrong with it becomes its outcome."""
    started = time.monotonic()
    try:
        result = detector.detect_scan(scan.path)
        images = (result.anomaly, result.pvalues, result.mask, result.healed if healed else None)
        for image, path in zip(images, image_paths(folder, scan.id), strict=True):
            if image is None:
                path.unlink(missing_ok=True)  # it would not belong to the others
            else:
                write_image(image, path, overwrite=True)  # what must not be replaced was found before
        save_gallery(pictures_of(folder, scan.id), result.gallery)
    except BaseException as error:
        discard(folder, scan.id)
        if not isinstance(error, Exception):  # interrupted
            raise
        outcome = ScanOutcome(scan.id, "failed", reason=_reason(error))
    else:
        is_anomalous = None if detector.scan_threshold_ == math.inf else result.is_anomalous
        outcome = ScanOutcome(scan.id, "ok", result.score, result.pvalue, is_anomalous, flags=result.flags)
    return replace(outcome, seconds=round(time.monotonic() - started, 3))


def _reason(error: Exception) -> str:
    """Say why a scan failed; a fault in one scan must not cost the others."""
    if isinstance(error, ScanReadError):
        return error.reason
    if isinstance(error, SkmimoodError):
        return str(error)
    if isinstance(error, MemoryError):
        return "the computer ran out of memory. Close other programs, or resample the scan to fewer voxels."
    # Its text might hold anything, the paths of this computer for instance.
    return f"unexpected {type(error).__name__}, a fault in the program. Please report it."
