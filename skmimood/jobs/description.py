"""What there is to know about a fitted detector, for people and for programs."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from skmimood.exceptions import SkmimoodWarning
from skmimood.jobs.outputs import printable

if TYPE_CHECKING:
    from skmimood.scans import ScanDetector

_LAST_STEPS = 50  # of a training; their mean is the final loss


def describe(detector: ScanDetector) -> dict[str, Any]:
    """Return what there is to know about a fitted detector, as JSON values; None is an infinite threshold."""
    counts, reference = Counter(line.status for line in detector.fit_status_), detector.reference_
    return {
        "class": type(detector).__name__,
        "plane": detector.plane_,
        "size": list(detector.size_),
        "spacing_mm": detector.spacing_,
        "mask": detector.mask_,
        "modality": detector.modality,
        "n_training_scans": counts["used"],
        "n_calibration_scans": reference.n_scans,
        "n_left_out_scans": counts["skipped"] + counts["duplicate"],
        "n_training_slices": detector.n_slices_,
        "pixel_threshold": _finite(detector.pixel_threshold_),
        "pixel_false_positive_rate": reference.pixel_fpr(detector.pixel_threshold_),
        "scan_threshold": _finite(detector.scan_threshold_),
        "scan_false_positive_rate": reference.scan_fpr(detector.scan_threshold_),
        "suspects": dict(detector.suspects_),
        "steps": {name: _describe_step(step) for name, step in detector.pipeline_.steps},
    }


def _calibration_set(detector: ScanDetector) -> str:
    n_scans, n_scores = (
        Counter(line.status for line in detector.fit_status_)["calibration"],
        detector.reference_.n_scans,
    )
    different = " of different subjects" if n_scans > n_scores else ""
    return f"{n_scores} held-out healthy scans{different}"


def facts(
    detector: ScanDetector, *, are_thresholds_set: tuple[bool, bool] = (False, False)
) -> dict[str, str]:
    """Return what there is to know about a fitted detector, as a few lines for people.

    Parameters
    ----------
    detector : ScanDetector
    are_thresholds_set : (bool, bool), default=(False, False)
        Whether the pixel and the scan threshold were set by hand and not calibrated.
    """
    about = describe(detector)
    height, width = detector.size_
    is_pixel_set, is_scan_set = are_thresholds_set
    reference = detector.reference_
    pixel = detector.pixel_threshold_, about["pixel_false_positive_rate"]
    scan = detector.scan_threshold_, about["scan_false_positive_rate"]
    pixel_rate = None if is_pixel_set else _asked(detector.fpr, reference.pixel_threshold, pixel[0])
    scan_rate = None if is_scan_set else _asked(detector.scan_fpr, reference.scan_threshold, scan[0])
    n_parameters = sum(step["n_parameters"] for step in about["steps"].values())
    return {
        "Model": f"{about['class']}, {n_parameters:,} parameters",
        "Slices": f"{detector.plane_}, {height} x {width} pixels of {detector.spacing_:.3g} mm",
        "Foreground": _foreground(detector),
        "Learned from": f"{about['n_training_scans']} healthy scans, {detector.n_slices_:,} slices",
        "Calibrated on": _calibration_set(detector),
        "Pixel threshold": _threshold(*pixel, pixel_rate, reference.n_pixels, "pixels", is_pixel_set),
        "Scan threshold": _threshold(*scan, scan_rate, reference.n_scans, "scans", is_scan_set),
    }


def _foreground(detector: ScanDetector) -> str:
    """Say where foregrounds come from, and if they came from elsewhere in training."""
    from skmimood.scans.cohort import BRAIN_MASK, kind_of_foreground

    now, learned = kind_of_foreground(detector.mask), kind_of_foreground(detector.mask_)
    text = f"masks named {detector.mask}" if now == BRAIN_MASK else now
    return text if now == learned else f"{text}; {learned} in training"


def describe_lines(detector: ScanDetector) -> list[str]:
    """Return what ``skmimood info`` prints."""
    lines = [f"{name + ':':<17} {value}" for name, value in facts(detector).items()]
    for name, step in describe(detector)["steps"].items():
        line = f"{name + ':':<17} {step['class']}, {step['n_parameters']:,} parameters"
        if step["n_training_steps"]:
            line += f", {step['n_training_steps']:,} training steps, loss {step['final_loss']:.4g}"
        if step["validation_loss"] is not None:
            line += f", validation loss {step['validation_loss']:.4g}"
        if step["perplexity"] is not None:
            line += f", codebook perplexity {step['perplexity']:.1f} of {step['n_codes']} codes"
        lines.append(line)
    lines += [
        f"{'stands out:':<17} {printable(scan)} ({reason})" for scan, reason in detector.suspects_.items()
    ]
    return lines


def _describe_step(step: Any) -> dict[str, Any]:
    history = getattr(step, "history_", {})
    losses, validation = (np.asarray(history.get(key, ())) for key in ("loss", "validation_loss"))
    perplexity = getattr(step, "perplexity_", None)
    return {
        "class": type(step).__name__,
        "n_parameters": int(sum(array.size for array in getattr(step, "state_", {}).values())),
        "n_training_steps": int(getattr(step, "n_iter_", 0)),
        "final_loss": float(losses[-_LAST_STEPS:].mean()) if losses.size else None,
        "validation_loss": float(validation.min()) if validation.size else None,
        "perplexity": None if perplexity is None else float(perplexity),
        "n_codes": getattr(step, "n_codes_", None),
    }


def minutes(seconds: float) -> str:
    """Return a duration as people say it."""
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _asked(fpr: float, threshold_at: Callable[[float], float], value: float) -> float | None:
    """Return the rate that a threshold was asked for, None if it comes from elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkmimoodWarning)  # of an infinite threshold, which fit has told of
        return fpr if threshold_at(fpr) == value else None


def _threshold(value: float, fpr: float, asked: float | None, n_healthy: int, what: str, is_set: bool) -> str:
    """Say what a threshold is, which share of healthy pixels or scans exceeds it, and why not the share asked for."""
    by_hand = "set by hand; " if is_set else ""
    if value == math.inf:
        least = f"{n_healthy} healthy {what} allow for rates of at least {1 / (n_healthy + 1):.2g}"
        return f"infinite ({by_hand}nothing is called anomalous; {least})"
    rate = f"false-positive rate {fpr:.2g} among healthy {what}"
    if asked is not None and f"{fpr:.2g}" != f"{asked:.2g}":
        rate += f", the nearest to {asked:g} from below that {n_healthy:,} of them allow"
    return f"{value:.4g} ({by_hand}{rate})"
