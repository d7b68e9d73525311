"""How well maps of artificial scans agree with the known lesions, beside a plain intensity threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skmimood.jobs.outcomes import StatusTable
from skmimood.nifti import read_labels, read_scan, scan_id
from skmimood.scans.mapping import top_mean

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


@dataclass(frozen=True, eq=False)
class _Pixels:
    """Pixels of one or several scans: truth, brain, and the scores of each method, all (n_pixels,)."""

    lesion: np.ndarray
    is_brain: np.ndarray
    scores: dict[str, np.ndarray]

    @classmethod
    def pooled(cls, scans: Sequence[_Pixels]) -> _Pixels:
        return cls(
            np.concatenate([scan.lesion for scan in scans]),
            np.concatenate([scan.is_brain for scan in scans]),
            {method: np.concatenate([scan.scores[method] for scan in scans]) for method in METHODS},
        )

    @property
    def brain(self) -> _Pixels:
        scores = {method: values[self.is_brain] for method, values in self.scores.items()}
        return _Pixels(self.lesion[self.is_brain], self.is_brain[self.is_brain], scores)


def evaluate_phantoms(cohort: PhantomDataset, healthy: Sequence[Path], table: StatusTable) -> dict[str, Any]:
    """Compare maps, and plain intensities, with the known lesions.

    Parameters
    ----------
    cohort : PhantomDataset
        Its scans with lesions were scored; the kinds of lesions take turns.
    healthy : sequence of path
        Healthy scans that were scored too; may be empty.
    table : StatusTable
        Tells where the maps are.

    Returns
    -------
    dict
        Numbers of scans; for each of `PIXELS` their number and share of lesion, and the metrics of each of
        `METHODS` on them; AUROC by lesion (brain pixels) and of scans.
    """
    from skmimood.datasets import LESION_KINDS
    from skmimood.metrics import auroc

    patients = [_read(*pair, table) for pair in zip(cohort.scans, cohort.masks, strict=True)]
    scans = [*patients, *(_read(path, None, table) for path in healthy)]
    pooled = _Pixels.pooled(patients)
    by_kind = {
        kind: _Pixels.pooled(patients[first :: len(LESION_KINDS)]).brain
        for first, kind in enumerate(LESION_KINDS[: len(patients)])
    }
    results: dict[str, Any] = {"n_patients": len(patients), "n_healthy_scans": len(healthy)}
    for name, pixels in zip(PIXELS, (pooled, pooled.brain), strict=True):
        results[name] = {
            "n_pixels": pixels.lesion.size,
            "base_rate": float(pixels.lesion.mean()),
            **{method: _pixel_metrics(pixels.lesion, pixels.scores[method]) for method in METHODS},
        }
    results["auroc_by_lesion"] = {
        kind: {method: auroc(pixels.lesion, pixels.scores[method]) for method in METHODS}
        for kind, pixels in by_kind.items()
    }
    if healthy:
        is_patient = np.arange(len(scans)) < len(patients)
        tops = {method: [top_mean(scan.brain.scores[method]) for scan in scans] for method in METHODS}
        results["scan_auroc"] = {method: auroc(is_patient, np.asarray(tops[method])) for method in METHODS}
    return results


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
        "Both columns: the same pixels. Intensity is the scan itself: the brighter, the more anomalous."
    )
    return lines


def _row(name: str, values: Sequence[str]) -> str:
    return f"{name:<30}" + "".join(f"{value:>11}" for value in values)


def _read(path: Path, mask: Path | None, table: StatusTable) -> _Pixels:
    """Read the pixels of a scan; which of them are brain does not depend on any method."""
    from scipy.ndimage import binary_fill_holes

    scan = read_scan(path)
    lesion = np.zeros(scan.data.shape, dtype=bool) if mask is None else read_labels(mask, scan)
    # The background of these scans is exactly 0, and so may be the core of a dark lesion.
    brain = lesion | np.stack([binary_fill_holes(plane) for plane in (scan.data > 0).T]).T
    anomaly = read_scan(table.images(scan_id(path))[0]).data
    # Scans differ in gain: without scaling, pooled intensities would rank scans, not pixels.
    bright = float(np.percentile(scan.data[brain], 98))
    scores = {"skmimood": anomaly.ravel(), "intensity": scan.data.ravel() / bright}
    return _Pixels(lesion.ravel(), brain.ravel(), scores)


def _pixel_metrics(lesion: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
    from skmimood.metrics import auroc, average_precision, best_dice

    precision = average_precision(lesion, scores)
    return {
        "auroc": auroc(lesion, scores),
        "average_precision": precision,
        "ap_ratio": precision / float(lesion.mean()),
        "best_dice": best_dice(lesion, scores),
    }
