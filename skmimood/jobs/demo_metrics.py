"""How well maps of artificial scans agree with the known lesions, beside a plain intensity threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skmimood.metrics import auroc, average_precision, best_dice
from skmimood.nifti import read_labels, read_scan, scan_id
from skmimood.scans.mapping import top_mean
from skmimood.scans.results import image_paths

if TYPE_CHECKING:
    from skmimood.datasets import PhantomDataset

METHODS = ("skmimood", "intensity")
"""What is compared: the anomaly map, and the scan's own intensity (the brighter, the more anomalous)."""

PIXELS = ("all", "brain")
"""Where they are compared: in whole volumes, as MIM-OOD was, and in the brain alone, which is harder."""

_ROWS = {
    "AUROC": ("auroc", ".3f"),
    "average precision (AP)": ("average_precision", ".3f"),
    "AP over the base rate": ("ap_ratio", ".1f"),
    "best Dice": ("best_dice", ".3f"),
}

# Of each pixel of a scan or of several: "lesion" and "brain", bool, and the score of each method, all (n_pixels,).
_Pixels = dict[str, np.ndarray]


def evaluate_phantoms(cohort: PhantomDataset, healthy: Sequence[Path], results: Path) -> dict[str, Any]:
    """Compare maps, and plain intensities, with the known lesions.

    ``results`` is the folder of the maps. Returned are the numbers of scans; for each of `PIXELS` their number and
    share of lesion, and the metrics of each of `METHODS` on them; AUROC by lesion (brain pixels) and of scans.
    """
    from skmimood.datasets import LESION_KINDS

    patients = [_read(*pair, results) for pair in zip(cohort.scans, cohort.masks, strict=True)]
    scans = [*patients, *(_read(path, None, results) for path in healthy)]
    brains = [_in_brain(scan) for scan in scans]
    found: dict[str, Any] = {"n_patients": len(patients), "n_healthy_scans": len(healthy)}
    for name, pixels in zip(PIXELS, (_pooled(patients), _pooled(brains[: len(patients)])), strict=True):
        lesion = pixels["lesion"]
        found[name] = {"n_pixels": lesion.size, "base_rate": float(lesion.mean())}
        found[name] |= {method: _metrics(lesion, pixels[method]) for method in METHODS}
    by_kind = {
        kind: _pooled(brains[first : len(patients) : len(LESION_KINDS)])
        for first, kind in enumerate(LESION_KINDS[: len(patients)])
    }
    found["auroc_by_lesion"] = {
        kind: {method: auroc(pixels["lesion"], pixels[method]) for method in METHODS}
        for kind, pixels in by_kind.items()
    }
    if healthy:
        is_patient = np.arange(len(scans)) < len(patients)
        found["scan_auroc"] = {
            method: auroc(is_patient, np.array([top_mean(brain[method]) for brain in brains]))
            for method in METHODS
        }
    return found


def metrics_table(metrics: Mapping[str, Any]) -> list[str]:
    """Return what `evaluate_phantoms` found as lines of text, one column a method."""
    lines = [_row(f"{metrics['n_patients']} scans with lesions", METHODS)]
    for name in PIXELS:
        found = metrics[name]
        lines.append(f"{name} {found['n_pixels']:,} pixels, {found['base_rate']:.2%} lesion")
        for title, (key, digits) in _ROWS.items():
            lines.append(_row(f"  {title}", [format(found[method][key], digits) for method in METHODS]))
    for kind, values in metrics["auroc_by_lesion"].items():
        lines.append(_row(f"  AUROC, {kind}", [f"{values[method]:.3f}" for method in METHODS]))
    if "scan_auroc" in metrics:
        lines.append(f"scans, {metrics['n_healthy_scans']} of them healthy")
        lines.append(_row("  AUROC", [f"{metrics['scan_auroc'][method]:.3f}" for method in METHODS]))
    lines.append(
        "Both columns are of the same pixels. Intensity is the scan itself: the brighter, the more anomalous."
    )
    return lines


def _row(name: str, values: Sequence[str]) -> str:
    return f"{name:<30}" + "".join(f"{value:>11}" for value in values)


def _read(path: Path, mask: Path | None, results: Path) -> _Pixels:
    """Read the pixels of a scan; which of them are brain does not depend on any method."""
    from scipy.ndimage import binary_fill_holes

    scan = read_scan(path)
    lesion = np.zeros(scan.data.shape, dtype=bool) if mask is None else read_labels(mask, scan)
    # The background of these scans is exactly 0, and so may be the core of a dark lesion.
    brain = lesion | np.stack([binary_fill_holes(plane) for plane in (scan.data > 0).T]).T
    anomaly = read_scan(image_paths(results, scan_id(path))[0]).data
    # Scans differ in gain: without scaling, pooled intensities would rank scans, not pixels.
    intensity = scan.data / float(np.percentile(scan.data[brain], 98))
    volumes = {"lesion": lesion, "brain": brain, "skmimood": anomaly, "intensity": intensity}
    return {name: volume.ravel() for name, volume in volumes.items()}


def _in_brain(pixels: _Pixels) -> _Pixels:
    return {name: values[pixels["brain"]] for name, values in pixels.items()}


def _pooled(scans: Sequence[_Pixels]) -> _Pixels:
    return {name: np.concatenate([scan[name] for scan in scans]) for name in scans[0]}


def _metrics(lesion: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
    precision = average_precision(lesion, scores)
    return {
        "auroc": auroc(lesion, scores),
        "average_precision": precision,
        "ap_ratio": precision / float(lesion.mean()),
        "best_dice": best_dice(lesion, scores),
    }
