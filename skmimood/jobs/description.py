"""What there is to know about a fitted detector, for people and for programs."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Collection, Iterator
from importlib.metadata import version
from platform import python_version
from typing import TYPE_CHECKING, Any

import numpy as np

import skmimood
from skmimood.exceptions import SkmimoodWarning
from skmimood.jobs.files import printable
from skmimood.scans.modalities import Modalities

if TYPE_CHECKING:
    from skmimood.scans import ScanDetector

_STATISTICS = {
    "cluster mass": "mass of what exceeds 99 % of the healthy pixels, in clusters",
    "top mean": "mean of the highest 1 % of the map",
}
_REFERENCES = (
    "[1] Naval Marimont S, Siomos V, Tarroni G. MIM-OOD: Generative Masked Image Modelling for Out-of-Distribution "
    "Detection in Medical Images. Deep Generative Models, DGM4MICCAI 2023. arXiv 2307.14701.",
    "[2] Vovk V, Gammerman A, Shafer G. Algorithmic Learning in a Random World. Springer 2005.",
    "[3] Angelopoulos AN, Bates S. Conformal Prediction: A Gentle Introduction. Foundations and Trends in Machine "
    "Learning 16(4), 2023. arXiv 2107.07511.",
)
_LAST_STEPS = 50  # of a training; their mean is the final loss


def describe(detector: ScanDetector) -> dict[str, Any]:
    """Return what there is to know about a fitted detector, as JSON values."""
    counts, reference = Counter(line.status for line in detector.fit_status_), detector.reference_
    return {
        "class": type(detector).__name__,
        "plane": detector.plane_,
        "size": list(detector.size_),
        "spacing_mm": detector.spacing_,
        "slice_smoothing_mm": detector.slice_smoothing_,
        "mask": detector.mask_,
        "modality": detector.modality,
        "n_training_scans": counts["used"],
        "n_calibration_scans": reference.n_scans,
        "n_left_out_scans": counts["skipped"] + counts["duplicate"],
        "n_training_slices": detector.n_slices_,
        "pixel_threshold": detector.pixel_threshold_,
        "pixel_false_positive_rate": reference.pixel_fpr(detector.pixel_threshold_),
        "scan_statistic": detector.scan_statistic_,
        "scan_threshold": detector.scan_threshold_,
        "scan_false_positive_rate": reference.scan_fpr(detector.scan_threshold_),
        "suspects": dict(detector.suspects_),
        "steps": {name: _describe_step(step) for name, step in detector.pipeline_.steps},
    }


def facts(detector: ScanDetector, *, set_by_hand: Collection[str] = ()) -> dict[str, str]:
    """Return what people want to know of a fitted detector; ``set_by_hand`` names thresholds, "pixel" or "scan"."""
    about, reference, (height, width) = describe(detector), detector.reference_, detector.size_
    n_parameters = sum(step["n_parameters"] for step in about["steps"].values())
    n_held_out = Counter(line.status for line in detector.fit_status_)["calibration"]
    different = " of different subjects" if n_held_out > reference.n_scans else ""
    told = {
        "Model": f"{about['class']}, {n_parameters:,} parameters",
        "Slices": f"{detector.plane_}, {height} x {width} pixels of {detector.spacing_:.3g} mm{_across(detector)}",
        "Foreground": _foreground(detector),
        **_modalities(detector),
        "Learned from": f"{about['n_training_scans']} healthy scans, {detector.n_slices_:,} slices",
        "Calibrated on": f"{counted(reference.n_scans, 'held-out healthy scan')}{different}",
        "Score of a scan": _STATISTICS[detector.scan_statistic_],
    }
    for what, asked in (("pixel", detector.fpr), ("scan", detector.scan_fpr)):
        told[f"{what.capitalize()} threshold"] = _threshold(detector, what, asked, what in set_by_hand)
    return told


def _across(detector: ScanDetector) -> str:
    """Say by how much maps are smoothed across slices."""
    smoothing = detector.slice_smoothing_
    return f", maps smoothed by {smoothing:.3g} mm across them" if smoothing else ""


def _foreground(detector: ScanDetector) -> str:
    """Say where foregrounds come from, and if they came from elsewhere in training."""
    from skmimood.scans.cohort import BRAIN_MASK, kind_of_foreground

    now, learned = kind_of_foreground(detector.mask), kind_of_foreground(detector.mask_)
    text = f"masks named {detector.mask}" if now == BRAIN_MASK else now
    return text if now == learned else f"{text}; {learned} in training"


def _modalities(detector: ScanDetector) -> dict[str, str]:
    """Say of how many modalities scans are, and which of them pictures show."""
    if detector.n_modalities_ == 1:
        return {}
    names = Modalities(detector.n_modalities_, detector.modality)
    called = ", ".join(names.name(place) for place in range(names.n))
    return {"Modalities": f"{called}; pictures show {names.name(0)}"}


def describe_lines(detector: ScanDetector) -> list[str]:
    """Return what ``skmimood info`` prints."""
    told = list(facts(detector).items())
    for name, step in describe(detector)["steps"].items():
        line = f"{step['class']}, {step['n_parameters']:,} parameters"
        if step["n_training_steps"]:
            line += f", {step['n_training_steps']:,} training steps, loss {step['final_loss']:.4g}"
        if step["validation_loss"] is not None:
            line += f", validation loss {step['validation_loss']:.4g}"
        if step["perplexity"] is not None:
            line += f", codebook perplexity {step['perplexity']:.1f} of {step['n_codes']} codes"
        told.append((name, line))
    told += [("stands out", f"{printable(scan)} ({reason})") for scan, reason in detector.suspects_.items()]
    return [f"{name + ':':<17} {text}" for name, text in told]


def versions() -> str:
    """Return the versions of what results are computed with."""
    others = [f"{name} {version(name)}" for name in ("torch", "numpy", "scikit-learn")]
    return ", ".join([f"skmimood {skmimood.__version__}", *others, f"Python {python_version()}"])


def methods(detector: ScanDetector, *, set_by_hand: Collection[str] = ()) -> list[str]:
    """Return what a paper would say of the results: a paragraph, and its references."""
    about, (height, width) = describe(detector), detector.size_
    steps = ", ".join(step["class"] for step in about["steps"].values())
    n_learned, n_held_out = (
        counted(number, "healthy scan")
        for number in (about["n_training_scans"], about["n_calibration_scans"])
    )
    smoothing = detector.slice_smoothing_
    across = f", averaged across slices by a Gaussian of {smoothing:.3g} mm," if smoothing else ""
    sentences = [
        f"Anomalies were mapped with skmimood {skmimood.__version__}, which implements MIM-OOD [1] and methods that it",
        f"is compared with. The model ({steps}) learned from {detector.n_slices_:,} {detector.plane_} slices, without",
        f"known lesions, of {n_learned}, on {height} x {width} pixels of {detector.spacing_:.3g} mm. Its maps{across}",
        "were brought back to the grid of each scan.",
        f"The score of a scan is the {_STATISTICS[detector.scan_statistic_]}.",
        f"Thresholds and p-values come from {n_held_out} that took no part in training, by split conformal prediction",
        "[2, 3]: the p-value of a scan or pixel is the share of healthy ones that score at least as high.",
        *_rates(detector, set_by_hand),
    ]
    return [" ".join(sentences), *_REFERENCES]


def _rates(detector: ScanDetector, set_by_hand: Collection[str]) -> Iterator[str]:
    """Say which shares of healthy pixels and scans exceed the finite thresholds."""
    for what in ("pixel", "scan"):
        threshold, by_hand = (
            getattr(detector, f"{what}_threshold_"),
            ", set by hand" if what in set_by_hand else "",
        )
        if threshold < math.inf:
            share = 100 * getattr(detector.reference_, f"{what}_fpr")(threshold)
            yield f"At most {share:.2g} % of healthy {what}s exceed the {what} threshold ({threshold:.4g}{by_hand})."


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


def counted(number: int, what: str) -> str:
    """Return a number of things as people say it."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def minutes(seconds: float) -> str:
    """Return a duration as people say it."""
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def _threshold(detector: ScanDetector, what: str, asked: float, is_set: bool) -> str:
    """Say what a threshold is, which share of healthy pixels or scans exceeds it, and why not the share asked for."""
    reference, value = detector.reference_, getattr(detector, f"{what}_threshold_")
    n_healthy = getattr(reference, f"n_{what}s")
    by_hand = "set by hand; " if is_set else ""
    if value == math.inf:
        least = f"{1 / (n_healthy + 1):.2g} is the lowest rate that {counted(n_healthy, f'healthy {what}')} can give"
        return f"infinite ({by_hand}nothing is called anomalous; {least})"
    fpr = getattr(reference, f"{what}_fpr")(value)
    rate = f"false-positive rate {fpr:.2g} among healthy {what}s"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkmimoodWarning)  # of an infinite threshold, which fit has reported
        is_as_asked = getattr(reference, f"{what}_threshold")(asked) == value
    if is_as_asked and not is_set and f"{fpr:.2g}" != f"{asked:.2g}":
        rate += f", the nearest to {asked:g} from below that {n_healthy:,} of them allow"
    return f"{value:.4g} ({by_hand}{rate})"
